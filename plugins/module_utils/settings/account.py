# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only matters on Cloudflare: who deploys, where to, and what its API would refuse."""

from __future__ import annotations

from urllib.parse import urlsplit

from ..addresses import is_address, local_name, private_address
from .catalogue import API_BASE_URL, SECRET_VARIABLES, VALUE_BYTES
from .inputs import Inputs
from .values import ACCOUNT_ID, canonical, key_flaw, show, unencrypted, url_flaw


def read_cloudflare(inputs: Inputs) -> None:
    """Read what only matters on Cloudflare."""
    settings = inputs.settings
    settings.dashboard_hostname = inputs.hostname("hermes_dashboard_hostname")
    if settings.platform != "cloudflare":
        return
    _account(inputs)
    parts = urlsplit(settings.provider_base_url)
    host = parts.hostname or ""
    if private_address(host) or local_name(host) or parts.scheme == "http":
        inputs.problem(
            "hermes_provider_base_url",
            "is an address of this machine or a private network, which Cloudflare does not reach."
            if private_address(host) or local_name(host)
            else unencrypted("over the internet"),
            "set hermes_provider_base_url to a public https address, or hermes_platform: workerd.",
            "provider-url",
        )
    elif is_address(host):
        inputs.problem(
            "hermes_provider_base_url",
            "is an IP address, and Cloudflare's Workers reach the internet by name only (its error 1003).",
            "set hermes_provider_base_url to a name that leads there, for example https://models.example.com/v1.",
            "provider-url",
        )
    _sizes(inputs)


def _sizes(inputs: Inputs) -> None:
    """Note what Cloudflare would refuse for its size."""
    values = {
        "hermes_env": canonical(inputs.settings.env),
        "hermes_models": canonical(inputs.settings.models),
        "hermes_cors_origins": ",".join(inputs.settings.cors_origins),
        "hermes_access_audiences": ",".join(inputs.settings.access_audiences),
    }
    values |= {SECRET_VARIABLES[name]: value for name, value in inputs.secrets.items()}
    for variable, value in values.items():
        size = len(value.encode())
        if size > VALUE_BYTES:
            inputs.problem(
                variable,
                f"takes {size} bytes; Cloudflare's limit for one value is {VALUE_BYTES}.",
                "make it shorter: on Cloudflare all of it is one variable or secret of the Worker.",
                "inputs",
            )


def _account(inputs: Inputs) -> None:
    """Read who deploys, and where to."""
    settings = inputs.settings
    value = str(inputs.raw.get("hermes_account_id") or "").strip().lower()
    if ACCOUNT_ID.fullmatch(value):
        settings.account_id = value
    else:
        inputs.problem(
            "hermes_account_id",
            f"{show(value)} is not an account id: 32 hexadecimal digits." if value else "not set.",
            "copy it from the dashboard (Workers & Pages, right-hand column) and set hermes_account_id,"
            " or export CLOUDFLARE_ACCOUNT_ID. To run Hermes on this machine instead:"
            " hermes_platform: workerd.",
            "account",
        )
    _api_base_url(inputs)
    token = inputs.raw.get("cloudflare_api_token")
    flaw = key_flaw(token) if token not in (None, "") else "not set"
    if flaw:
        inputs.problem(
            "cloudflare_api_token",
            f"{flaw} (the value is not shown)." if token else "not set.",
            "make an API token at https://dash.cloudflare.com/profile/api-tokens and export"
            " CLOUDFLARE_API_TOKEN, or set cloudflare_api_token in the inventory (vaulted).",
            "cloudflare-token",
        )
    else:
        inputs.cloudflare_token = str(token)


def _api_base_url(inputs: Inputs) -> None:
    """Read where Cloudflare's API is; the token is sent there."""
    url = inputs.text("cloudflare_api_base_url", "cloudflare-api")
    flaw = url_flaw(url) if url else ""
    if flaw:
        inputs.problem(
            "cloudflare_api_base_url",
            flaw,
            f"leave it out, or set it to an address like {API_BASE_URL}.",
            "cloudflare-api",
        )
    elif url:
        inputs.settings.api_base_url = url.rstrip("/")

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks whether a provider can be reached from here, and asks whether it takes the key: a call that costs nothing."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from ...module_utils.addresses import is_address, private_address
from ...module_utils.cards import Problem
from ...module_utils.settings.catalogue import KEY_NAMES, KEY_VARIABLES, PROVIDER_ROWS
from ...module_utils.settings.settings import Settings
from ...module_utils.settings.values import unencrypted

try:
    import requests
except ImportError:
    requests = None  # type: ignore[assignment] # a card tells of it where it is needed

TIMEOUT = (10.0, 20.0)
# As the Worker judges it (worker/src/providers/refusals.ts).
ELSEWHERE = re.compile(
    r"unsupported_country|country, region,? or territory"
    r"|(?:available|supported|allowed) in your (?:country|region|location|territory)"
    r"|user location is not supported|request not allowed",
    re.IGNORECASE,
)
MODERATED = re.compile(r'"flagged_input"|requires moderation', re.IGNORECASE)


def provider_problems(settings: Settings, secrets: dict[str, str]) -> list[Problem]:
    """Return what stands against the provider, as far as asking tells; a key goes nowhere that may not have it."""
    return _nowhere(settings) or refused_keys(settings, secrets)


def _nowhere(settings: Settings) -> list[Problem]:
    """Return the problem of an endpoint whose name leads nowhere from this machine, or without TLS to the internet."""
    parts = urlsplit(settings.provider_base_url)
    host = parts.hostname or ""
    if settings.platform != "workerd" or not host or is_address(host):
        return []
    try:
        found = {str(one[4][0]) for one in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        if parts.scheme == "https" and getattr(error, "errno", None) == socket.EAI_AGAIN:
            return []  # nobody answers just now, which says nothing of the name
        return [
            Problem(
                "hermes_provider_base_url",
                f"this machine finds no {host}.",
                f"see what `getent hosts {host}` says. The name of a container holds in its engine's own network only:"
                " publish its port and name 127.0.0.1, for example http://127.0.0.1:11434/v1.",
                "provider-url",
            )
        ]
    outside = sorted(address for address in found if not private_address(address))
    if parts.scheme != "http" or not outside:
        return []
    return [
        Problem(
            "hermes_provider_base_url",
            unencrypted(f"to {host} ({outside[0]})"),
            "set hermes_provider_base_url to https, or to a name that leads to a private address.",
            "provider-url",
        )
    ]


def refused_keys(settings: Settings, secrets: dict[str, str]) -> list[Problem]:
    """Return a problem when hermes_check_provider_key is set and the provider refuses the key, or this machine's place.

    A provider that does not answer, or answers otherwise, proves nothing against the key.
    """
    provider = settings.provider
    key = secrets.get(KEY_NAMES.get(KEY_VARIABLES.get(provider, ""), ""))
    if not settings.check_provider_key or not key:
        return []
    row = PROVIDER_ROWS[provider]
    try:
        answer = requests.get(
            (settings.provider_base_url or row.base) + row.listing,
            # As a callable, because requests would let a ~/.netrc win over a plain header.
            auth=_signed(provider, key),
            timeout=TIMEOUT,
            allow_redirects=False,
        )
    except requests.exceptions.RequestException:
        return []
    why = why_refused(answer.status_code, answer.text)
    if why == "region" and settings.platform == "workerd":
        return [not_served_here(settings, provider, answer.status_code)]
    if why != "key":
        return []  # from elsewhere, which Cloudflare is, the answer may be another
    variable = KEY_VARIABLES[provider]
    return [
        Problem(
            variable,
            f"{provider} refuses it with {answer.status_code} (the value is not shown).",
            f"set {variable} (or export {KEY_NAMES[variable]}) to a key that is valid for"
            f" {settings.default_model}.",
            "provider-refused",
        )
    ]


def why_refused(status: int, body: str) -> str | None:
    """Return what a provider refuses, "key" or "region"; None when it is neither."""
    if status == 401:
        return "key"
    if status == 451:
        return "region"
    if status not in (400, 403):
        return None
    if ELSEWHERE.search(body):
        return "region"
    return "key" if status == 403 and not MODERATED.search(body) else None


def not_served_here(settings: Settings, provider: str, status: int, words: str = "") -> Problem:
    """Return the problem of a provider that serves nobody from where Hermes asks. words: of its own."""
    told = f": {words}" if words else ""
    remedy = f"choose another provider in hermes_default_model, or reach {provider} through hermes_ai_gateway"
    if settings.platform == "workerd":
        subject, place = "hermes_default_model", "where this machine is"
    else:
        subject, place = "hermes_location", "where Cloudflare made this deployment"
        remedy = (
            "run destroy, which keeps a backup, then deploy with hermes_location set to a region that is served"
            f" (enam, weur), and restore; or {remedy}"
        )
    return Problem(
        subject,
        f"{provider} serves nobody from {place}, and refuses with {status}{told}. The key is not at fault.",
        f"{remedy}.",
        "provider-region",
    )


def _signed(provider: str, key: str) -> Callable[[Any], Any]:
    """Return what gives a request the key, and this key only."""

    def sign(request: Any) -> Any:
        request.headers.update(_headers(provider, key))
        return request

    return sign


def _headers(provider: str, key: str) -> dict[str, str]:
    if provider == "anthropic":
        return {"x-api-key": key, "anthropic-version": "2023-06-01"}
    return {"Authorization": f"Bearer {key}"}

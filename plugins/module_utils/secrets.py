# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets of a Worker: their names from Cloudflare, proofs of their values from the Worker itself."""

from __future__ import annotations

import secrets as random_source
from collections.abc import Mapping

try:
    import requests
except ImportError:
    requests = None

from ansible_collections.hermes.workers.plugins.module_utils import scripts
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import Cloudflare
from ansible_collections.hermes.workers.plugins.module_utils.digests import matches

PROOF_TIMEOUT = 20.0


class Unproved(Exception):
    """The Worker did not prove what it holds. The message tells why, and has no secret in it."""


def names(api: Cloudflare, worker: str) -> set[str]:
    """Return the names of a Worker's secrets. Raises CloudflareError, `missing` when there is no such Worker."""
    return {one["name"] for one in api.get(scripts.path(api, worker, "secrets")) or []}


def write(api: Cloudflare, worker: str, values: Mapping[str, str | None]) -> None:
    """Set and delete (None) secrets in one call, which makes one new version; the rest stays as it is."""
    api.hide(*(value for value in values.values() if value))
    entries = {
        name: None if value is None else {"name": name, "text": value, "type": "secret_text"}
        for name, value in values.items()
    }
    api.patch(scripts.path(api, worker, "secrets-bulk"), {"secrets": entries}, merge=True)


def nonce() -> str:
    """Return a fresh nonce for a proof."""
    return random_source.token_hex(32)


def proofs(url: str, token: str, nonce_: str) -> dict[str, str]:
    """Ask a Worker for the HMAC of each secret that it knows by name, without waking Hermes. Raises Unproved."""
    headers = {"Authorization": f"Bearer {token}", "User-Agent": "hermes.workers"}
    try:
        response = requests.post(
            f"{url.rstrip('/')}/api/secrets/proof",
            json={"nonce": nonce_},
            auth=_keep_headers,
            headers=headers,
            timeout=PROOF_TIMEOUT,
            allow_redirects=False,
        )
        answer = response.json() if response.ok else {}
    except (requests.exceptions.RequestException, ValueError) as error:
        raise Unproved(f"it cannot be asked ({type(error).__name__})") from None
    if not isinstance(answer, dict) or not isinstance(answer.get("proofs"), dict):
        raise Unproved(f"it answers HTTP {response.status_code}")
    return {str(name): str(value) for name, value in answer["proofs"].items()}


def _keep_headers(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Be there, so that requests does not let a ~/.netrc win over the header."""
    return request


def outdated(
    wanted: Mapping[str, str], present: set[str], proven: Mapping[str, str], nonce_: str
) -> tuple[list[str], list[str]]:
    """Return the names to write, and those of them that are there but could not be compared."""
    unknown = [name for name in wanted if name in present and name not in proven]
    differing = [
        name
        for name, value in wanted.items()
        if name not in unknown and (name not in present or not matches(value, nonce_, proven[name]))
    ]
    return sorted(differing + unknown), sorted(unknown)

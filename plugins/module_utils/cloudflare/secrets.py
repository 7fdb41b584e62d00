# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets of a Worker: their names from Cloudflare, proofs of their values from the Worker itself."""

from __future__ import annotations

import secrets as random_source
from collections.abc import Mapping
from urllib.parse import urlsplit

from ..digests import matches
from ..worker_client import RemoteClient, Unreachable
from . import scripts
from .client import Cloudflare, CloudflareError

PROOF_TIMEOUT = 20.0
MOST = 100
"""How many secrets one call may set and delete."""


class Unproved(Exception):
    """The Worker did not prove what it holds. The message tells why, and has no secret in it."""


def names(api: Cloudflare, worker: str) -> set[str]:
    """Return the names of a Worker's secrets. Raises CloudflareError, `missing` when there is no such Worker."""
    return {one["name"] for one in api.get(scripts.path(api, worker, "secrets")) or []}


def write(
    api: Cloudflare,
    worker: str,
    values: Mapping[str, str | None],
    containers: scripts.Containers | None = None,
) -> None:
    """Set and delete (None) secrets in one call, which makes one new version; the rest stays as it is.

    More than a call may hold take several. Where the newest version is not the one that serves, Cloudflare refuses
    this: what serves is then uploaded again with these secrets, and nothing else is brought into service.

    containers: returns those of a version with these variables, for the case that Cloudflare does not tell them.
    """
    api.hide(*(value for value in values.values() if value))
    names = list(values)
    for start in range(0, len(names), MOST):
        part = {name: entry(name, values[name]) for name in names[start : start + MOST]}
        try:
            api.patch(scripts.path(api, worker, "secrets-bulk"), {"secrets": part}, merge=True)
        except CloudflareError as error:
            if not error.outdeployed:
                raise
            rest = {name: values[name] for name in names[start:]}
            scripts.upload_serving(api, worker, rest, containers)
            return


def entry(name: str, value: str | None) -> dict[str, str] | None:
    """Return what a merge patch says of a secret; None deletes it."""
    return None if value is None else {"name": name, "text": value, "type": "secret_text"}


def nonce() -> str:
    """Return a fresh nonce for a proof."""
    return random_source.token_hex(32)


def proofs(url: str, token: str, nonce_: str) -> dict[str, str]:
    """Ask a Worker for the HMAC of each secret that it knows by name, without waking Hermes. Raises Unproved."""
    client = RemoteClient(urlsplit(url).netloc, token, PROOF_TIMEOUT)
    client.url = url.rstrip("/")
    try:
        response = client.request("POST", "/api/secrets/proof", {"nonce": nonce_})
    except Unreachable as error:
        raise Unproved(f"it cannot be asked ({error})") from None
    answer = response.json() if response.status == 200 else {}
    if not isinstance(answer, dict) or not isinstance(answer.get("proofs"), dict):
        raise Unproved(f"it answers HTTP {response.status}: {response.complaint()}")
    return {str(name): str(value) for name, value in answer["proofs"].items()}


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

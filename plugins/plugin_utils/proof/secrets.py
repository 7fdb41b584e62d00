# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which secrets a Worker should hold, and which it proves that it holds."""

from __future__ import annotations

import secrets as random

from ...module_utils.digests import differing
from ...module_utils.settings.catalogue import SECRET_VARIABLES
from ...module_utils.settings.settings import Settings
from ...module_utils.worker_client import Unreachable, WorkerClient
from ..state.folder import StateFolder

PREVIOUS = "API_TOKEN_PREVIOUS"
"""The API token that a rotation replaced; set by rotations only."""


def effective_secrets(
    settings: Settings, given: dict[str, str], deployment: StateFolder
) -> dict[str, str]:
    """Return the secrets that the Worker should hold, with the API token kept in the state folder.

    Without an API token in the result (and without hermes_allow_unauthenticated) one has yet to be generated.
    """
    wanted = dict(given)
    if "API_TOKEN" not in wanted and not settings.allow_unauthenticated:
        kept = deployment.token()
        if kept:
            wanted["API_TOKEN"] = kept
    return wanted


def prove_secrets(client: WorkerClient | None, wanted: dict[str, str]) -> list[str] | None:
    """Return the variables of the secrets that differ from what the Worker holds; None when it gives no proof."""
    names = differing_secrets(client, wanted)
    return None if names is None else variables_of(names)


def variables_of(names: list[str]) -> list[str]:
    """Return the inventory variables that people know secrets by."""
    return [SECRET_VARIABLES.get(name, name) for name in names]


def differing_secrets(client: WorkerClient | None, wanted: dict[str, str]) -> list[str] | None:
    """Return the names of the secrets that differ from what the Worker holds; None when it gives no proof."""
    if client is None:
        return None
    nonce = random.token_hex(32)
    try:
        answer = client.request("POST", "/api/secrets/proof", {"nonce": nonce}, timeout=10)
    except Unreachable:
        return None
    proofs = answer.json().get("proofs")
    if answer.status != 200 or not isinstance(proofs, dict):
        return None
    # The token of before a rotation stays until the next one: by then it is long refused, and nobody sets it by hand.
    return [name for name in differing(wanted, proofs, nonce) if name in wanted or name != PREVIOUS]

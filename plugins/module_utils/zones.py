# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Zones: which of them a hostname lies in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import Cloudflare


def listing(api: Cloudflare) -> list[dict[str, Any]]:
    """Return the account's zones that the token may see."""
    return list(api.pages("/zones", **{"account.id": api.account_id}))


def parents(hostname: str) -> list[str]:
    """Return the names that the zone of a hostname can have, the most exact first."""
    labels = hostname.rstrip(".").lower().split(".")
    return [".".join(labels[start:]) for start in range(len(labels) - 1)]


def covering(hostname: str, zones: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the most exact of the zones that a hostname lies in."""
    by_name = {zone["name"]: zone for zone in zones}
    return next((by_name[name] for name in parents(hostname) if name in by_name), None)


def find(api: Cloudflare, hostname: str) -> dict[str, Any] | None:
    """Ask for the zone that a hostname lies in, among all that the token may see."""
    for name in parents(hostname):
        found = api.get("/zones", name=name)
        if found:
            return found[0]
    return None

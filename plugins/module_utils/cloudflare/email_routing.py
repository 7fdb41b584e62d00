# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Email Routing: which mails of a zone a Worker gets, and to which addresses an account may send."""

from __future__ import annotations

from typing import Any

from .client import Cloudflare, CloudflareError, segment


def path(zone_id: str, rule_id: str = "") -> str:
    """Return the path of a zone's rules, or of one."""
    return f"/zones/{segment(zone_id)}/email/routing/rules/{segment(rule_id)}".rstrip("/")


def settings(api: Cloudflare, zone_id: str) -> dict[str, Any]:
    """Return whether a zone takes mails: `enabled`, and the `status` of its DNS records."""
    found: dict[str, Any] = api.get(f"/zones/{segment(zone_id)}/email/routing")
    return found


def listing(api: Cloudflare, zone_id: str) -> list[dict[str, Any]]:
    """Return the zone's rules in their order; of several for an address the first holds."""
    return list(api.pages(path(zone_id)))


def verified(api: Cloudflare) -> list[str]:
    """Return the addresses to which the account may send, in lower case: their owners agreed."""
    found = api.pages(api.account("email/routing/addresses"))
    return sorted(str(one["email"]).lower() for one in found if one.get("verified"))


def address_of(rule: dict[str, Any]) -> str:
    """Return whose mails a rule leads somewhere, in lower case; empty for one of all."""
    matchers = rule.get("matchers") or []
    return next((str(one["value"]).lower() for one in matchers if one.get("type") == "literal"), "")


def worker_of(rule: dict[str, Any]) -> str:
    """Return which Worker a rule hands mails to; empty for another action."""
    actions = rule.get("actions") or []
    return next((str(one["value"][0]) for one in actions if one.get("type") == "worker"), "")


def create(api: Cloudflare, zone_id: str, address: str, worker: str, name: str) -> Any:
    """Make a rule. When the answer was lost, one that is there and leads to the Worker counts as made."""
    try:
        return api.post(path(zone_id), _rule(address, worker, name))
    except CloudflareError as error:
        made = [
            one
            for one in (listing(api, zone_id) if error.uncertain else ())
            if address_of(one) == address and worker_of(one) == worker
        ]
        if not made:
            raise
        return made[0]


def update(
    api: Cloudflare, zone_id: str, rule_id: str, address: str, worker: str, name: str
) -> Any:
    """Set the whole of a rule."""
    return api.put(path(zone_id, rule_id), _rule(address, worker, name))


def delete(api: Cloudflare, zone_id: str, rule_id: str) -> bool:
    """Delete a rule; returns whether it was there."""
    return api.delete(path(zone_id, rule_id))


def _rule(address: str, worker: str, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "enabled": True,
        "matchers": [{"type": "literal", "field": "to", "value": address}],
        "actions": [{"type": "worker", "value": [worker]}],
    }

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Routes of a zone: patterns of addresses whose requests a Worker gets."""

from __future__ import annotations

from typing import Any

from .client import Cloudflare, CloudflareError, segment


def path(zone_id: str, route_id: str = "") -> str:
    """Return the path of a zone's routes, or of one."""
    return f"/zones/{segment(zone_id)}/workers/routes/{segment(route_id)}".rstrip("/")


def listing(api: Cloudflare, zone_id: str) -> list[dict[str, Any]]:
    """Return the zone's routes; a route without `script` keeps Workers away."""
    return api.get(path(zone_id)) or []


def find(api: Cloudflare, zone_id: str, pattern: str) -> dict[str, Any] | None:
    """Return the route of exactly this pattern."""
    return next((one for one in listing(api, zone_id) if one["pattern"] == pattern), None)


def create(api: Cloudflare, zone_id: str, pattern: str, worker: str) -> dict[str, Any]:
    """Make a route. When the answer was lost, a route that is there and leads to the Worker counts as made."""
    try:
        route: dict[str, Any] = api.post(path(zone_id), {"pattern": pattern, "script": worker})
        return route
    except CloudflareError as error:
        made = find(api, zone_id, pattern) if error.uncertain else None
        if made is None or made.get("script") != worker:
            raise
        return made


def update(api: Cloudflare, zone_id: str, route_id: str, pattern: str, worker: str) -> Any:
    """Lead a route to another Worker."""
    return api.put(path(zone_id, route_id), {"pattern": pattern, "script": worker})


def delete(api: Cloudflare, zone_id: str, route_id: str) -> bool:
    """Delete a route; returns whether it was there."""
    return api.delete(path(zone_id, route_id))

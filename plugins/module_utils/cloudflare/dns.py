# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""DNS records of a zone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .client import Cloudflare, CloudflareError, segment

PLACEHOLDER = {"type": "AAAA", "content": "100::", "proxied": True, "ttl": 1}
"""A record that exists only so that a route gets requests: a discard address behind Cloudflare's proxy."""

WRITABLE = ("type", "name", "content", "data", "priority", "proxied", "ttl", "comment", "tags")
EXCLUSIVE = frozenset({"A", "AAAA", "CNAME"})
"""Types of which a name's records decide together where its requests go."""


def path(zone_id: str, record_id: str = "") -> str:
    """Return the path of a zone's records, or of one."""
    return f"/zones/{segment(zone_id)}/dns_records/{segment(record_id)}".rstrip("/")


def listing(api: Cloudflare, zone_id: str, name: str) -> list[dict[str, Any]]:
    """Return the records of a name."""
    # Asked for exactly, and compared again: a filter that is ignored must not widen what is seen.
    found = api.pages(path(zone_id), name=name)
    return [record for record in found if record["name"].lower() == name.lower()]


def create(api: Cloudflare, zone_id: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Make a record. When the answer was lost, a record that is there and equal counts as made."""
    try:
        made: dict[str, Any] = api.post(path(zone_id), record)
        return made
    except CloudflareError as error:
        if not error.uncertain:
            raise
        equals = [one for one in listing(api, zone_id, record["name"]) if equal(one, record)]
        if not equals:
            raise
        return equals[0]


def update(api: Cloudflare, zone_id: str, record_id: str, record: Mapping[str, Any]) -> Any:
    """Set the fields of a record."""
    return api.patch(path(zone_id, record_id), record)


def overwrite(api: Cloudflare, zone_id: str, record_id: str, record: Mapping[str, Any]) -> Any:
    """Put a record in the place of another, whatever its type."""
    return api.put(path(zone_id, record_id), record)


def writable(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes a record like this one again."""
    return {name: record[name] for name in WRITABLE if record.get(name) not in (None, [], {})}


def delete(api: Cloudflare, zone_id: str, record_id: str) -> bool:
    """Delete a record; returns whether it was there."""
    return api.delete(path(zone_id, record_id))


def equal(record: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a record is as wanted, in the fields that are wanted."""
    return normal(record, wanted) == normal(wanted, wanted)


def normal(record: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the named fields as Cloudflare would store them, so that spellings do not count as differences."""
    kept = {name: record.get(name) for name in fields}
    kept["name"] = str(record["name"]).rstrip(".").lower()
    if record.get("type") == "CNAME":
        kept["content"] = str(record["content"]).rstrip(".").lower()
    if record.get("type") == "TXT":
        kept["content"] = str(record["content"]).removeprefix('"').removesuffix('"')
    if "ttl" in kept and record.get("proxied"):
        kept["ttl"] = 1  # a proxied record's is always automatic
    if "comment" in kept:
        kept["comment"] = kept["comment"] or ""
    return kept

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Zones: which of them a hostname lies in. Cloudflare lists them by Unicode names, and everything in them by ASCII."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .client import Cloudflare, CloudflareError


def listing(api: Cloudflare) -> list[dict[str, Any]]:
    """Return the account's zones that the token may see. Refused to a token that is limited to some of them."""
    found = api.pages("/zones", **{"account.id": api.account_id})
    return [zone for zone in found if _is_ours(api, zone)]


def of_hostnames(api: Cloudflare, hostnames: Iterable[str]) -> list[dict[str, Any]]:
    """Return the zones that hostnames may lie in: all of the account, or by their names where a token may not list.

    Raises CloudflareError when the token sees no zone at all.
    """
    try:
        return listing(api)
    except CloudflareError as error:
        if not error.denied:
            raise
        asked = {name: _named(api, name) for one in hostnames for name in parents(one)}
        found = [zone for zones in asked.values() for zone in zones or []]
        if found or any(zones is not None for zones in asked.values()):
            return found
        raise


def ascii_name(name: str) -> str:
    """Return a domain's name as DNS has it; as it was given where it has no such form."""
    name = name.rstrip(".").lower()
    try:
        return ".".join(
            label.encode("idna").decode() if label else label for label in name.split(".")
        )
    except UnicodeError:
        return name


def unicode_name(name: str) -> str:
    """Return a domain's name as people read it."""
    try:
        return ascii_name(name).encode().decode("idna")
    except UnicodeError:
        return name


def parents(hostname: str) -> list[str]:
    """Return the names that the zone of a hostname can have, the most exact first."""
    labels = ascii_name(hostname).split(".")
    return [".".join(labels[start:]) for start in range(len(labels) - 1)]


def covering(hostname: str, zones: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the most exact of the zones that a hostname lies in."""
    by_name = {ascii_name(zone["name"]): zone for zone in zones}
    return next((by_name[name] for name in parents(hostname) if name in by_name), None)


def find(api: Cloudflare, hostname: str) -> dict[str, Any] | None:
    """Ask for the zone of the account that a hostname lies in."""
    for name in parents(hostname):
        found = _named(api, name)
        if found:
            return found[0]
    return None


def _named(api: Cloudflare, name: str) -> list[dict[str, Any]] | None:
    """Return the account's zones of exactly this name; None when the token may not ask for it."""
    spellings = dict.fromkeys((unicode_name(name), name))
    answers: list[list[dict[str, Any]]] = []
    for spelling in spellings:
        try:
            query = {"name": spelling, "account.id": api.account_id}
            answers.append(api.call("GET", "/zones", query=query).get("result") or [])
        except CloudflareError as error:
            if not error.denied:
                raise
    found = [zone for answer in answers for zone in answer if _is_ours(api, zone)]
    return [zone for zone in found if ascii_name(zone["name"]) == name] if answers else None


def _is_ours(api: Cloudflare, zone: dict[str, Any]) -> bool:
    """Whether a zone is of this account: a filter that is ignored must not lead to somebody else's."""
    return (zone.get("account") or {}).get("id") in (None, api.account_id)

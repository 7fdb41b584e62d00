# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Custom domains: hostnames that a Worker serves as their origin, with DNS record and certificate of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from . import dns
from .client import Cloudflare, CloudflareError, segment

RECORD_EXISTS = 100117


def listing(api: Cloudflare) -> list[dict[str, Any]]:
    """Return all custom domains of the account."""
    return api.get(api.account("workers/domains")) or []


def find(api: Cloudflare, hostname: str) -> dict[str, Any] | None:
    """Return the custom domain of a hostname, or None."""
    found = api.get(api.account("workers/domains"), hostname=hostname) or []
    return next((one for one in found if one["hostname"].lower() == hostname.lower()), None)


def by_worker(api: Cloudflare) -> dict[str, list[str]]:
    """Return the hostnames of all custom domains, by the name of their Worker."""
    found: dict[str, list[str]] = {}
    for domain in listing(api):
        found.setdefault(domain["service"], []).append(domain["hostname"])
    return found


def attach(
    api: Cloudflare, hostname: str, worker: str, zone_id: str, *, take_over: bool = False
) -> dict[str, Any]:
    """Let a Worker serve a hostname. take_over: also one that is another Worker's, else refused (code 100116).

    A DNS record of that name that Cloudflare did not make itself is refused (code 100117), not overwritten.
    """
    body: dict[str, Any] = {"hostname": hostname, "service": worker, "environment": "production"}
    if take_over:
        body["override_existing_origin"] = True
    domain: dict[str, Any] = api.put(api.account("workers/domains"), body | {"zone_id": zone_id})
    return domain


def attach_over(
    api: Cloudflare,
    hostname: str,
    worker: str,
    zone_id: str,
    records: Sequence[Mapping[str, Any]],
    *,
    take_over: bool = False,
) -> dict[str, Any]:
    """Let a Worker serve a hostname in the place of DNS records, which go only where nothing else is in the way.

    Where it is refused all the same, they are made again.
    """
    try:
        return attach(api, hostname, worker, zone_id, take_over=take_over)
    except CloudflareError as error:
        if not records or RECORD_EXISTS not in error.codes:
            raise
    for record in records:
        dns.delete(api, zone_id, record["id"])
    try:
        return attach(api, hostname, worker, zone_id, take_over=take_over)
    except CloudflareError:
        for record in records:
            with suppress(CloudflareError):
                dns.create(api, zone_id, dns.writable(record))
        raise


def detach(api: Cloudflare, domain_id: str) -> bool:
    """Remove a custom domain with its DNS record and certificate; returns whether it was there."""
    return api.delete(api.account(f"workers/domains/{segment(domain_id)}"))

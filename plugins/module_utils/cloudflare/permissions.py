# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an API token may do, as far as it can be found out without changing anything.

A token is asked to read what belongs to each permission: that finds a missing permission and a wrong account. That a
permission is "Read" where "Edit" is needed is told by a token that may read its own policies; with any other it shows
at the first write, whose refusal names the call.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .client import Cloudflare, CloudflareError, segment


@dataclass(frozen=True)
class Permission:
    """One permission in the dashboard's words, and how to see that it is there.

    label: as the dashboard shows it; group: the API's name for it; path: what it lets one read, below the account
    or the zone.
    """

    label: str
    group: str
    path: str


SCRIPTS = Permission("Workers Scripts: Edit", "Workers Scripts Write", "workers/scripts")
CONTAINERS = Permission("Containers: Edit", "Workers Containers Write", "containers/me")
ZONES = Permission("Zone: Read", "Zone Read", "/zones")
DNS = Permission("DNS: Edit", "DNS Write", "dns_records?per_page=1")
ROUTES = Permission("Workers Routes: Edit", "Workers Routes Write", "workers/routes")

MAIL_RULES = Permission(
    "Email Routing Rules: Edit", "Email Routing Rules Write", "email/routing/rules"
)
MAIL_ADDRESSES = Permission(
    "Email Routing Addresses: Read", "Email Routing Addresses Read", "email/routing/addresses"
)
ZONE_SETTINGS = Permission("Zone Settings: Read", "Zone Settings Read", "email/routing")


def verify(api: Cloudflare) -> dict[str, Any]:
    """Return the token's `id`, `status` and `expires_on`. Raises CloudflareError when it is not valid.

    A token belongs to a user or to an account; each kind is verified at another place.
    """
    found: dict[str, Any]
    try:
        found = api.get("/user/tokens/verify")
        return found
    except CloudflareError as error:
        if not error.denied or not api.account_id:
            raise
        try:
            found = api.get(api.account("tokens/verify"))
            return found
        except CloudflareError:
            raise error from None


def granted(api: Cloudflare, token_id: str) -> set[str] | None:
    """Return the names of the token's permission groups; None where it may not read its own policies."""
    for path in (f"/user/tokens/{segment(token_id)}", api.account(f"tokens/{segment(token_id)}")):
        try:
            policies = api.get(path).get("policies") or []
        except CloudflareError as error:
            if error.uncertain:
                raise
            continue
        allowed = [policy for policy in policies if policy.get("effect") == "allow"]
        return {group["name"] for policy in allowed for group in policy["permission_groups"]}
    return None


def read_only(groups: set[str], needed: Iterable[Permission]) -> list[Permission]:
    """Return the needed permissions of which a token has the reading half alone. groups: those that it has.

    A group that is not there at all shows where it is used: its name here may be out of date, and prove nothing.
    """
    return [
        one
        for one in needed
        if one.group not in groups and one.group.replace(" Write", " Read") in groups
    ]

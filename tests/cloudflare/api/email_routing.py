# SPDX-License-Identifier: Apache-2.0
"""Email Routing: whether a zone takes mails, its rules, and the addresses that an account may send to."""

from __future__ import annotations

import re
from typing import Any

from tests.cloudflare.accounts import hex_id, now
from tests.cloudflare.api.front import Call, Page, route
from tests.cloudflare.errors import Refusal

ROUTING = "/zones/{zone}/email/routing"
RULES = f"{ROUTING}/rules"
MOST_RULES = 200
ADDRESS = re.compile(r"[^@\s]+@[^@\s]+")
FIELDS = {"name", "enabled", "matchers", "actions", "priority", "source", "owner_worker_tag"}


@route("GET", ROUTING, "Zone Settings Read")
def settings(call: Call) -> Any:
    return {
        "id": call.zone.id,
        "tag": call.zone.id,
        "name": call.zone.name,
        "enabled": call.zone.takes_mails,
        "status": call.zone.mail_status if call.zone.takes_mails else "unconfigured",
        "skip_wizard": True,
        "support_subaddress": False,
        "created": call.zone.created_on,
        "modified": call.zone.created_on,
    }


@route("GET", RULES, "Email Routing Rules Read")
def rules(call: Call) -> Any:
    return Page(call.zone.mail_rules)


@route("GET", RULES + "/{rule}", "Email Routing Rules Read")
def rule(call: Call) -> Any:
    return _existing(call)


@route("POST", RULES, "Email Routing Rules Write")
def create(call: Call) -> Any:
    wanted = _validated(call)
    if len(call.zone.mail_rules) >= MOST_RULES:
        raise Refusal(400, 2011, "Too many rules.")
    identity = hex_id()
    made = {"id": identity, "tag": identity, "priority": 0, "source": "api", **wanted}
    call.zone.mail_rules.append(made)
    return made


@route("PUT", RULES + "/{rule}", "Email Routing Rules Write")
def overwrite(call: Call) -> Any:
    existing = _existing(call)
    existing.update(_validated(call))
    return existing


@route("DELETE", RULES + "/{rule}", "Email Routing Rules Write")
def delete(call: Call) -> Any:
    existing = _existing(call)
    call.zone.mail_rules.remove(existing)
    return existing


@route("GET", "/accounts/{account}/email/routing/addresses", "Email Routing Addresses Read")
def addresses(call: Call) -> Any:
    made = now()
    return Page(
        [
            {
                "id": address.encode().hex()[:32],
                "tag": address.encode().hex()[:32],
                "email": address,
                "verified": verified,
                "created": made,
                "modified": made,
            }
            for address, verified in call.account.destinations.items()
        ]
    )


def _existing(call: Call) -> dict[str, Any]:
    wanted = call.parts["rule"]
    found = next((one for one in call.zone.mail_rules if one["id"] == wanted), None)
    if found is None:
        raise Refusal(404, 2007, "Rule not found.")
    return found


def _validated(call: Call) -> dict[str, Any]:
    """Return a rule that is good: its address lies in the zone, and its Worker is there."""
    given = call.body if isinstance(call.body, dict) else {}
    if not call.zone.takes_mails:
        raise Refusal(409, 2008, "Email Routing is not enabled for this zone.")
    if unknown := given.keys() - FIELDS:
        raise Refusal(400, 2062, f"Invalid Request: {', '.join(sorted(unknown))}")
    matchers, actions = given.get("matchers"), given.get("actions")
    matcher, action = _one_of(matchers), _one_of(actions)
    address = str(matcher.get("value"))
    if (matcher.get("type"), matcher.get("field")) != ("literal", "to"):
        raise Refusal(400, 2062, "Invalid Request: matchers of rules are literal.")
    if not ADDRESS.fullmatch(address) or not call.zone.covers(address.rpartition("@")[2]):
        raise Refusal(400, 2062, f"Invalid Request: {address} is no address of this zone.")
    values = action.get("value") or []
    if action.get("type") not in ("drop", "forward", "worker"):
        raise Refusal(400, 2062, "Invalid Request: there is no such action.")
    account = call.state.accounts[call.zone.account]
    if action["type"] == "worker" and not (len(values) == 1 and values[0] in account.workers):
        raise Refusal(400, 2020, "Invalid Request: the Worker does not exist.")
    if action["type"] == "forward" and not all(account.destinations.get(one) for one in values):
        raise Refusal(400, 2020, "Invalid Request: the destination address is not verified.")
    return {
        "name": given.get("name") or f"Rule created at {now()}",
        "enabled": given.get("enabled", True) is True,
        "matchers": matchers,
        "actions": actions,
    }


def _one_of(listed: Any) -> dict[str, Any]:
    if not isinstance(listed, list) or len(listed) != 1 or not isinstance(listed[0], dict):
        raise Refusal(400, 2062, "Invalid Request: a rule has one matcher and one action.")
    return listed[0]

# SPDX-License-Identifier: Apache-2.0
"""Tokens, accounts, zones and the account's workers.dev subdomain."""

from __future__ import annotations

from typing import Any

from tests.cloudflare.accounts import Account, Zone, hex_id
from tests.cloudflare.api.front import Call, Page, route
from tests.cloudflare.errors import Refusal, authentication, unauthorized


@route("GET", "/user/tokens/verify")
def verify_token(call: Call) -> Any:
    if call.token.owner != "user":
        raise Refusal(401, 1000, "Invalid API Token")
    return {"id": call.token.id, "status": call.token.status}


@route("GET", "/accounts/{account}/tokens/verify")
def verify_account_token(call: Call) -> Any:
    if call.token.owner != "account":
        raise Refusal(401, 1000, "Invalid API Token")
    return {"id": call.token.id, "status": call.token.status}


@route("GET", "/user/tokens/{token}")
def user_token(call: Call) -> Any:
    if call.token.owner != "user" or not call.token.may("API Tokens Read"):
        raise unauthorized()
    return _token(call)


@route("GET", "/accounts/{account}/tokens/{token}", "Account API Tokens Read")
def account_token(call: Call) -> Any:
    return _token(call)


@route("GET", "/user")
def user(call: Call) -> Any:
    if not call.token.may("User Details Read"):
        raise unauthorized()
    return {"id": call.token.id, "email": "owner@example.com"}


@route("GET", "/memberships")
def memberships(call: Call) -> Any:
    if not call.token.may("Memberships Read"):
        raise Refusal(400, 9106, "Authentication failed")
    return Page([{"id": one.id, "account": _account(one)} for one in _visible(call)])


@route("GET", "/accounts")
def accounts(call: Call) -> Any:
    if not call.token.may("Account Settings Read"):
        return Page([])
    return Page([_account(one) for one in _visible(call)])


@route("GET", "/accounts/{account}", "Account Settings Read")
def account(call: Call) -> Any:
    return _account(call.account)


@route("GET", "/zones")
def zones(call: Call) -> Any:
    if not call.token.may("Zone Read"):
        raise authentication()
    wanted = call.query.get("name")
    owner = call.query.get("account.id")
    if call.token.zones is not None and wanted is None:
        raise authentication()  # only whoever sees all may list
    found = [
        zone
        for zone in call.state.zones.values()
        if zone.account in call.token.accounts
        and (call.token.zones is None or zone.id in call.token.zones)
        and wanted in (None, zone.name)
        and owner in (None, zone.account)
    ]
    return Page([_zone(call, zone) for zone in found])


@route("GET", "/zones/{zone}", "Zone Read")
def zone(call: Call) -> Any:
    return _zone(call, call.zone)


@route("GET", "/accounts/{account}/workers/subdomain", "Workers Scripts Read")
def subdomain(call: Call) -> Any:
    if call.account.subdomain is None:
        raise Refusal(404, 10007, "This account does not have a workers.dev subdomain registered.")
    return {"subdomain": call.account.subdomain}


@route("PUT", "/accounts/{account}/workers/subdomain", "Workers Scripts Write")
def register_subdomain(call: Call) -> Any:
    wanted = call.field("subdomain", str)
    if call.account.subdomain not in (None, wanted):
        raise Refusal(409, 10036, "Account already has an associated subdomain.")
    if any(
        one.subdomain == wanted for one in call.state.accounts.values() if one is not call.account
    ):
        raise Refusal(409, 10031, "Subdomain is unavailable, please try another subdomain.")
    call.account.subdomain = wanted
    return {"subdomain": wanted}


@route("GET", "/accounts/{account}/workers/account-settings", "Workers Scripts Read")
def account_settings(call: Call) -> Any:
    usage = "standard" if call.account.plan == "paid" else "bundled"
    return {"default_usage_model": usage, "green_compute": False}


def _token(call: Call) -> dict[str, Any]:
    """Return the caller's own token; the stand-in shows no other."""
    if call.parts["token"] != call.token.id:
        raise Refusal(404, 1003, "Token not found")
    groups = [{"id": hex_id(), "name": name} for name in sorted(call.token.permissions)]
    resources = {f"com.cloudflare.api.account.{one}": "*" for one in call.token.accounts}
    policy = {
        "id": call.token.id,
        "effect": "allow",
        "permission_groups": groups,
        "resources": resources,
    }
    return {"id": call.token.id, "status": call.token.status, "policies": [policy]}


def _visible(call: Call) -> list[Account]:
    return [one for one in call.state.accounts.values() if one.id in call.token.accounts]


def _account(account: Account) -> dict[str, Any]:
    return {"id": account.id, "name": account.name, "type": "standard"}


def _zone(call: Call, zone: Zone) -> dict[str, Any]:
    owner = call.state.accounts[zone.account]
    return {
        "id": zone.id,
        "name": zone.name,
        "status": zone.status,
        "paused": zone.paused,
        "type": zone.type,
        "created_on": zone.created_on,
        "modified_on": zone.created_on,
        "activated_on": zone.created_on,
        "development_mode": 0,
        "name_servers": ["ada.ns.cloudflare.com", "bob.ns.cloudflare.com"],
        "original_name_servers": [],
        "account": {"id": owner.id, "name": owner.name},
        "owner": {"id": None, "name": "", "type": "user", "email": None},
        "plan": {"id": hex_id(), "name": "Free Website", "price": 0, "currency": "USD"},
        "meta": {"step": 4, "page_rule_quota": 3, "phishing_detected": False},
        "permissions": ["#zone:read"],
    }

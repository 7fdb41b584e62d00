# SPDX-License-Identifier: Apache-2.0
"""How a hostname reaches a Worker: custom domains with their record and certificate, and zone routes."""

from __future__ import annotations

import re
from typing import Any

from tests.cloudflare.accounts import Domain, Zone, hex_id
from tests.cloudflare.api.dns import add_record
from tests.cloudflare.api.front import Call, Page, route
from tests.cloudflare.errors import Refusal, authentication, no_worker

DOMAINS = "/accounts/{account}/workers/domains"
SCRIPT_DOMAINS = "/accounts/{account}/workers/scripts/{name}/domains"
ROUTES = "/zones/{zone}/workers/routes"
HOSTNAME = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}")


@route("GET", DOMAINS, "Workers Scripts Read")
def domains(call: Call) -> Any:
    names = ("hostname", "service", "zone_id", "zone_name")
    wanted = {name: call.query[name] for name in names if call.query.get(name)}
    every = [shown(one) for one in call.account.domains.values()]
    return Page(
        [one for one in every if all(one[name] == value for name, value in wanted.items())],
        default_size=1000,
    )


@route("GET", DOMAINS + "/{domain}", "Workers Scripts Read")
def domain(call: Call) -> Any:
    return shown(_existing(call))


@route("PUT", DOMAINS, "Workers Scripts Write")
def attach(call: Call) -> Any:
    """Attach a hostname to a Worker; needs rights to the zone's routes and records too."""
    hostname = call.field("hostname", str)
    service = call.field("service", str)
    zone_id = call.field("zone_id", str, "")
    overriding = {
        name: bool(call.field(name, bool, False))
        for name in ("override_existing_origin", "override_existing_dns_record")
    }
    return shown(_attach(call, hostname, service, zone_id, **overriding))


@route("DELETE", DOMAINS + "/{domain}", "Workers Scripts Write")
def detach(call: Call) -> Any:
    remove_domain(call, _existing(call))
    return None


@route("POST", SCRIPT_DOMAINS + "/changeset", "Workers Scripts Write")
def changeset(call: Call) -> Any:
    """Tell what attaching hostnames would do; changes nothing."""
    name = _worker_name(call)
    added: list[Any] = []
    updated: list[Any] = []
    conflicting: list[Any] = []
    for wanted in call.body or []:
        found = call.state.domain(wanted["hostname"])
        if found is None:
            conflict = _foreign_record(call.state.zone_of(wanted["hostname"]), wanted["hostname"])
            (conflicting if conflict else added).append(wanted)
        else:
            updated.append(shown(found[1]) | {"modified": found[1].service != name})
    kept = {one["hostname"] for one in call.body or []}
    removed = [
        shown(one)
        for one in call.account.domains.values()
        if one.service == name and one.hostname not in kept
    ]
    return {"added": added, "removed": removed, "updated": updated, "conflicting": conflicting}


@route("PUT", SCRIPT_DOMAINS + "/records", "Workers Scripts Write")
def set_domains(call: Call) -> Any:
    """Attach hostnames as wrangler does: with its overrides this takes them from whoever has them."""
    name = _worker_name(call)
    overriding = {
        one: bool(call.field(one, bool, False))
        for one in ("override_existing_origin", "override_existing_dns_record")
    }
    origins = call.field("origins", list)
    return Page(
        [
            shown(_attach(call, one["hostname"], name, one.get("zone_id", ""), **overriding))
            for one in origins
        ],
        default_size=1000,
    )


@route("GET", ROUTES, "Workers Routes Read")
def routes(call: Call) -> Any:
    return list(call.zone.routes.values())


@route("POST", ROUTES, "Workers Routes Write")
def create_route(call: Call) -> Any:
    wanted = _route(call)
    _refuse_taken(call.zone, wanted["pattern"])
    wanted["id"] = hex_id()
    call.zone.routes[wanted["id"]] = wanted
    return wanted


@route("GET", ROUTES + "/{route}", "Workers Routes Read")
def one_route(call: Call) -> Any:
    return _existing_route(call)


@route("PUT", ROUTES + "/{route}", "Workers Routes Write")
def change_route(call: Call) -> Any:
    existing = _existing_route(call)
    wanted = _route(call)
    _refuse_taken(call.zone, wanted["pattern"], existing["id"])
    existing.update(wanted)
    return existing


@route("DELETE", ROUTES + "/{route}", "Workers Routes Write")
def delete_route(call: Call) -> Any:
    existing = _existing_route(call)
    del call.zone.routes[existing["id"]]
    return {"id": existing["id"]}


@route("PUT", "/accounts/{account}/workers/scripts/{name}/routes", "Workers Scripts Write")
def set_routes(call: Call) -> Any:
    """Set a Worker's routes, all at once."""
    name = _worker_name(call)
    wanted = [one["pattern"] if isinstance(one, dict) else one for one in call.body or []]
    zones = [zone for zone in call.state.zones.values() if zone.account == call.account.id]
    chosen = [(_zone_of_pattern(call, pattern), pattern) for pattern in wanted]
    for zone, pattern in chosen:
        _refuse_taken(zone, pattern, script=name)
    for zone in zones:
        zone.routes = {key: one for key, one in zone.routes.items() if one["script"] != name}
    for zone, pattern in chosen:
        made = {"id": hex_id(), "pattern": pattern, "script": name}
        zone.routes[made["id"]] = made
    return [pattern for _, pattern in chosen]


def remove_domain(call: Call, domain: Domain) -> None:
    """Detach a hostname; its record goes with it."""
    zone = call.state.zones.get(domain.zone_id)
    if zone:
        zone.records.pop(domain.record_id, None)
    del call.account.domains[domain.hostname]


def _attach(
    call: Call,
    hostname: str,
    service: str,
    zone_id: str,
    override_existing_origin: bool,
    override_existing_dns_record: bool,
) -> Domain:
    zone = _zone_for(call, hostname, zone_id)
    if service not in call.account.workers:
        raise no_worker()
    found = call.state.domain(hostname)
    if found:
        return _moved(found[1], service, override_existing_origin)
    foreign = _foreign_record(zone, hostname)
    if foreign and not (override_existing_dns_record and foreign["meta"].get("read_only")):
        raise Refusal(
            409,
            100117,
            f"Hostname '{hostname}' already has externally managed DNS records (A, CNAME, etc). Either delete"
            " them, try a different hostname, or use the option 'override_existing_dns_record' to override.",
        )
    record = add_record(
        zone,
        {"type": "AAAA", "name": hostname, "content": "100::", "proxied": True}
        | {"meta": {"origin_worker_id": call.account.workers[service].tag, "read_only": True}},
    )
    issued_at = call.plane.clock() + call.plane.certificate_seconds
    made = Domain(hostname, zone.id, zone.name, service, record["id"], issued_at)
    call.account.domains[hostname] = made
    return made


def _moved(existing: Domain, service: str, override: bool) -> Domain:
    if existing.service != service and not override:
        raise Refusal(
            409,
            100116,
            f"Hostname '{existing.hostname}' already in use by other custom domain. Either delete it, try a"
            " different hostname, or use the option 'override_existing_origin' to override.",
        )
    existing.service = service
    return existing


def _zone_for(call: Call, hostname: str, zone_id: str) -> Zone:
    if not HOSTNAME.fullmatch(hostname):
        raise Refusal(400, 100113, f"Hostname '{hostname}' is not valid.")
    zone = call.state.zones.get(zone_id) if zone_id else call.state.zone_of(hostname)
    if zone is None or not zone.covers(hostname) or zone.account != call.account.id:
        raise Refusal(404, 100114, f"Zone not found for hostname '{hostname}'.")
    if zone.status != "active" or zone.type == "partial":
        raise Refusal(400, 100115, f"Zone '{zone.name}' is not active.")
    if not (call.token.may("Workers Routes Write") or call.token.may("DNS Write")):
        raise authentication()
    return zone


def _foreign_record(zone: Zone | None, hostname: str) -> dict[str, Any] | None:
    records = zone.records.values() if zone else ()
    kinds = ("A", "AAAA", "CNAME")
    return next((one for one in records if one["name"] == hostname and one["type"] in kinds), None)


def _existing(call: Call) -> Domain:
    for one in call.account.domains.values():
        if call.parts["domain"] == one.id:
            return one
    raise Refusal(404, 100112, "Custom domain not found.")


def shown(domain: Domain) -> dict[str, Any]:
    """Return a custom domain as Cloudflare shows it."""
    return {
        "id": domain.id,
        "hostname": domain.hostname,
        "zone_id": domain.zone_id,
        "zone_name": domain.zone_name,
        "service": domain.service,
        "environment": "production",
        "cert_id": domain.cert_id,
        "enabled": True,
        "previews_enabled": False,
    }


def _worker_name(call: Call) -> str:
    if call.parts["name"] not in call.account.workers:
        raise no_worker()
    return call.parts["name"]


def _route(call: Call) -> dict[str, Any]:
    pattern = call.field("pattern", str)
    script = call.field("script", str, "")
    host = re.sub(r"^https?://", "", pattern).partition("/")[0].lstrip("*.")
    if not call.zone.covers(host):
        raise Refusal(400, 10022, "Invalid route pattern: the hostname is not in this zone.")
    if script and script not in call.state.accounts[call.zone.account].workers:
        raise no_worker()
    return {"pattern": pattern, "script": script}


def _existing_route(call: Call) -> dict[str, Any]:
    found = call.zone.routes.get(call.parts["route"])
    if found is None:
        raise Refusal(404, 10009, "Route not found.")
    return found


def _refuse_taken(zone: Zone, pattern: str, own_id: str = "", script: str = "") -> None:
    for one in zone.routes.values():
        if one["pattern"] == pattern and one["id"] != own_id and one["script"] != (script or None):
            raise Refusal(409, 10020, "A route with the same pattern already exists.")


def _zone_of_pattern(call: Call, pattern: str) -> Zone:
    host = re.sub(r"^https?://", "", pattern).partition("/")[0].lstrip("*.")
    zone = call.state.zone_of(host)
    if zone is None or zone.account != call.account.id:
        raise Refusal(400, 10022, f"No zone of this account holds {host}.")
    return zone

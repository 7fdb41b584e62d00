# SPDX-License-Identifier: Apache-2.0
"""DNS records of a zone, with Cloudflare's conflicts."""

from __future__ import annotations

from typing import Any

from tests.cloudflare.accounts import Zone, hex_id, now
from tests.cloudflare.api.front import Call, Page, route
from tests.cloudflare.errors import Refusal

ADDRESSES = ("A", "AAAA")
KINDS = (*ADDRESSES, "CNAME", "TXT", "MX", "NS", "CAA", "SRV")
RECORDS = "/zones/{zone}/dns_records"


@route("GET", RECORDS, "DNS Read")
def records(call: Call) -> Any:
    wanted = {name: call.query[name] for name in ("name", "type", "content") if name in call.query}
    exact = call.query.get("name.exact")
    found = [
        record
        for record in call.zone.records.values()
        if all(record[name] == value for name, value in wanted.items())
        and exact in (None, record["name"])
    ]
    return Page(found, default_size=100)


@route("GET", RECORDS + "/{record}", "DNS Read")
def record(call: Call) -> Any:
    return _existing(call)


@route("POST", RECORDS, "DNS Write")
def create(call: Call) -> Any:
    if call.zone.type == "partial":
        raise Refusal(400, 1004, "DNS Validation Error: the zone's DNS is not at Cloudflare.")
    wanted = _validated(call, {})
    _refuse_conflicts(call.zone, wanted)
    return add_record(call.zone, wanted)


@route("PUT", RECORDS + "/{record}", "DNS Write")
def overwrite(call: Call) -> Any:
    return _change(call, {})


@route("PATCH", RECORDS + "/{record}", "DNS Write")
def change(call: Call) -> Any:
    return _change(call, _existing(call))


@route("DELETE", RECORDS + "/{record}", "DNS Write")
def delete(call: Call) -> Any:
    existing = _existing(call)
    _refuse_read_only(existing)
    del call.zone.records[existing["id"]]
    return {"id": existing["id"]}


def add_record(zone: Zone, wanted: dict[str, Any]) -> dict[str, Any]:
    """Store a record that was checked."""
    made = {
        "id": hex_id(),
        "ttl": 1,
        "proxied": False,
        "comment": None,
        "tags": [],
        "meta": {},
        "settings": {},
        **wanted,
        "proxiable": wanted["type"] in (*ADDRESSES, "CNAME"),
        "created_on": now(),
        "modified_on": now(),
    }
    zone.records[made["id"]] = made
    return made


def _change(call: Call, base: dict[str, Any]) -> dict[str, Any]:
    existing = _existing(call)
    _refuse_read_only(existing)
    wanted = _validated(call, base)
    _refuse_conflicts(call.zone, wanted, existing["id"])
    existing.update(wanted, modified_on=now())
    return existing


def _existing(call: Call) -> dict[str, Any]:
    found = call.zone.records.get(call.parts["record"])
    if found is None:
        raise Refusal(404, 81044, "Record does not exist.")
    return found


def _refuse_read_only(record: dict[str, Any]) -> None:
    if record["meta"].get("read_only"):
        raise Refusal(403, 1043, "This DNS record is managed by Workers. It is read only.")


def _validated(call: Call, base: dict[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {
        name: base[name]
        for name in ("type", "name", "content", "ttl", "proxied", "comment")
        if name in base
    }
    given.update(call.body if isinstance(call.body, dict) else {})
    kind, name, content = (str(given.get(one) or "") for one in ("type", "name", "content"))
    if kind not in KINDS:
        raise Refusal(400, 1004, "DNS Validation Error")
    if not call.zone.covers(name):
        name = call.zone.ascii if name in ("", "@") else f"{name}.{call.zone.ascii}"
    if not content:
        raise Refusal(400, 9000, "Content for the record is missing.")
    if given.get("proxied") and kind not in (*ADDRESSES, "CNAME"):
        raise Refusal(400, 9004, "This record type cannot be proxied.")
    return {**given, "type": kind, "name": name, "content": content}


def _refuse_conflicts(zone: Zone, wanted: dict[str, Any], own_id: str = "") -> None:
    for record in zone.records.values():
        if record["name"] != wanted["name"] or record["id"] == own_id:
            continue
        if (record["type"], record["content"]) == (wanted["type"], wanted["content"]):
            raise Refusal(400, 81058, "An identical record already exists.")
        if wanted["type"] == "CNAME" and record["type"] in ADDRESSES:
            raise Refusal(400, 81053, "An A, AAAA, or CNAME record with that host already exists.")
        if record["type"] == "CNAME" and wanted["type"] in (*ADDRESSES, "CNAME"):
            raise Refusal(400, 81054, "A CNAME record with that host already exists.")
        if record["meta"].get("read_only") and wanted["type"] in ADDRESSES:
            raise Refusal(400, 81053, "An A, AAAA, or CNAME record with that host already exists.")

# SPDX-License-Identifier: Apache-2.0
"""Records, custom domains, routes and certificates: what conflicts, and which hostname reaches which Worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import (
    Cloudflare,
    CloudflareError,
)

from tests.cloudflare import ControlPlane
from tests.cloudflare.accounts import PERMISSIONS
from tests.cloudflare.uploading import ACCOUNT, upload

Make = Callable[..., Cloudflare]
HOST = "hermes.example.com"


@pytest.fixture
def api(client: Make) -> Cloudflare:
    """A client of an account with one Worker, named box."""
    upload(client())
    return client()


@pytest.fixture
def zone(plane: ControlPlane) -> str:
    """The path of the account's zone."""
    return f"/zones/{next(iter(plane.state.zones))}"


def refused(act: Callable[..., Any], *arguments: Any, **named: Any) -> int:
    with pytest.raises(CloudflareError) as caught:
        act(*arguments, **named)
    return caught.value.codes[0]


def attach(api: Cloudflare, zone: str, service: str = "box", host: str = HOST, **more: Any) -> Any:
    body = {"hostname": host, "service": service, "zone_id": zone.removeprefix("/zones/"), **more}
    return api.put(api.account("workers/domains"), body)


def test_records_conflict_as_cloudflares_do(api: Cloudflare, zone: str) -> None:
    records = f"{zone}/dns_records"
    address = {"type": "A", "name": HOST, "content": "192.0.2.1", "proxied": True}
    made = api.post(records, address)
    assert refused(api.post, records, address) == 81058
    cname = {"type": "CNAME", "name": HOST, "content": "example.org"}
    assert refused(api.post, records, cname) == 81053
    api.post(records, {"type": "TXT", "name": HOST, "content": "free"})
    api.patch(f"{records}/{made['id']}", {"content": "192.0.2.2"})
    assert api.get(f"{records}/{made['id']}")["content"] == "192.0.2.2"
    assert api.delete(f"{records}/{made['id']}")
    api.post(records, cname)
    assert refused(api.post, records, address) == 81054
    assert [one["type"] for one in api.pages(records, name=HOST)] == ["TXT", "CNAME"]


def test_a_custom_domain_brings_its_record_and_takes_it_away(api: Cloudflare, zone: str) -> None:
    made = attach(api, zone)
    (record,) = api.get(f"{zone}/dns_records", name=HOST)
    assert (record["type"], record["content"], record["proxied"]) == ("AAAA", "100::", True)
    assert refused(api.patch, f"{zone}/dns_records/{record['id']}", {"content": "::1"}) == 1043
    assert requests.get(f"https://{HOST}/", timeout=30).json()["url"] == f"https://{HOST}/"
    api.delete(api.account(f"workers/domains/{made['id']}"))
    assert api.get(f"{zone}/dns_records", name=HOST) == []
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get(f"https://{HOST}/", timeout=30)


def test_a_hostname_is_taken_only_when_told_to(
    plane: ControlPlane, client: Make, api: Cloudflare, zone: str
) -> None:
    attach(api, zone)
    upload(api, "other")
    assert refused(attach, api, zone, "other") == 100116
    assert attach(api, zone, "other", override_existing_origin=True)["service"] == "other"
    blog = "blog.example.com"
    api.post(f"{zone}/dns_records", {"type": "A", "name": blog, "content": "192.0.2.1"})
    assert refused(attach, api, zone, host=blog) == 100117
    # The option is about records of other Workers, not about everybody's.
    assert refused(attach, api, zone, host=blog, override_existing_dns_record=True) == 100117
    assert refused(attach, api, zone, host="hermes.example.org") == 100114
    assert refused(attach, api, zone, "nobody", host="b.example.com") == 10007
    plane.add_account(ACCOUNT, "narrow", scopes=PERMISSIONS - {"Workers Routes Write", "DNS Write"})
    assert refused(attach, client("narrow"), zone, host="c.example.com") == 10000


def test_wranglers_own_way_takes_hostnames_from_other_workers(api: Cloudflare, zone: str) -> None:
    attach(api, zone)
    upload(api, "thief")
    path = api.account("workers/scripts/thief/domains")
    (updated,) = api.post(f"{path}/changeset?replace_state=true", [{"hostname": HOST}])["updated"]
    assert updated["service"] == "box" and updated["modified"]
    overrides = {"override_existing_origin": True, "override_existing_dns_record": True}
    api.put(
        f"{path}/records", {**overrides, "override_scope": True, "origins": [{"hostname": HOST}]}
    )
    assert api.get(api.account("workers/domains"), hostname=HOST)[0]["service"] == "thief"


def test_a_slow_certificate_breaks_connections_off_until_it_is_issued(
    plane: ControlPlane, api: Cloudflare, zone: str
) -> None:
    plane.certificate_seconds = 60
    attach(api, zone)
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"https://{HOST}/", timeout=30)
    plane.advance(61)
    assert requests.get(f"https://{HOST}/", timeout=30).ok


def test_a_route_needs_a_proxied_record_and_matches_by_pattern(api: Cloudflare, zone: str) -> None:
    routes = f"{zone}/workers/routes"
    made = api.post(routes, {"pattern": f"{HOST}/v1/*", "script": "box"})
    assert refused(api.post, routes, {"pattern": f"{HOST}/v1/*", "script": "box"}) == 10020
    assert refused(api.post, routes, {"pattern": "example.org/*", "script": "box"}) == 10022
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get(f"https://{HOST}/v1/x", timeout=30)
    api.post(
        f"{zone}/dns_records", {"type": "AAAA", "name": HOST, "content": "100::", "proxied": True}
    )
    assert requests.get(f"https://{HOST}/v1/x", timeout=30).ok
    assert requests.get(f"https://{HOST}/elsewhere", timeout=30).status_code == 404
    api.delete(f"{routes}/{made['id']}")
    assert api.get(routes) == []


def test_the_zones_certificate_covers_one_level(api: Cloudflare, zone: str) -> None:
    deep = "a.b.example.com"
    api.post(f"{zone}/workers/routes", {"pattern": f"{deep}/*", "script": "box"})
    api.post(
        f"{zone}/dns_records", {"type": "AAAA", "name": deep, "content": "100::", "proxied": True}
    )
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"https://{deep}/", timeout=30)


def test_nothing_else_is_reachable_through_the_proxy(plane: ControlPlane) -> None:
    for host in ("dash.cloudflare.com", "example.org"):
        with pytest.raises(requests.exceptions.ProxyError):
            requests.get(f"https://{host}/", timeout=30)

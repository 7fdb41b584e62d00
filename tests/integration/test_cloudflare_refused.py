# SPDX-License-Identifier: Apache-2.0
"""What cannot end well is refused before the first change, by its cause and with what to do; one play for all of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import dns, domains, routes
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import Cloudflare
from fleets import ACCOUNT, Fleet

from tests.cloudflare import ControlPlane
from tests.cloudflare.accounts import PERMISSIONS, Token
from tests.cloudflare.uploading import upload

OTHER, FREE, FRESH, UNCONTAINED = "f" * 32, "a" * 32, "b" * 32, "c" * 32


@dataclass
class Refused:
    """Why a host is refused: what is different about it or its token, and what its card says."""

    words: str | tuple[str, ...]
    variables: dict[str, Any] = field(default_factory=dict)
    token: Callable[[Token], None] = lambda _token: None


def without(*permissions: str) -> Callable[[Token], None]:
    """A token that lacks permissions."""

    def change(token: Token) -> None:
        token.permissions = set(PERMISSIONS) - set(permissions)

    return change


def only_reading(permission: str) -> Callable[[Token], None]:
    """A token that may read its policies, and of one permission has the reading half alone."""

    def change(token: Token) -> None:
        reading = {permission.replace(" Write", " Read"), "API Tokens Read"}
        token.permissions = set(PERMISSIONS) - {permission} | reading

    return change


def expired(token: Token) -> None:
    token.status = "expired"


def in_account(account: str) -> Callable[[Token], None]:
    def change(token: Token) -> None:
        token.accounts = {account}

    return change


CASES = {
    "nobody": Refused("not valid", {"cloudflare_api_token": "cf-of-nobody"}),
    "expired": Refused("the token is expired, not active", token=expired),
    "anothers-token": Refused("the token sees nothing of this account", token=in_account(OTHER)),
    "anothers-account": Refused(
        "the token sees nothing of this account", {"hermes_account_id": OTHER}
    ),
    "no-scripts": Refused("Workers Scripts: Edit", token=without("Workers Scripts Write")),
    "no-containers": Refused("Containers: Edit", token=without("Workers Containers Write")),
    "no-zones": Refused("lacks the permission Zone: Read", token=without("Zone Read")),
    "no-dns": Refused("lacks the permission DNS: Edit", token=without("DNS Write")),
    "no-routes": Refused("Workers Routes: Edit", token=without("Workers Routes Write")),
    "no-nothing": Refused(
        (
            "Workers Scripts: Edit, to upload",
            "Workers Routes: Edit, to see and set the routes of example.com",
            "DNS: Edit, to see and make records of example.com",
        ),
        token=without("Workers Scripts Write", "Workers Routes Write", "DNS Write"),
    ),
    "no-dns-to-take-over": Refused(
        "DNS: Edit",
        {"hermes_take_over_hostname": True},
        without("DNS Write"),
    ),
    "reads-scripts": Refused(
        "Workers Scripts: Edit, of which it has the reading half",
        token=only_reading("Workers Scripts Write"),
    ),
    "reads-dns": Refused(
        "DNS: Edit, of which it has the reading half", token=only_reading("DNS Write")
    ),
    "free-plan": Refused("Workers Paid", {"hermes_account_id": FREE}, in_account(FREE)),
    "no-access": Refused(
        "Workers Paid", {"hermes_account_id": UNCONTAINED}, in_account(UNCONTAINED)
    ),
    "no-subdomain": Refused(
        "has no workers.dev subdomain yet", {"hermes_account_id": FRESH}, in_account(FRESH)
    ),
    "no-zone": Refused("lies in no zone", {"hermes_dashboard_hostname": "a.example.org"}),
    "anothers-zone": Refused("lies in no zone", {"hermes_dashboard_hostname": "a.example.net"}),
    "pending-zone": Refused(
        "is pending, not active", {"hermes_dashboard_hostname": "a.example.io"}
    ),
    "anothers-record": Refused(
        "has a DNS record (A) already", {"hermes_dashboard_hostname": "taken.example.com"}
    ),
    "anothers-domain": Refused(
        'belongs to Worker "blog"', {"hermes_dashboard_hostname": "blog.example.com"}
    ),
    "anothers-route": Refused(
        'belongs to Worker "blog"', {"hermes_dashboard_hostname": "routed.example.com"}
    ),
    "anothers-wildcard": Refused(
        'is caught by the route *.example.dev/* of Worker "blog", which runs before a custom domain',
        {"hermes_dashboard_hostname": "a.example.dev"},
    ),
    "anothers-wildcard-to-take-over": Refused(
        "set hermes_route_mode: zone_route",
        {"hermes_dashboard_hostname": "b.example.dev", "hermes_take_over_hostname": True},
    ),
    "anothers-path": Refused(
        'is caught by the route path.example.com/api* of Worker "blog"',
        {"hermes_dashboard_hostname": "path.example.com"},
    ),
    "anothers-path-of-a-route": Refused(
        "which is more exact",
        {"hermes_dashboard_hostname": "more.example.com", "hermes_route_mode": "zone_route"},
    ),
    "paused-zone": Refused("is paused", {"hermes_dashboard_hostname": "a.example.app"}),
    "partial-zone": Refused(
        "is not at Cloudflare (a partial setup)", {"hermes_dashboard_hostname": "a.example.page"}
    ),
    "too-many-tags": Refused(
        "its Worker has 6 tags of others, this deployment needs 3, and Cloudflare allows 8",
        {"hermes_name": "tagged"},
    ),
    "anothers-worker": Refused("not deployed by this collection", {"hermes_name": "blog"}),
    "too-long": Refused("hermes_name", {"hermes_name": "n" * 60}),
    "no-engine": Refused(
        "hermes_platform: cloudflare needs a Docker engine here to build the image, and none answers at unix:/nowhere",
        {"hermes_base_image": "elsewhere:1", "hermes_docker_socket": "unix:/nowhere"},
    ),
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A host for each case, and what belongs to strangers: a Worker, hostnames, a record, a route."""
    folder = tmp_path_factory.mktemp("refused")
    with ControlPlane(folder / "plane") as plane, pytest.MonkeyPatch.context() as patch:
        made = Fleet(plane, folder)
        plane.add_account(OTHER, "of another", subdomain="other", zones=["example.net"])
        plane.add_account(FREE, "of the free", subdomain="free", plan="free")
        plane.add_account(UNCONTAINED, "of the uncontained", subdomain="un", containers=False)
        plane.add_account(FRESH, "of the fresh", subdomain=None)
        further = ["example.io", "example.dev", "example.app", "example.page", "bücher.example"]
        plane.add_account(ACCOUNT, "unused", zones=further)
        zones = {zone.name: zone for zone in plane.state.zones.values()}
        zones["example.io"].status = "pending"
        zones["example.app"].paused = True
        zones["example.page"].type = "partial"
        for name, value in plane.env.items():
            patch.setenv(name, value)
        client, zone = Cloudflare("unused", ACCOUNT), zones["example.com"].id
        upload(client, "blog")
        domains.attach(client, "blog.example.com", "blog", zone)
        for name in ("taken.example.com", "routed.example.com"):
            dns.create(client, zone, {"type": "A", "name": name, "content": "192.0.2.1", "ttl": 1})
        routes.create(client, zone, "routed.example.com/*", "blog")
        for name in ("path", "more"):
            routes.create(client, zone, f"{name}.example.com/api*", "blog")
        routes.create(client, zones["example.dev"].id, "*.example.dev/*", "blog")
        upload(client, "tagged")
        tagged = plane.state.accounts[ACCOUNT].workers["tagged"]
        tagged.tags = ["hermes.workers", "hermes.workers:tagged", *(f"own-{n}" for n in range(6))]
        for name, case in CASES.items():
            made.add(name)
            case.token(plane.state.tokens[made.tokens[name]])
            made.variables[name] = case.variables
        yield made


def test_refusals_come_before_the_first_change(fleet: Fleet) -> None:
    start = len(fleet.plane.calls)
    play = fleet.play()
    assert fleet.plane.writes(start) == []
    cards = {}
    for name, case in CASES.items():
        found = re.search(rf"^{name}: FAILED\n((?:  .*\n)+?  Docs: .*)", play.output, re.MULTILINE)
        assert found, f"{name} was not refused:\n{play.output}"
        cards[name] = found[1]
        for words in (case.words,) if isinstance(case.words, str) else case.words:
            assert words in found[1], found[1]
        assert "Nothing was changed." in found[1], found[1]
        assert "  Do: " in found[1], found[1]
    assert "hermes_take_over_hostname: true" in cards["anothers-domain"]
    for name in ("nobody", "no-scripts", "no-dns"):
        assert cards[name].strip().startswith("cloudflare_api_token: "), cards[name]
    assert not any(fleet.home.glob("*/api_token")), "not even a token was made"


def test_what_a_hostname_lacks_is_no_matter_of_those_without_one(fleet: Fleet) -> None:
    """They share a token and its account, of which is asked once for both."""
    fleet.add("beside")
    token = fleet.tokens["no-dns"]
    fleet.variables["beside"] = {"cloudflare_api_token": token, "hermes_dashboard_hostname": ""}
    play = fleet.play("--check", hosts=["no-dns", "beside"])
    assert "no-dns: FAILED" in play.output
    assert "beside: FAILED" not in play.output
    assert "create  worker     version" in play.output


def test_what_only_looks_wrong_is_let_through(fleet: Fleet) -> None:
    """A route that is more exact than a wildcard, a zone in another script, a token that may not list zones."""
    cases = {
        "beside-a-wildcard": {
            "hermes_dashboard_hostname": "a.example.dev",
            "hermes_route_mode": "zone_route",
        },
        "in-another-script": {"hermes_dashboard_hostname": "a.xn--bcher-kva.example"},
        "of-one-zone": {"hermes_dashboard_hostname": "b.example.com"},
    }
    for name, variables in cases.items():
        fleet.add(name)
        fleet.variables[name] = variables
    zones = {zone.name: zone.id for zone in fleet.plane.state.zones.values()}
    fleet.plane.state.tokens[fleet.tokens["of-one-zone"]].zones = {zones["example.com"]}
    play = fleet.play("--check", hosts=list(cases))
    assert "FAILED" not in play.output, play.output
    assert play.output.count("create  worker     version") == len(cases), play.output

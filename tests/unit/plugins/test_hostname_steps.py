# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A hostname comes to a deployment and goes again: in an order that a cut leaves in service, and another's stays."""

from __future__ import annotations

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import (
    Cloudflare,
    CloudflareError,
)
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare import hostname
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.account import (
    Account,
    of_hostnames,
)
from api_server import ApiServer, Call, Reply, refused
from fake_account import ZONE, FakeAccount

OURS = ["hermes.workers", "hermes.workers:alice"]
NAME, OLD = "a.example.com", "old.example.com"
KINDS = {"script-settings": "tags", "domains": "domain", "routes": "route", "dns_records": "record"}
PLACEHOLDER = ("AAAA", "100::", "hermes.workers:alice")
FOREIGN = ("CNAME", "b.example.com", "")
DOMAIN, ROUTE = "custom_domain", "zone_route"


def wanting(name: str = NAME, mode: str = DOMAIN, take_over: bool = False) -> Settings:
    return Settings(
        name="alice", dashboard_hostname=name, route_mode=mode, take_over_hostname=take_over
    )


class Zone:
    """What leads where in the account, to be set and to be read."""

    def __init__(self, account: FakeAccount) -> None:
        self.account = account

    def domain(self, name: str = NAME, worker: str = "alice") -> None:
        made = {"id": f"d-{name}", "hostname": name, "service": worker, "zone_id": ZONE}
        self.account.domains[made["id"]] = made

    def route(self, name: str = NAME, worker: str = "alice") -> None:
        self.account.routes[f"r-{name}"] = {
            "id": f"r-{name}",
            "pattern": f"{name}/*",
            "script": worker,
        }

    def record(self, told: tuple[str, str, str] = PLACEHOLDER, name: str = NAME) -> None:
        kind, content, comment = told
        identity = self.account.new_id()
        self.account.records[identity] = {
            "id": identity,
            "name": name,
            "type": kind,
            "content": content,
            "comment": comment,
            "proxied": True,
            "ttl": 1,
        }

    @property
    def domains(self) -> dict[str, str]:
        return {one["hostname"]: one["service"] for one in self.account.domains.values()}

    @property
    def routes(self) -> dict[str, str]:
        return {one["pattern"]: one["script"] for one in self.account.routes.values()}

    @property
    def records(self) -> list[tuple[str, str, str]]:
        return [
            (one["type"], one["content"], one.get("comment") or "")
            for one in self.account.records.values()
        ]


@pytest.fixture
def zone(account: FakeAccount) -> Zone:
    return Zone(account)


def settle(api: Cloudflare, settings: Settings, *noted: str) -> list[str]:
    """Do what is to be done. noted: the hostnames that the Worker's tags tell; returns what was said."""
    said: list[str] = []
    tags = [*OURS, *(f"hermes.workers.host:{one}" for one in noted), "own"]
    there = of_hostnames(api, filter(None, [settings.dashboard_hostname, *noted]))
    names = hostname.Hostnames(api, settings, there, tags, said.append)
    planned = [step.words for step in hostname.steps(settings, there, tags)]
    done = names.settle()
    assert [step.words for step in done] == planned, "what the plan says is done"
    assert len(said) == len(done)
    return said


def wrote(server: ApiServer) -> list[str]:
    """What was changed, in its order."""
    return [
        f"{call.method} {next(kind for part, kind in KINDS.items() if part in call.path)}"
        for call in server.writes
    ]


def noted(account: FakeAccount) -> list[str]:
    return [tag for tag in account.tags["alice"] if tag.startswith("hermes.workers.host:")]


def test_a_custom_domain_is_noted_before_it_is_made(
    api: Cloudflare, server: ApiServer, account: FakeAccount, zone: Zone
) -> None:
    settle(api, wanting())
    assert wrote(server) == ["PATCH tags", "PUT domain"]
    assert zone.domains == {NAME: "alice"}
    assert account.tags["alice"] == [*OURS, f"hermes.workers.host:{NAME}", "own"]
    server.calls.clear()
    assert settle(api, wanting(), NAME) == []
    assert not server.writes


def test_what_serves_already_is_only_noted(
    api: Cloudflare, server: ApiServer, account: FakeAccount, zone: Zone
) -> None:
    zone.domain()
    assert settle(api, wanting()) == [f"update note that {NAME} is its own"]
    assert wrote(server) == ["PATCH tags"]
    assert noted(account) == [f"hermes.workers.host:{NAME}"]


def test_a_route_comes_after_its_record(api: Cloudflare, server: ApiServer, zone: Zone) -> None:
    settle(api, wanting(mode=ROUTE))
    assert wrote(server) == ["PATCH tags", "POST record", "POST route"]
    assert zone.routes == {f"{NAME}/*": "alice"}
    assert zone.records == [PLACEHOLDER]
    server.calls.clear()
    assert settle(api, wanting(mode=ROUTE), NAME) == []
    assert not server.writes


def test_a_cut_between_record_and_route_is_gone_on_from(
    api: Cloudflare, server: ApiServer, zone: Zone
) -> None:
    zone.record()
    settle(api, wanting(mode=ROUTE), NAME)
    assert wrote(server) == ["POST route"]
    assert zone.records == [PLACEHOLDER]


def test_a_custom_domain_serves_until_the_route_does(
    api: Cloudflare, server: ApiServer, zone: Zone
) -> None:
    zone.domain()
    settle(api, wanting(mode=ROUTE), NAME)
    assert wrote(server) == ["POST route", "DELETE domain", "POST record"]
    assert (zone.domains, zone.routes) == ({}, {f"{NAME}/*": "alice"})
    # A run that was cut there has the route, and the domain still in its way.
    zone.domain()
    server.calls.clear()
    settle(api, wanting(mode=ROUTE), NAME)
    assert wrote(server) == ["DELETE domain"]


def test_a_route_serves_until_the_custom_domain_does(
    api: Cloudflare, server: ApiServer, zone: Zone
) -> None:
    zone.route()
    zone.record()
    settle(api, wanting(), NAME)
    assert wrote(server) == ["PUT domain", "DELETE record", "PUT domain", "DELETE route"]
    assert (zone.domains, zone.routes, zone.records) == ({NAME: "alice"}, {}, [])


def test_a_route_that_keeps_workers_away_lets_a_custom_domain_serve(
    api: Cloudflare, server: ApiServer, zone: Zone
) -> None:
    zone.route(worker="")
    settle(api, wanting(), NAME)
    assert wrote(server) == ["PUT domain"]
    assert zone.routes == {f"{NAME}/*": ""}


def test_a_route_of_anothers_is_led_here_only_when_that_was_allowed(
    api: Cloudflare, server: ApiServer, zone: Zone
) -> None:
    zone.route(worker="blog")
    zone.record()
    assert said(api, wanting(mode=ROUTE)) == ['belongs to Worker "blog".']
    settle(api, wanting(mode=ROUTE, take_over=True))
    assert wrote(server) == ["PATCH tags", "PUT route"]
    assert zone.routes == {f"{NAME}/*": "alice"}


def test_records_that_give_way_are_replaced_by_one(
    api: Cloudflare, server: ApiServer, zone: Zone
) -> None:
    zone.record(FOREIGN)
    zone.record(("A", "192.0.2.1", ""))
    zone.record(("TXT", "v=spf1 -all", ""))
    assert said(api, wanting(mode=ROUTE)) == [f"{NAME} has a DNS record (CNAME) already."]
    settle(api, wanting(mode=ROUTE, take_over=True))
    # Until the route is there the others answer as before.
    assert wrote(server) == ["PATCH tags", "PUT record", "POST route", "DELETE record"]
    assert zone.records == [PLACEHOLDER, ("TXT", "v=spf1 -all", "")]


@pytest.mark.parametrize("restores", [True, False], ids=["put back", "not even that"])
def test_a_route_that_is_refused_leaves_the_record_of_before(
    api: Cloudflare, server: ApiServer, account: FakeAccount, zone: Zone, restores: bool
) -> None:
    zone.record(FOREIGN)

    def refuse(call: Call) -> Reply:
        if "routes" in call.path and call.write:
            return refused(400, 10026, "no more routes")
        if not restores and call.write and FOREIGN[1] in str(call.body):
            return refused(400, 1004, "DNS Validation Error")
        return account(call)

    server.answer = refuse
    with pytest.raises(CloudflareError, match="no more routes"):
        settle(api, wanting(mode=ROUTE, take_over=True))
    assert wrote(server)[1:] == ["PUT record", "POST route", "PUT record"]
    assert zone.records == [FOREIGN if restores else PLACEHOLDER]
    assert noted(account), "the next run knows what to go on with"


def test_a_route_that_is_refused_leaves_our_own_record_to_the_next_run(
    api: Cloudflare, server: ApiServer, account: FakeAccount, zone: Zone
) -> None:
    account.denied = {"all_routes"}
    there = Account(zones=[{"id": ZONE, "name": "example.com"}])
    names = hostname.Hostnames(api, wanting(mode=ROUTE), there, OURS, lambda _: None)
    with pytest.raises(CloudflareError):
        names.settle()
    assert wrote(server) == ["PATCH tags", "POST record", "POST route"]
    assert zone.records == [PLACEHOLDER]
    assert names.done == ["its tags"], "what the card of this failure tells"


def test_a_hostname_that_moves_is_given_before_the_old_one_goes(
    api: Cloudflare, server: ApiServer, account: FakeAccount, zone: Zone
) -> None:
    zone.domain(OLD)
    zone.record(PLACEHOLDER, OLD)
    zone.record(FOREIGN, OLD)
    zone.route(OLD)
    settle(api, wanting(), OLD)
    assert wrote(server) == [
        "PATCH tags",
        "PUT domain",
        "DELETE domain",
        "DELETE route",
        "DELETE record",
        "PATCH tags",
    ]
    assert server.writes[0].body["tags"][2:4] == [
        f"hermes.workers.host:{OLD}",
        f"hermes.workers.host:{NAME}",
    ], "while it moves both are noted"
    assert (zone.domains, zone.routes) == ({NAME: "alice"}, {})
    assert zone.records == [FOREIGN], "which somebody else has made"
    assert noted(account) == [f"hermes.workers.host:{NAME}"]


def test_what_is_anothers_by_now_is_not_taken_from_it(
    api: Cloudflare, server: ApiServer, account: FakeAccount, zone: Zone
) -> None:
    zone.domain(OLD, "blog")
    zone.route(OLD, "blog")
    zone.record(FOREIGN, OLD)
    settle(api, wanting(""), OLD)
    assert wrote(server) == ["PATCH tags"]
    assert noted(account) == []


def test_of_a_zone_that_is_gone_nothing_is_left_to_remove(
    api: Cloudflare, server: ApiServer, account: FakeAccount
) -> None:
    account.zones = []
    settle(api, wanting(""), OLD)
    assert wrote(server) == ["PATCH tags"]
    for mode in (DOMAIN, ROUTE):
        with pytest.raises(Card, match=f"the zone of {NAME} is gone"):
            settle(api, wanting(mode=mode))


# What stands against a hostname, before anything is changed.


def said(api: Cloudflare, settings: Settings) -> list[str]:
    there = of_hostnames(api, [settings.dashboard_hostname])
    return [one.sentence for one in hostname.problems(api, settings, there)]


def routed(*routes: tuple[str, str]) -> list[dict[str, str]]:
    return [{"id": "r", "pattern": pattern, "script": script} for pattern, script in routes]


def caught(mode: str, *routes: tuple[str, str]) -> list[str]:
    """What is told of routes of others."""
    return [
        f"{one.sentence} {one.remedy}"
        for one in hostname.in_the_way(wanting(mode=mode), routed(*routes))
    ]


@pytest.mark.parametrize(
    "route",
    [
        (f"{NAME}/*", "blog"),  # which is asked about as somebody else's
        (f"{NAME}/api/*", "alice"),
        ("b.example.com/*", "blog"),
        ("*.example.org/*", "blog"),
        (f"*{NAME[1:]}/*", ""),
    ],
)
def test_routes_that_get_none_of_its_requests(route: tuple[str, str]) -> None:
    assert caught(DOMAIN, route) == []


@pytest.mark.parametrize(
    "pattern", ["*.example.com/*", "*example.com/*", "https://*.Example.com/x"]
)
def test_a_route_with_a_wildcard_runs_before_a_custom_domain_only(pattern: str) -> None:
    (told,) = caught(DOMAIN, (pattern, "blog"))
    assert f'the route {pattern} of Worker "blog", which runs before a custom domain' in told
    assert "or set hermes_route_mode: zone_route" in told
    assert caught(ROUTE, (pattern, "blog")) == []
    # A route of exactly the hostname, without a Worker, keeps the other one away.
    assert caught(DOMAIN, (pattern, "blog"), (f"{NAME}/*", "")) == []


def test_a_more_exact_route_is_in_the_way_of_both() -> None:
    for mode, words in ((DOMAIN, "runs before a custom domain"), (ROUTE, "is more exact")):
        (told,) = caught(mode, (f"{NAME}/api/*", "blog"))
        assert words in told
        assert "hermes_route_mode" not in told
    # Without a Worker it keeps away routes, and no custom domain.
    assert caught(DOMAIN, (f"{NAME}/api/*", "")) == []
    assert "of no Worker, which is more exact" in caught(ROUTE, (f"{NAME}/api/*", ""))[0]


def test_a_hostname_in_no_zone_and_none_at_all(api: Cloudflare, server: ApiServer) -> None:
    (told,) = said(api, wanting("a.example.org"))
    assert "a.example.org lies in no zone of this account" in told
    assert hostname.problems(api, wanting(""), Account()) == []


def test_a_route_in_the_way_is_told_before_whose_the_hostname_is(
    api: Cloudflare, zone: Zone
) -> None:
    zone.route("*.example.com", "blog")
    zone.record(FOREIGN)
    (told,) = said(api, wanting())
    assert "is caught by the route *.example.com/*" in told


def test_whose_a_hostname_is(api: Cloudflare, account: FakeAccount, zone: Zone) -> None:
    assert said(api, wanting()) == []
    zone.record(("TXT", "v=spf1 -all", ""))
    zone.record(PLACEHOLDER)
    assert said(api, wanting()) == []
    account.records.clear()
    zone.record(FOREIGN)
    assert said(api, wanting()) == [f"{NAME} has a DNS record (CNAME) already."]
    assert said(api, wanting(take_over=True)) == []
    zone.domain(worker="blog")
    assert said(api, wanting()) == ['belongs to Worker "blog".']
    # Its own custom domain has a record of its own, which is in nobody's way.
    zone.domain()
    assert said(api, wanting(mode=ROUTE)) == []


def test_a_record_of_a_custom_domain_is_not_put_away(
    api: Cloudflare, server: ApiServer, account: FakeAccount, zone: Zone
) -> None:
    """It goes with its custom domain, and cannot be written."""
    zone.domain(worker="blog")
    zone.record(FOREIGN)
    (record,) = account.records.values()
    record["meta"] = {"read_only": True}
    with pytest.raises(CloudflareError, match="100117"):
        settle(api, wanting(take_over=True))
    assert wrote(server) == ["PATCH tags", "PUT domain"]

# SPDX-License-Identifier: Apache-2.0
"""A deploy to Cloudflare that is cut at every step in turn: the error names the step, the next run converges.

One play deploys many hosts, each with a token of its own, and each token's calls fail from another call on. What such
a run left at Cloudflare differs only by the writes that had their effect: so each write is answered with an error
after its effect, and the first one before it as well. With HERMES_TESTS_EVERY_CALL=1 every call is cut before it too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from fleets import ACCOUNT, KEY, Fleet

from tests.cloudflare import ControlPlane

STEPS = ("api_token", "preflight", "image", "worker", "routes", "wrangler")
"""What an error may name: the step, or wrangler within the step that runs it."""


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("cut")
    with ControlPlane(folder / "plane") as plane:
        yield Fleet(plane, folder)


def cuts(fleet: Fleet) -> dict[str, tuple[int, str]]:
    """Deploy one host whole; returns a name for each moment to cut at, with the calls before it and the kind."""
    fleet.add("whole")
    play = fleet.play()
    assert play.code == 0, play.output
    calls = fleet.calls("whole")
    every = os.environ.get("HERMES_TESTS_EVERY_CALL") == "1"
    first = next(call for call in calls if call.write)
    found: dict[str, tuple[int, str]] = {}
    for number, call in enumerate(calls):
        if call.write:
            found[f"after-{number:02}"] = (number, "refused-after")
        if every or number in (0, 8) or call is first:
            found[f"before-{number:02}"] = (number, "refused")
    assert sum(call.write for call in calls) >= 6, "script, application, address, tags, hostname"
    return found


@pytest.mark.parametrize(
    ("uploader", "route_mode"), [("wrangler", "custom_domain"), ("plain", "zone_route")]
)
def test_a_run_that_is_cut_anywhere_says_where_and_the_next_one_converges(
    fleet: Fleet, uploader: str, route_mode: str
) -> None:
    plane = fleet.plane
    fleet.common = {"hermes_uploader": uploader, "hermes_route_mode": route_mode}
    moments = cuts(fleet)
    for name, (calls, kind) in moments.items():
        plane.faults.after(calls, kind, token=fleet.add(name))
    cut = fleet.play()
    plane.faults.clear()
    for name in moments:
        said = card(cut.output, name)
        assert any(step in said.splitlines()[0] for step in STEPS), said
        # wrangler tells some refusals in words of its own.
        assert "An ordered fault" in said or "wrangler could not deploy" in said, said
        if fleet.worker(name):
            assert "Nothing was changed." not in said, said
    assert KEY not in cut.output
    account = plane.state.accounts[ACCOUNT]
    served = {
        namespace.script
        for namespace in account.namespaces()
        if namespace.id in account.applications
    }
    leads_to = set(hostnames(fleet).values())
    assert leads_to <= served, "hostnames come last"
    assert {one.name for one in account.workers.values() if one.subdomain_enabled} <= served

    again = fleet.play()
    assert again.code == 0, again.output
    for name in fleet.tokens:
        worker = fleet.worker(name)
        assert worker and worker.subdomain_enabled, name
        assert {"hermes.workers", f"hermes.workers:{name}"} <= set(worker.tags)
        assert hostnames(fleet)[f"{name}.example.com"] == name
        for version in worker.versions:
            held = version.secrets()
            assert set(held) == {"API_TOKEN", "ANTHROPIC_API_KEY"}, "never half of the secrets"
        kept = (fleet.home / name / "api_token").read_text().strip()
        assert worker.current.secrets()["API_TOKEN"] == kept
    count = len(fleet.tokens)
    assert len(account.workers) == len(account.applications) == count, "nothing is there twice"
    assert len(hostnames(fleet)) == len(records(fleet)) == count

    start = len(plane.calls)
    settled = fleet.play()
    assert f"0 to update, {len(fleet.tokens)} unchanged" in settled.output or (
        "No changes. 0 calls written." in settled.output
    ), settled.output
    assert plane.writes(start) == []
    destroy_is_cut_anywhere(fleet)


def destroy_is_cut_anywhere(fleet: Fleet) -> None:
    """One host for each thing that a destroy deletes: the answer to that is an error, and the next run converges."""
    plane, names = fleet.plane, iter(fleet.tokens)
    cut = []
    for path in deletions(fleet, next(names)):
        name = next(names)
        cut.append(name)
        plane.faults.on("DELETE", deletions(fleet, name)[path], "refused-after")
    assert len(cut) >= 3, "hostname, application, Worker"
    play = fleet.destroy()
    plane.faults.clear()
    for name in cut:
        assert f"destroying {name}: Cloudflare answers: An ordered fault." in card(
            play.output, name
        )
    again = fleet.destroy()
    assert again.code == 0, again.output
    account = plane.state.accounts[ACCOUNT]
    assert (account.workers, account.applications) == ({}, {})
    assert (hostnames(fleet), records(fleet)) == ({}, set())
    assert not any((fleet.home / name).exists() for name in fleet.tokens)


def deletions(fleet: Fleet, name: str) -> dict[str, str]:
    """The ends of the paths of everything that is a host's at Cloudflare, by their kinds."""
    account, (zone,) = fleet.plane.state.accounts[ACCOUNT], fleet.plane.state.zones.values()
    (namespace,) = fleet.worker(name).namespaces.values()
    found = {
        "application": f"applications/{namespace.id}$",
        "worker": f"/{name}$",
    }
    hostname = f"{name}.example.com"
    if hostname in account.domains:
        return found | {"domain": f"domains/{account.domains[hostname].id}$"}
    (route,) = [one["id"] for one in zone.routes.values() if one["script"] == name]
    (record,) = [one["id"] for one in zone.records.values() if one["name"] == hostname]
    return found | {"route": f"routes/{route}$", "record": f"dns_records/{record}$"}


def hostnames(fleet: Fleet) -> dict[str, str]:
    """Each hostname that leads to a Worker, by a custom domain or a route; one that leads twice fails the test."""
    account, (zone,) = fleet.plane.state.accounts[ACCOUNT], fleet.plane.state.zones.values()
    found = [(one.hostname, one.service) for one in account.domains.values()]
    found += [(one["pattern"].removesuffix("/*"), one["script"]) for one in zone.routes.values()]
    assert len(dict(found)) == len(found), found
    return dict(found)


def records(fleet: Fleet) -> set[str]:
    """The names of the zone's records; one that is there twice fails the test."""
    (zone,) = fleet.plane.state.zones.values()
    names = [record["name"] for record in zone.records.values()]
    assert len(set(names)) == len(names), names
    return set(names)


def card(output: str, host: str) -> str:
    """Return the error card of one host."""
    found = re.search(rf"^{host}: FAILED\n((?:  .*\n)+?  Docs: .*)", output, re.MULTILINE)
    assert found, f"{host} did not fail:\n{output}"
    return found[1]

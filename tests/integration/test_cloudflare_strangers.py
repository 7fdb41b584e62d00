# SPDX-License-Identifier: Apache-2.0
"""Where somebody else's Worker answers by now, no play sends it the API token."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import domains
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import Cloudflare
from fleets import ACCOUNT, Fleet

from tests.cloudflare import ControlPlane
from tests.cloudflare.stub import StubEdge
from tests.cloudflare.uploading import upload

STALE = "stale.example.com"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A deployment, and a Worker of somebody else that says yes to everything and notes what it was sent."""
    folder = tmp_path_factory.mktemp("strangers")
    with (
        ControlPlane(folder / "plane", edge=StubEdge) as plane,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in plane.env.items():
            patch.setenv(name, value)
        made = Fleet(plane, folder)
        made.add("alice")
        client = Cloudflare("unused", ACCOUNT)
        upload(client, "spy")
        zone = next(zone for zone in plane.state.zones.values() if zone.name == "example.com")
        domains.attach(client, STALE, "spy", zone.id)
        done = made.play()
        assert done.code == 0, done.output
        yield made


def sent(fleet: Fleet) -> list[tuple[str, str]]:
    """What the other Worker was sent, and forget it: paths, each with what it was shown as a credential."""
    found = [(path, shown) for _host, path, shown in fleet.plane.edge.strangers]
    fleet.plane.edge.strangers.clear()
    return found


@pytest.mark.parametrize(
    ("playbook", "arguments"),
    [
        ("status", ()),
        ("backup", ()),
        ("restore", ("-e", "hermes_backup={backup}")),
        ("lifecycle", ("-e", "hermes_action=sleep")),
        ("logs", ()),
        ("pair", ("-e", "hermes_pair=K7MWQ2ZT")),
    ],
)
def test_a_hostname_that_another_worker_has_now(
    fleet: Fleet, playbook: str, arguments: tuple[str, ...]
) -> None:
    note = fleet.home / "alice" / "host.note"
    before = note.read_text()
    note.write_text(STALE)
    backup = fleet.home / "some.backup"
    backup.write_text("{")
    try:
        play = fleet.run(playbook, *(one.format(backup=backup) for one in arguments))
    finally:
        note.write_text(before)
    found = sent(fleet)
    assert found, play.output
    assert {path for path, _shown in found} == {"/api/identity"}, play.output
    assert {shown for _path, shown in found} == {""}, "no token, of whatever kind"
    assert "does not" in play.output, "and the play says that it is not ours"


@pytest.mark.parametrize(
    ("playbook", "arguments"),
    [
        ("deploy", ("--check",)),
        ("rotate_keys", ()),
        ("verify", ()),
        ("destroy", ("-e", "hermes_confirm=yes")),
    ],
)
def test_another_worker_under_the_deployments_own_name(
    fleet: Fleet, playbook: str, arguments: tuple[str, ...]
) -> None:
    workers = fleet.plane.state.accounts[ACCOUNT].workers
    ours, spy = workers["alice"], workers["spy"]
    workers["alice"] = spy
    spy.name, spy.tags, spy.subdomain_enabled = "alice", list(ours.tags), True
    try:
        play = fleet.run(playbook, *arguments)
    finally:
        workers["alice"] = ours
        spy.name, spy.tags, spy.subdomain_enabled = "spy", [], False
    found = sent(fleet)
    assert found, play.output
    assert {path for path, _shown in found} == {"/api/identity"}, play.output
    assert {shown for _path, shown in found} == {""}, "no token, of whatever kind"
    if playbook != "deploy":
        assert play.code != 0, play.output

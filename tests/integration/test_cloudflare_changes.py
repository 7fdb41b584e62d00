# SPDX-License-Identifier: Apache-2.0
"""A change of one thing is predicted by a check, and changes that thing at Cloudflare and nothing else.

Each kind of change has a host of its own, and one play makes them all; what the sources change has a copy of the
checkout.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import (
    dns,
    domains,
    routes,
    zones,
)
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import Cloudflare
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from fleets import ACCOUNT, KEY, Fleet
from plays import ROOT

from tests.cloudflare import ControlPlane
from tests.cloudflare.calls import Record
from tests.cloudflare.uploading import upload

MARK = "WORKER_VERSION"
"""The variable that marks every change of code or configuration."""


@dataclass
class Change:
    """What an inventory changes, and the differences at Cloudflare that it makes."""

    variables: dict[str, Any]
    planned: str
    differs: set[str]
    leads: set[str] | None = None
    """Hostnames and routes that lead to it afterwards; None: the hostname of before."""


HOSTNAME = {"variable HERMES_DASHBOARD_HOSTNAME", f"variable {MARK}", "hostnames", "tags"}
CHANGES = {
    "variable": Change(
        {"hermes_sleep_after": "1h", "hermes_uploader": "wrangler"},
        "update  worker",
        {"variable HERMES_SLEEP_AFTER", f"variable {MARK}"},
    ),
    "secret": Change(
        {"anthropic_api_key": KEY + "2"},
        "update  secrets    anthropic_api_key",
        {"secret ANTHROPIC_API_KEY"},
    ),
    "further": Change(
        {"hermes_secrets": {"TELEGRAM_BOT_TOKEN": "canary-of-telegram"}},
        "update  secrets",
        {"secret HERMES_SECRETS"},
    ),
    "hostname": Change(
        {"hermes_dashboard_hostname": "moved.example.com"},
        "create  routes     custom domain moved.example.com",
        HOSTNAME,
        {"moved.example.com"},
    ),
    "homeless": Change(
        {"hermes_dashboard_hostname": ""},
        "delete  routes     homeless.example.com, which the inventory no longer names",
        HOSTNAME | {"variable HERMES_DASHBOARD"},
        set(),
    ),
    "taking": Change(
        {
            "hermes_dashboard_hostname": "blog.example.com",
            "hermes_take_over_hostname": True,
        },
        "create  routes     custom domain blog.example.com",
        HOSTNAME,
        {"blog.example.com"},
    ),
    "replacing": Change(
        {
            "hermes_dashboard_hostname": "old.example.com",
            "hermes_take_over_hostname": True,
            "hermes_route_mode": "zone_route",
        },
        "create  routes     route old.example.com/* and a proxied record",
        HOSTNAME,
        {"old.example.com/*"},
    ),
    "rerouting": Change(
        {
            "hermes_dashboard_hostname": "routed.example.com",
            "hermes_take_over_hostname": True,
            "hermes_route_mode": "zone_route",
        },
        "create  routes     route routed.example.com/* and a proxied record",
        HOSTNAME,
        {"routed.example.com/*"},
    ),
    "route": Change(
        {"hermes_route_mode": "zone_route"},
        "create  routes     route",
        {"hostnames"},
        {"route.example.com/*"},
    ),
    "location": Change(
        {"hermes_location": "weur"},
        "Note: hermes_location: without effect: it was made in enam, and an object never moves.",
        set(),
    ),
    "nothing": Change({"hermes_docker_socket": "unix:/nowhere"}, "", set()),
}


def state(fleet: Fleet, name: str) -> dict[str, Any]:
    """Everything of a deployment at Cloudflare that a change may touch, by its name."""
    worker = fleet.worker(name)
    account = fleet.plane.state.accounts[ACCOUNT]
    (zone,) = fleet.plane.state.zones.values()
    found = {f"variable {key}": value for key, value in worker.current.variables().items()}
    found |= {f"secret {key}": value for key, value in worker.current.secrets().items()}
    custom = {one.hostname for one in account.domains.values() if one.service == name}
    routed = {one["pattern"] for one in zone.routes.values() if one["script"] == name}
    return found | {
        "code": worker.current.etag,
        "images": [one["images"] for one in worker.current.containers],
        "compatibility": worker.current.metadata["compatibility_date"],
        "objects": {one.id for one in worker.namespaces.values()},
        "tags": worker.tags,
        "hostnames": custom | routed,
    }


def differing(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {name for name in before | after if before.get(name) != after.get(name)}


def writes(calls: list[Record]) -> list[str]:
    prefix = f"/client/v4/accounts/{ACCOUNT}/"
    return [f"{one.method} {one.path.removeprefix(prefix)}" for one in calls if one.write]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("changes")
    with ControlPlane(folder / "plane") as plane, pytest.MonkeyPatch.context() as patch:
        made = Fleet(plane, folder)
        # Quicker than wrangler, and leaves the same.
        made.common = {"hermes_uploader": "plain"}
        for name, value in plane.env.items():
            patch.setenv(name, value)
        strangers(Cloudflare("unused", ACCOUNT))
        for name in CHANGES:
            made.add(name)
        made.variables = {"location": {"hermes_location": "enam"}}
        yield made


def strangers(client: Cloudflare) -> None:
    """Leave there what is nobody's of ours: a Worker with a hostname and routes, and records."""
    upload(client, "blog")
    zone = zones.find(client, "example.com")["id"]
    domains.attach(client, "blog.example.com", "blog", zone)
    for name in ("routed", "shop"):
        routes.create(client, zone, f"{name}.example.com/*", "blog")
    for kind, name, content in STRANGERS:
        dns.create(client, zone, {"type": kind, "name": name, "content": content, "ttl": 1})


REPLACED = {("A", "old.example.com", "192.0.2.1"), ("A", "routed.example.com", "192.0.2.3")}
STRANGERS = REPLACED | {
    ("TXT", "old.example.com", "kept"),
    ("TXT", "homeless.example.com", "kept"),
    ("A", "shop.example.com", "192.0.2.2"),
}


def records(fleet: Fleet) -> set[tuple[str, str, str]]:
    (zone,) = fleet.plane.state.zones.values()
    return {(one["type"], one["name"], one["content"]) for one in zone.records.values()}


def test_a_check_predicts_the_first_deploy(fleet: Fleet) -> None:
    start = len(fleet.plane.calls)
    check = fleet.play("--check", "--diff")
    assert check.code == 0, check.output
    assert fleet.plane.writes(start) == []
    assert not any((fleet.home / name).exists() for name in CHANGES)
    play = fleet.play("--diff")
    assert play.code == 0, play.output
    for name in CHANGES:
        assert play.changed(name) == check.changed(name), name
        planned = re.findall(rf"^{name}\n((?:  create .*\n)+)", check.output, re.MULTILINE)
        assert planned and planned[0] in play.output


def test_a_change_of_the_inventory_changes_exactly_that(fleet: Fleet) -> None:
    before = {name: state(fleet, name) for name in CHANGES}
    fleet.variables = {name: change.variables for name, change in CHANGES.items()}
    start = len(fleet.plane.calls)
    assert records(fleet) >= STRANGERS

    check = fleet.play("--check", "--diff")
    assert check.code == 0, check.output
    assert fleet.plane.writes(start) == []
    assert {name: state(fleet, name) for name in CHANGES} == before
    for change in CHANGES.values():
        assert change.planned in check.output
    assert "canary" not in check.output

    fleet.plane.certificate_seconds = 5
    play = fleet.play("--diff")
    assert play.code == 0, play.output
    assert "waiting for the certificate of moved.example.com" in play.output
    for domain in fleet.plane.state.accounts[ACCOUNT].domains.values():
        assert domain.issued_at <= fleet.plane.clock(), f"{domain.hostname} was not waited for"
    for name, change in CHANGES.items():
        after = state(fleet, name)
        assert differing(before[name], after) == change.differs, name
        leads = {f"{name}.example.com"} if change.leads is None else change.leads
        assert after["hostnames"] == leads, name
        assert play.changed(name) == check.changed(name), name
    assert "canary" not in play.output
    assert STRANGERS - records(fleet) == REPLACED
    (zone,) = fleet.plane.state.zones.values()
    theirs = [one["pattern"] for one in zone.routes.values() if one["script"] == "blog"]
    assert theirs == ["shop.example.com/*"]
    for name in ("secret", "further"):
        first, *rest = writes(fleet.calls(name, start))
        assert first == f"PATCH workers/scripts/{name}/secrets-bulk"
        # An object in use may have to be told to take them.
        assert set(rest) <= {f"POST workers/scripts/{name}/deployments"}
    for name in ("nothing", "location"):
        assert writes(fleet.calls(name, start)) == []

    start = len(fleet.plane.calls)
    again = fleet.play("--check")
    assert "No changes. 0 calls written." in again.output
    assert fleet.plane.writes(start) == []


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a deploy is made from, to be edited."""
    copy = tmp_path_factory.mktemp("checkout") / "copy"
    copy.mkdir()
    for name in ("container", "host", "meta", "playbooks", "plugins", "roles"):
        # The playbooks' links into the checkout are to lead into the copy.
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
    ignored = shutil.ignore_patterns("node_modules", "test")
    shutil.copytree(ROOT / "worker", copy / "worker", ignore=ignored)
    for name in ("ansible.cfg", "galaxy.yml"):
        shutil.copyfile(ROOT / name, copy / name)
    link = copy / ".ansible" / "collections" / "ansible_collections" / "hermes" / "workers"
    link.parent.mkdir(parents=True)
    link.symlink_to(os.path.relpath(copy, link.parent))
    return copy


def edit(path: Path, pattern: str, replacement: str) -> None:
    text = path.read_text()
    edited = re.sub(pattern, replacement, text, count=1)
    assert edited != text
    path.write_text(edited)


def test_a_line_of_the_worker_changes_its_code_and_a_file_of_the_image_the_image(
    fleet: Fleet, checkout: Path
) -> None:
    edit(checkout / "worker" / "src" / "index.ts", r"\n$", "\nconsole.debug('another line');\n")
    assert fleet_change(fleet, checkout, "update  worker") == {"code", f"variable {MARK}"}

    fleet.variables = {"nothing": CHANGES["nothing"].variables}
    edit(checkout / "container" / "start-hermes.sh", r"\n$", "\n# another line\n")
    missing = fleet.play(hosts=["nothing"], root=checkout)
    assert missing.code != 0
    assert "none answers at unix:/nowhere" in missing.output, "the image needs a container engine"
    assert "Nothing was changed." in missing.output
    fleet.push(Sources(checkout))
    assert fleet_change(fleet, checkout, "update  worker") == {
        "images",
        "variable HERMES_IMAGE",
        "variable HERMES_IMAGE_REFERENCE",
        f"variable {MARK}",
    }


def fleet_change(fleet: Fleet, checkout: Path, planned: str) -> set[str]:
    """Check and deploy one host from the copy; returns what is different at Cloudflare."""
    hosts = ["nothing"]
    before, start = state(fleet, *hosts), len(fleet.plane.calls)
    check = fleet.play("--check", "--diff", hosts=hosts, root=checkout)
    assert planned in check.output, check.output
    assert fleet.plane.writes(start) == []
    play = fleet.play(hosts=hosts, root=checkout)
    assert play.code == 0, play.output
    assert play.changed(*hosts) == check.changed(*hosts)
    return differing(before, state(fleet, *hosts))

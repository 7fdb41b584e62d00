# SPDX-License-Identifier: Apache-2.0
"""Real plays and real wrangler against the stand-in for Cloudflare: from an inventory to a verified chat, and back."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils import dns, domains
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import Cloudflare
from ansible_collections.hermes.workers.plugins.plugin_utils.build import Sources
from plays import PLAYBOOK, ROOT, Play, clean_environment

from tests.cloudflare import ControlPlane
from tests.cloudflare.uploading import upload

ACCOUNT = "0123456789abcdef0123456789abcdef"
TOKEN = "cf-canary-" + secrets.token_hex(16)
KEY = "sk-ant-canary-" + secrets.token_hex(16)


class Cloud:
    """An account at the stand-in, and plays on deployments there."""

    def __init__(self, plane: ControlPlane, home: Path) -> None:
        self.plane = plane
        self.home = home

    def play(self, playbook: str, name: str, *arguments: str, **variables: Any) -> Play:
        """Run a playbook on one deployment."""
        inventory = self.home / f"inventory-{name}.json"
        host = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "hermes_state_dir": str(self.home),
            "hermes_account_id": ACCOUNT,
            "cloudflare_api_token": TOKEN,
            "hermes_provider": "rehearsal",
            # Goes along with the others, although no model asks for it.
            "anthropic_api_key": KEY,
            **variables,
        }
        inventory.write_text(json.dumps({"all": {"hosts": {name: host}}}))
        command = [str(PLAYBOOK), f"playbooks/{playbook}.yml", "-i", str(inventory), *arguments]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=clean_environment(**self.plane.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        return Play(done.returncode, done.stdout)

    def deploy(self, name: str, *arguments: str, **variables: Any) -> Play:
        """Deploy, and fail the test when that fails."""
        play = self.play("deploy", name, *arguments, **variables)
        assert play.code == 0, play.output
        return play

    def worker(self, name: str) -> Any:
        """What the account holds under a Worker's name."""
        return self.plane.state.accounts[ACCOUNT].workers[name]

    def writes(self, start: int) -> list[str]:
        """The calls since then that changed something, as `METHOD path` below the account."""
        prefix = f"/client/v4/accounts/{ACCOUNT}/"
        return [f"{one.method} {one.path.removeprefix(prefix)}" for one in self.plane.writes(start)]


def add_image(plane: ControlPlane) -> str:
    """Have the image of these sources in the registry, as if somebody had pushed it."""
    sources = Sources()
    tag = sources.container_image("")
    return plane.registry.add_image(f"{ACCOUNT}/hermes-workers", tag)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("cloudflare")
    with ControlPlane(folder / "plane") as plane:
        plane.add_account(ACCOUNT, TOKEN, zones=["example.com", "example.net"])
        add_image(plane)
        yield Cloud(plane, home)


def test_a_first_deploy_ends_in_a_verified_chat_and_a_second_writes_nothing(cloud: Cloud) -> None:
    play = cloud.deploy("first")
    assert "first: deployed and verified" in play.output
    assert "https://first.acme.workers.dev" in play.output
    worker = cloud.worker("first")
    assert worker.current.secrets()["ANTHROPIC_API_KEY"] == KEY
    token = (cloud.home / "first" / "api_token").read_text().strip()
    assert worker.current.secrets()["API_TOKEN"] == token
    assert set(worker.tags) == {"hermes.workers", "hermes.workers:first"}

    start = len(cloud.plane.calls)
    again = cloud.deploy("first")
    assert again.changed("first") == 0
    assert "No changes. 0 calls written." in again.output
    assert cloud.writes(start) == []


def test_changes_change_exactly_that(cloud: Cloud) -> None:
    """A check predicts them and writes nothing; the run after it makes them and nothing else."""
    upload = "PUT workers/scripts/changing"
    cloud.deploy("changing")
    changes: list[tuple[dict[str, Any], str, set[str]]] = [
        ({"hermes_sleep_after": "1h"}, "update  worker", {upload}),
        (
            {"anthropic_api_key": KEY + "2"},
            "update  secrets",
            {"PATCH workers/scripts/changing/secrets-bulk"},
        ),
        (
            {"hermes_dashboard_hostname": "changing.example.com"},
            "create  routes",
            {upload, "PUT workers/domains"},
        ),
    ]
    variables: dict[str, Any] = {}
    for change, planned, expected in changes:
        variables |= change
        start = len(cloud.plane.calls)
        check = cloud.deploy("changing", "--check", "--diff", **variables)
        assert planned in check.output
        assert cloud.writes(start) == []
        play = cloud.deploy("changing", **variables)
        assert "deployed and verified" in play.output
        assert expected <= set(cloud.writes(start))
        assert upload in expected or upload not in cloud.writes(start)
        assert play.changed("changing") == check.changed("changing")
    assert cloud.worker("changing").current.secrets()["ANTHROPIC_API_KEY"] == KEY + "2"

    start = len(cloud.plane.calls)
    moved = variables | {"hermes_dashboard_hostname": "moved.example.net"}
    cloud.deploy("changing", **moved)
    assert set(cloud.plane.state.accounts[ACCOUNT].domains) == {"moved.example.net"}
    start = len(cloud.plane.calls)
    assert cloud.deploy("changing", **moved).changed("changing") == 0
    assert cloud.writes(start) == []


def test_what_was_changed_by_hand_is_seen_and_mended(cloud: Cloud) -> None:
    cloud.deploy("drifting")
    bindings = cloud.worker("drifting").current.bindings
    bindings.append({"type": "secret_text", "name": "STRANGER", "text": "x"})
    for one in bindings:
        if one["name"] == "HERMES_SLEEP_AFTER":
            one["text"] = "5h"
    play = cloud.deploy("drifting")
    assert "HERMES_SLEEP_AFTER was changed by hand" in play.output
    current = cloud.worker("drifting").current
    assert current.variables()["HERMES_SLEEP_AFTER"] == "4h"
    assert "STRANGER" not in current.secrets()
    assert cloud.deploy("drifting").changed("drifting") == 0


def test_destroy_keeps_a_backup_and_leaves_nothing_else(cloud: Cloud) -> None:
    hostname = {
        "hermes_dashboard_hostname": "leaving.example.com",
        "hermes_route_mode": "zone_route",
    }
    cloud.deploy("leaving", **hostname)
    account = cloud.plane.state.accounts[ACCOUNT]
    zone = next(zone for zone in cloud.plane.state.zones.values() if zone.name == "example.com")
    assert zone.routes and zone.records
    start = len(cloud.plane.calls)
    listed = cloud.play(
        "destroy", "leaving", "--check", "-e", "confirm=yes", "-e", "hermes_forget=no"
    )
    assert "delete  Worker leaving" in listed.output
    assert cloud.writes(start) == []

    gone = cloud.play("destroy", "leaving", "-e", "confirm=yes", "-e", "hermes_forget=no")
    assert gone.code == 0, gone.output
    assert "leaving" not in account.workers
    assert not any("leaving" in one.name for one in account.applications.values())
    assert not zone.routes
    assert not any("leaving" in record["name"] for record in zone.records.values())
    assert not (cloud.home / "leaving").exists()
    (backup,) = (cloud.home / "backups").glob("leaving-*.hermes")
    assert f"BACKUP={backup}" in gone.output


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("a token of nobody", {"cloudflare_api_token": "cf-wrong"}, "cloudflare_api_token"),
    ("another account", {"hermes_account_id": "f" * 32}, "hermes_account_id"),
    ("a missing zone", {"hermes_dashboard_hostname": "a.example.org"}, "lies in no zone"),
    ("a name too long", {"hermes_name": "n" * 60}, "hermes_name"),
    (
        "no Docker",
        {"hermes_base_image": "elsewhere:1", "hermes_docker_socket": "unix:/nowhere"},
        "none answers",
    ),
    ("somebody's record", {"hermes_dashboard_hostname": "taken.example.com"}, "has a DNS record"),
    ("somebody's Worker", {"hermes_name": "blog"}, "not deployed by this collection"),
    (
        "a hostname elsewhere",
        {"hermes_dashboard_hostname": "blog.example.com"},
        'belongs to Worker "blog"',
    ),
]


@pytest.fixture
def strangers(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Worker, a hostname and a record that somebody else made."""
    for name, value in cloud.plane.env.items():
        monkeypatch.setenv(name, value)
    client = Cloudflare(TOKEN, ACCOUNT)
    zone = next(zone for zone in cloud.plane.state.zones.values() if zone.name == "example.com")
    if "blog" not in cloud.plane.state.accounts[ACCOUNT].workers:
        upload(client, "blog")
        domains.attach(client, "blog.example.com", "blog", zone.id)
        record = {"type": "A", "name": "taken.example.com", "content": "192.0.2.1", "ttl": 1}
        dns.create(client, zone.id, record)


@pytest.mark.parametrize(("what", "variables", "words"), REFUSED, ids=[one[0] for one in REFUSED])
def test_refusals_come_before_the_first_change(
    cloud: Cloud, strangers: None, what: str, variables: dict[str, Any], words: str
) -> None:
    start = len(cloud.plane.calls)
    play = cloud.play("deploy", "refused", **variables)
    assert play.code != 0
    assert words in play.output, play.output
    assert "Nothing was changed." in play.output
    assert cloud.writes(start) == []

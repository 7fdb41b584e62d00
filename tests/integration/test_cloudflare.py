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
from ansible_collections.hermes.workers.plugins.plugin_utils.build import Sources
from plays import PLAYBOOK, ROOT, Play, clean_environment

from tests.cloudflare import ControlPlane

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
    with ControlPlane(folder / "plane", runtime=home) as plane:
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

# SPDX-License-Identifier: Apache-2.0
"""The modules for Cloudflare through real plays, in front of the stand-in for its control plane."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import scripts
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import Cloudflare
from plays import PLAYBOOK, ROOT, clean_environment

from tests.cloudflare import ControlPlane
from tests.cloudflare.uploading import ACCOUNT, upload

TOKEN = "canary-api-token"
SECRET = "canary-secret-value"

TASKS: list[dict[str, Any]] = [
    {
        "hermes.workers.worker_secrets": {
            "name": "alice",
            "secrets": {"OPENAI_API_KEY": SECRET},
            "update": "on_create",
        }
    },
    {"hermes.workers.worker_domain": {"hostname": "a.example.com", "worker": "alice"}},
    {"hermes.workers.dns_record": {"name": "b.example.com"}},
    {"hermes.workers.worker_route": {"pattern": "b.example.com/*", "worker": "alice"}},
]
GONE: list[dict[str, Any]] = [
    {"hermes.workers.worker_secrets": {"name": "alice", "secrets": {"OPENAI_API_KEY": None}}},
    *(
        {name: {**options, "state": "absent"}}
        for task in TASKS[1:]
        for name, options in task.items()
    ),
]


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlPlane]:
    """One account with the Worker "alice", which a deploy of this collection left there."""
    with ControlPlane(tmp_path / "cloudflare") as made:
        made.add_account(ACCOUNT, TOKEN, zones=["example.com"])
        for name, value in made.env.items():
            monkeypatch.setenv(name, value)
        client = Cloudflare(TOKEN, ACCOUNT)
        upload(client, "alice")
        scripts.set_tags(client, "alice", scripts.our_tags("alice"))
        yield made


def environment() -> dict[str, str]:
    return clean_environment(
        ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"),
        ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".ansible" / "collections"),
        CLOUDFLARE_API_TOKEN=TOKEN,
        CLOUDFLARE_ACCOUNT_ID=ACCOUNT,
    )


def play(folder: Path, tasks: list[dict[str, Any]], *arguments: str) -> dict[str, Any]:
    """Run the tasks; returns the results by their order, and everything that was printed."""
    playbook = folder / "play.yml"
    python = {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    head = {"hosts": "localhost", "gather_facts": False, "vars": python}
    playbook.write_text(json.dumps([head | {"tasks": tasks}]))
    command = [str(PLAYBOOK), str(playbook), "-vvv", "--diff", *arguments]
    quiet = environment() | {
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        # Newer releases show the arguments of modules only when they are told to.
        "ANSIBLE_INJECT_INVOCATION": "true",
    }
    done = subprocess.run(
        command, cwd=folder, env=quiet, capture_output=True, text=True, timeout=300
    )
    output = done.stdout + done.stderr
    assert "canary" not in output
    recap = dict(pair.split("=") for pair in output.split("PLAY RECAP")[1].split() if "=" in pair)
    return {"code": done.returncode, "changed": int(recap["changed"]), "output": output}


def test_plays_predict_make_keep_and_remove(plane: ControlPlane, tmp_path: Path) -> None:
    account, (zone,) = plane.state.accounts[ACCOUNT], plane.state.zones.values()
    start = len(plane.calls)

    predicted = play(tmp_path, TASKS, "--check")
    assert predicted["code"] == 0, predicted["output"]
    assert predicted["changed"] == len(TASKS)
    assert not plane.writes(start)

    assert play(tmp_path, TASKS)["changed"] == len(TASKS)
    assert account.workers["alice"].current.secrets()["OPENAI_API_KEY"] == SECRET
    assert "KEY" in account.workers["alice"].current.secrets(), "what is not named stays"
    assert account.domains["a.example.com"].service == "alice"
    assert [route["script"] for route in zone.routes.values()] == ["alice"]

    start = len(plane.calls)
    for arguments in ((), ("--check",)):
        assert play(tmp_path, TASKS, *arguments)["changed"] == 0
    assert not plane.writes(start)

    assert play(tmp_path, GONE, "--check")["changed"] == len(GONE)
    assert not plane.writes(start)
    assert play(tmp_path, GONE)["changed"] == len(GONE)
    assert not account.domains
    assert not zone.routes
    assert not zone.records
    assert set(account.workers["alice"].current.secrets()) == {"KEY"}
    assert play(tmp_path, GONE)["changed"] == 0


def test_a_refusal_names_the_call_and_changes_nothing(plane: ControlPlane, tmp_path: Path) -> None:
    plane.state.tokens[TOKEN].permissions -= {"DNS Write"}
    start = len(plane.calls)
    refused = play(tmp_path, [TASKS[2]])
    assert refused["code"] != 0
    assert "dns_records" in refused["output"]
    assert "api-tokens" in refused["output"]
    assert not plane.writes(start)
    stub = {"hermes.workers.worker_secrets": {"name": "nobody", "secrets": {"A": SECRET}}}
    assert "there is no Worker nobody" in play(tmp_path, [stub])["output"]
    assert set(plane.state.accounts[ACCOUNT].workers) == {"alice"}


def test_module_defaults_reach_the_whole_group(plane: ControlPlane, tmp_path: Path) -> None:
    task = {"hermes.workers.worker_info": {"name": "alice"}, "register": "found"}
    shown = {"ansible.builtin.assert": {"that": "found.workers[0].hermes_name == 'alice'"}}
    block = {
        "block": [task, shown],
        "module_defaults": {"group/hermes.workers.cloudflare": {"budget_dir": str(tmp_path / "b")}},
    }
    assert play(tmp_path, [block])["code"] == 0
    assert list((tmp_path / "b").iterdir()), "the option came from the group"


def test_the_fleet_needs_no_written_hosts(plane: ControlPlane, tmp_path: Path) -> None:
    upload(Cloudflare(TOKEN, ACCOUNT), "blog")
    inventory = tmp_path / "fleet.hermes.yml"
    inventory.write_text("plugin: hermes.workers.deployments\n")
    command = [str(PLAYBOOK.with_name("ansible-inventory")), "-i", str(inventory), "--graph"]
    done = subprocess.run(
        [*command, "hermes"], env=os.environ | environment(), capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["@hermes:", "  |--alice"], done.stderr

# SPDX-License-Identifier: Apache-2.0
"""Bad input: one clear error that names it, nothing changed, and a re-run that converges."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from plays import PLAYBOOK, ROOT, Deployment, clean_environment

REFUSED = [
    ({"hermes_default_model": "acme/large"}, "hermes_default_model", "anthropic"),
    ({"anthropic_api_key": "sk-ant-a\nb"}, "anthropic_api_key", "line break"),
    ({"hermes_name": "Not_A_Worker"}, "hermes_name", "lower-case"),
    ({"hermes_sleep_after": "7h"}, "hermes_sleep_after", "6h"),
    ({"hermes_port": 80_000}, "hermes_port", "65535"),
    ({"hermes_defualt_model": "x/y"}, "hermes_defualt_model", "hermes_default_model"),
    ({"openai_api_key": "sk-1234567890"}, "hermes_default_model", "openai/"),
    ({"hermes_provider_base_url": "ftp://x"}, "hermes_provider_base_url", "http"),
    ({"hermes_name": "backups"}, "hermes_name", "set another hermes_name"),
    ({"ansible_connection": "ssh"}, "ansible_connection", "set ansible_connection: local"),
    ({"ansible_host": "192.0.2.7"}, "ansible_host", "run the play on that machine"),
]


@pytest.mark.parametrize(("variables", "name", "remedy"), REFUSED, ids=lambda v: str(v)[:40])
def test_refused_before_anything_is_changed(
    make_deployment: Callable[..., Deployment],
    variables: dict[str, object],
    name: str,
    remedy: str,
) -> None:
    wrong = make_deployment("refused", **variables)
    play = wrong.play("deploy")
    assert play.code != 0
    assert f"{name}:" in play.output
    assert remedy in play.output
    assert "Nothing was changed." in play.output
    assert not wrong.state.exists()
    for value in variables.values():
        if "api_key" in name:
            assert str(value) not in play.output


PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
TYPO = {"inner": "{{ typo }}", "hermes_secrets": {"TELEGRAM_BOT_TOKEN": "{{ inner }}"}}
"""A name that is not defined, two levels down and within a mapping."""


def test_an_undefined_name_is_one_card_in_every_playbook(
    make_deployment: Callable[..., Deployment],
) -> None:
    """Also where a default would do, and where the variable does not matter: what is said counts, or it is told."""
    wrong = make_deployment(
        "undefined", hermes_egress="{{ inner }}", anthropic_api_key="{{ vault_x }}", **TYPO
    )
    wrong.variables["hermes_name"] = "{{ hermes_env.of_another_deployment }}"
    env = clean_environment(ANTHROPIC_API_KEY="sk-of-the-operator")
    with ThreadPoolExecutor(2) as pool:
        plays = dict(
            zip(PLAYBOOKS, pool.map(lambda one: wrong.play(one, env=env), PLAYBOOKS), strict=True)
        )
    for playbook, play in plays.items():
        assert play.code != 0, playbook
        for said in (
            "anthropic_api_key: cannot be read: 'vault_x' is undefined.",
            "hermes_egress: cannot be read: 'typo' is undefined.",
            "hermes_secrets: cannot be read: 'typo' is undefined.",
            "hermes_name: cannot be read: 'hermes_env' is undefined.",
            "Nothing was changed.",
        ):
            assert play.output.count(said) == 1, f"{playbook}: {play.output}"
    assert not wrong.state.exists()


def test_a_role_takes_its_own_arguments_and_tells_one_that_cannot_be_read(
    make_deployment: Callable[..., Deployment],
) -> None:
    """In a play of one's own: arguments win over the inventory, and the plan says where each value was set."""
    alone = make_deployment("alone", hermes_sleep_after="1h")
    play = {
        "hosts": "all",
        "gather_facts": False,
        "connection": "local",
        "tasks": [
            {
                "ansible.builtin.import_role": {"name": "hermes.workers.preflight"},
                "vars": {"preflight_sleep_after": "2h", "preflight_drain_timeout": "{{ drain }}"},
            }
        ],
    }
    playbook = alone.home / "alone.yml"
    playbook.write_text(json.dumps([play]))
    # A path from the folder of the playbooks.
    own = os.path.relpath(playbook.with_suffix(""), ROOT / "playbooks")
    env = clean_environment(OPENROUTER_API_KEY="sk-or-canary")
    words = ("-e", "drain=30s", "-e", "hermes_default_model=openrouter/a/model")
    planned = alone.play(own, *words, env=env)
    assert planned.code == 0, planned.output
    rows = dict(re.findall(r"^  (\S[\w ]*?)  +.*\((.*)\)$", planned.output, re.MULTILINE))
    assert rows["sleeps after"] == "role argument"
    assert rows["model"] == "-e"
    assert rows["key"] == "environment"
    assert rows["where"] == "inventory"
    assert rows["name"] == "the host's name"
    assert "2h" in planned.output
    refused = alone.play(own)
    assert refused.code != 0
    assert "'drain' is undefined" in refused.output


def test_what_is_said_and_does_nothing_stands_in_the_plan(
    make_deployment: Callable[..., Deployment],
) -> None:
    idle = make_deployment(
        "idle", hermes_instance_type="lite", hermes_secrets={"TELEGRAM_BOT_TOKEN": "canary-5b0c"}
    )
    play = idle.play("deploy", "--check", "-e", "antropic_api_key=sk-canary")
    assert play.code == 0, play.output
    for note in (
        "Note: hermes_instance_type: without effect on workerd.",
        "Note: TELEGRAM_BOT_TOKEN: Hermes is installed without python-telegram-bot,",
        "Note: antropic_api_key: nothing here reads it; did you mean anthropic_api_key?",
    ):
        assert play.output.count(note) == 1, play.output
    assert "canary" not in play.output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can lock others out")
def test_root_does_not_deploy_into_a_persons_checkout(tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    folder.mkdir()
    wrong = Deployment("of-a-person", folder)
    wrong.variables["hermes_state_dir"] = str(folder / ".hermes")
    os.chown(folder, pwd.getpwnam("daemon").pw_uid, -1)
    for playbook in ("deploy", "backup", "destroy"):
        play = wrong.play(playbook)
        assert play.code != 0
        assert "belongs to daemon, and this run is root's" in play.output
        assert "Nothing was changed." in play.output
    assert not (folder / ".hermes").exists()


def test_a_destroy_names_a_platform_that_is_none(
    make_deployment: Callable[..., Deployment],
) -> None:
    wrong = make_deployment("refused-platform", hermes_platform="workrd")
    play = wrong.play("destroy", "-e", "hermes_confirm=yes", "-e", "hermes_forget=true")
    assert play.code != 0
    assert "hermes_platform: 'workrd' is not one of" in play.output
    assert "Did you mean workerd?" in play.output
    assert "Nothing was changed." in play.output


def test_all_problems_come_in_one_message(make_deployment: Callable[..., Deployment]) -> None:
    wrong = make_deployment("refused-thrice", hermes_port="x", hermes_sleep_after="1s")
    wrong.variables["hermes_default_model"] = "acme/large"
    output = wrong.play("deploy").output
    for name in ("hermes_port:", "hermes_sleep_after:", "hermes_default_model:"):
        assert name in output


def test_a_taken_port_names_the_variable_and_a_rerun_converges(
    make_deployment: Callable[..., Deployment],
) -> None:
    blocked = make_deployment("blocked")
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", blocked.port))
        squatter.listen()
        play = blocked.play("deploy")
        assert play.code != 0
        assert "hermes_port:" in play.output and str(blocked.port) in play.output
        assert "Nothing was changed." in play.output
    assert "deployed and verified" in blocked.deploy().output


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 60 MB: too small for Hermes."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of its own needs root")
def test_a_small_disk_is_named_before_anything_is_changed(small_disk: Path) -> None:
    play = Deployment("on-a-small-disk", small_disk).play("deploy")
    assert play.code != 0
    assert str(small_disk) in play.output and "MB" in play.output
    assert "Nothing was changed." in play.output


@pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own needs root")
def test_no_network_names_the_cause_and_a_rerun_converges(tmp_path: Path) -> None:
    offline = Deployment("offline", tmp_path / "home")
    offline.home.mkdir(mode=0o700)
    inventory = offline.home / "inventory.json"
    offline.play("deploy", "--syntax-check")  # writes the inventory
    inventory = next(offline.home.glob("inventory-*.json"))
    command = [str(PLAYBOOK), "playbooks/deploy.yml", "-i", str(inventory)]
    cache = tmp_path / "empty-cache"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *command],
        cwd=ROOT,
        env=clean_environment(
            UV_CACHE_DIR=str(cache), npm_config_cache=str(cache), PIP_CACHE_DIR=str(cache)
        ),
        capture_output=True,
        text=True,
        timeout=300,
    )
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert "not reachable" in output or "network" in output
    assert "Traceback" not in output
    try:
        assert "deployed and verified" in offline.deploy().output
    finally:
        offline.play("destroy", "-e", "hermes_confirm=yes", "-e", "hermes_forget=true")
        shutil.rmtree(offline.home, ignore_errors=True)

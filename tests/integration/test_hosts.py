# SPDX-License-Identifier: Apache-2.0
"""Whom a play is for, and whose collection it runs with: Ansible by itself says that all is well, with neither."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from plays import PLAYBOOK, ROOT, clean_environment, run

PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
EMPTY = {
    "no host": "all:\n  hosts: {}\n",
    "a group without hosts": "all:\n  children:\n    assistants:\n      hosts: {}\n",
    "an empty file": "",
}


def typed(*command: object, folder: Path = ROOT) -> tuple[int, str]:
    env = clean_environment(
        ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".ansible" / "collections"),
        ANSIBLE_INVENTORY=str(folder / "none"),
    )
    done = run(command, folder, env)
    return done.returncode, done.stdout


def is_refused(code: int, output: str, subject: str) -> None:
    assert code != 0, output
    for words in (subject, "Nothing was changed.", "Do: name an inventory", "errors.md#hosts"):
        assert words in output, output
    assert "PLAY RECAP" not in output, "no play may begin"


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_an_inventory_that_is_not_there_is_no_success(playbook: str, tmp_path: Path) -> None:
    code, output = typed(PLAYBOOK, f"hermes.workers.{playbook}", "-i", "locl", folder=tmp_path)
    is_refused(code, output, "locl: there is no such inventory.")


def test_make_names_it_too() -> None:
    code, output = typed("make", "deploy", "INVENTORY=inventories/locl")
    is_refused(code, output, "inventories/locl: there is no such inventory.")


@pytest.mark.parametrize("content", EMPTY.values(), ids=EMPTY.keys())
def test_an_inventory_without_hosts_is_no_success(content: str, tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(content)
    code, output = typed(PLAYBOOK, "hermes.workers.status", "-i", "hosts.yml", folder=tmp_path)
    is_refused(code, output, "hosts.yml: names no host.")


def test_one_of_two_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all:\n  hosts:\n    alice:\n")
    sources = ("-i", "hosts.yml", "-i", "more.yml")
    code, output = typed(PLAYBOOK, "hermes.workers.status", *sources, folder=tmp_path)
    is_refused(code, output, "more.yml: there is no such inventory.")


@pytest.mark.parametrize("sources", [("-i", ","), (), ("-i", "locl", "-l", "alice")])
def test_no_inventory_at_all_is_no_success(sources: tuple[str, ...], tmp_path: Path) -> None:
    code, output = typed(PLAYBOOK, "hermes.workers.status", *sources, folder=tmp_path)
    is_refused(code, output, "names no host." if "," in sources else "there is no such inventory.")


def test_a_limit_that_leaves_nobody_is_no_success() -> None:
    code, output = typed(
        PLAYBOOK, "playbooks/status.yml", "-i", "inventories/local", "-l", "nobody"
    )
    assert code != 0 and "no hosts to target" in output, output


def test_a_playbook_of_the_checkout_runs_with_the_checkout(tmp_path: Path) -> None:
    """Named by its file, in a folder without our ansible.cfg, by somebody who has another version installed."""
    other = tmp_path / "collections" / "ansible_collections" / "hermes" / "workers"
    for name in ("action", "modules"):
        (other / "plugins" / name).mkdir(parents=True)
        (other / "plugins" / name / "deployment_info.py").write_text("raise ImportError('another')")
    shutil.copy(ROOT / "inventories" / "local" / "hosts.yml", tmp_path)
    status = [PLAYBOOK, f"{ROOT}/playbooks/status.yml", "-i", "hosts.yml"]
    installed = {"ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections")}
    said = run(status, tmp_path, clean_environment(**installed)).stdout
    assert "hermes: not deployed: there is no .hermes/hermes." in said, said
    deploy = f"{ROOT}/playbooks/deploy.yml -i hosts.yml`"
    assert deploy in said and f"Docs: errors.md#not-deployed in {ROOT}/docs" in said, said

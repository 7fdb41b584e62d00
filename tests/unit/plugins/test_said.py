# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What cards say of what was changed, of the disk and of the token is so."""

from __future__ import annotations

import errno
import os
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible_collections.hermes.workers.plugins.action import workerd_destroy, workerd_service
from ansible_collections.hermes.workers.plugins.action.deployment_info import ActionModule
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.plugin_utils.actions.card_action import (
    system_card,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.state import disk
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder

ROOT = Path(__file__).resolve().parents[3]
Usage = namedtuple("Usage", "total used free")


def action(**variables: Any) -> ActionModule:
    """An action as a play has it when it fails."""
    made = ActionModule.__new__(ActionModule)
    made._task = SimpleNamespace(check_mode=False)
    made._loader = DataLoader()
    made.task_vars = variables
    return made


def on(platform: str, *changed: str) -> dict[str, Any]:
    results = {f"{step}_result": {"changed": True} for step in changed}
    return {"preflight_result": {"settings": {"platform": platform}}, **results}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (on("workerd"), None),
        (on("workerd", "image"), "Changed: image. Not changed: worker, processes, secrets."),
        (
            on("workerd", "worker", "workerd"),
            "Changed: worker, processes (which took the secrets along). Not changed: image.",
        ),
        (
            on("cloudflare", "worker"),
            "Changed: worker (which took the secrets along). Not changed: image, hostname.",
        ),
        (on("cloudflare", "secrets"), "Changed: secrets. Not changed: image, worker, hostname."),
    ],
)
def test_secrets_that_went_along_are_not_called_unchanged(
    variables: dict[str, Any], words: str | None
) -> None:
    assert action(**variables).changed_so_far() == words


def test_a_try_has_changed_nothing() -> None:
    made = action(**on("workerd", "image"))
    made._task.check_mode = True
    assert made.changed_so_far() is None


@pytest.mark.parametrize(
    ("ran", "runs", "words"),
    [
        (False, False, "Changed: image. Not changed: worker, processes, secrets."),
        (
            True,
            False,
            "Changed: image, processes (ended, and none runs now). Not changed: worker, secrets.",
        ),
        (
            False,
            True,
            "Changed: image, processes (which took the secrets along). Not changed: worker.",
        ),
    ],
)
def test_processes_that_do_not_run_are_none_that_changed(ran: bool, runs: bool, words: str) -> None:
    made = workerd_service.ActionModule.__new__(workerd_service.ActionModule)
    made._task = SimpleNamespace(check_mode=False)
    made.task_vars = on("workerd", "image")
    made.done, made.ran = ["processes"], ran
    made.deployment = SimpleNamespace(supervisor=lambda: {"pid": 1} if runs else None)
    assert made.changed_so_far() == words


def test_a_full_disk_is_named_by_the_system_card() -> None:
    card = system_card(OSError(errno.ENOSPC, "No space left on device", "/srv/hermes/lock.json"))
    assert card.problems[0].subject == "disk"
    assert "/srv/hermes/lock.json" in card.render()


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EMFILE])
def test_a_limit_is_named_by_the_system_card(number: int) -> None:
    """It is nothing about the file that happened to be opened."""
    told = system_card(OSError(number, os.strerror(number), "/srv/hermes/lock.json")).render()
    assert told.startswith(f"limit: {os.strerror(number)}.")
    assert "ulimit -a" in told


def no_room(*_: Any) -> None:
    raise OSError(errno.EDQUOT, "Disk quota exceeded")


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _path: Usage(10**9, 10**9, 4096))


def failed(folder: Path) -> str:
    made = action()
    made.deployment = StateFolder(str(folder), "hermes")
    card = Card.of("hermes", "the instance could not be reached.", "see its logs.", "instance")
    return str(made._failure(card)["msg"])


@pytest.mark.usefixtures("full")
def test_a_failure_on_a_full_disk_names_the_disk_first(tmp_path: Path) -> None:
    told = failed(tmp_path)
    assert told.startswith(f"disk: no space left below {tmp_path}")
    assert "the instance could not be reached" in told and "docs/errors.md#disk" in told


@pytest.mark.parametrize("forget", [False, "yes"])
def test_destroy_on_a_full_disk_names_the_way_that_needs_no_room(
    tmp_path: Path, forget: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the last backup that finds no room, whether a disk's or an account's."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(workerd_destroy.stored, "newest", no_room)
    made = workerd_destroy.ActionModule.__new__(workerd_destroy.ActionModule)
    made._task, made._loader = SimpleNamespace(check_mode=False), DataLoader()
    made.task_vars = {"inventory_hostname": "hermes"}
    made.deployment = StateFolder(str(tmp_path), "hermes")
    made.sources, made.options = SimpleNamespace(root=ROOT), {"forget": forget}
    made.settings = SimpleNamespace(name="hermes")
    with pytest.raises(Card) as caught:
        made._back_up()
    told = made._failure(caught.value)["msg"]
    assert told.startswith("disk: no space left below ")
    assert ("destroy FORGET=yes" in told) is not forget


def test_a_failure_elsewhere_says_nothing_of_the_disk(tmp_path: Path) -> None:
    assert failed(tmp_path).startswith("hermes: the instance")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"state": "awake", "since": None}, "awake"),
        ({"state": "asleep", "since": "2026-11-26T12:00:00Z"}, "asleep for "),
        ({}, None),
    ],
)
def test_a_moment_that_is_not_known_is_not_told(status: dict[str, Any], words: str | None) -> None:
    told = ActionModule._instance(status)
    assert told == words or (told or "").startswith(words or "nothing")


def test_a_worker_that_refuses_the_token_is_said_to_answer(tmp_path: Path) -> None:
    made = action()
    made.deployment = StateFolder(str(tmp_path), "hermes")
    made.settings = SimpleNamespace(name="hermes")
    made.command = lambda playbook: f"make {playbook}"
    made.is_refused = True
    told = made._verdict({"ports": {"http": 8787}}, {})
    assert told.startswith("its processes run, but the Worker does not take the token in ")
    assert "does not answer" not in told

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""No play gives up before the Worker does: a start that takes minutes is no Worker that does not answer."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible_collections.hermes.workers.plugins.action import backup, instance, rotate_keys
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import (
    CHANGE_SECONDS,
    Answer,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.actions.deployment_action import (
    ExistingAction,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.proof import health, in_force
from ansible_collections.hermes.workers.plugins.plugin_utils.state import backups

TOLD = {
    "instance": {"state": "awake", "configuration": {"restart": "nothing", "differs": []}},
    "hermes": {"gateway": "running"},
    "missing": [],
    "backup": None,
}


class Worker:
    """Notes how long it is waited for when it is asked to change something."""

    token = "t"

    def __init__(self) -> None:
        self.waits: dict[str, float | None] = {}

    def request(
        self, method: str, path: str, _body: Any = None, timeout: float | None = None
    ) -> Answer:
        if method == "POST":
            self.waits[path] = timeout
        return Answer(200, {}, json.dumps(TOLD).encode())


@contextlib.contextmanager
def nothing_shown(*_: Any) -> Iterator[None]:
    yield


def action(module: Any, worker: Worker, monkeypatch: pytest.MonkeyPatch, **options: str) -> Any:
    """An action of that module for a deployment that runs."""
    monkeypatch.setattr(module, "shown", nothing_shown)
    monkeypatch.setattr(ExistingAction, "running", lambda _self: worker)
    made = module.ActionModule.__new__(module.ActionModule)
    made._task = MagicMock(check_mode=False)
    made.options, made.deployment = options, MagicMock()
    made.settings, made.progress, made.show = MagicMock(), MagicMock(), MagicMock()
    made.command = MagicMock(return_value="make verify")
    return made


def backs_up(worker: Worker, monkeypatch: pytest.MonkeyPatch, _file: Path) -> None:
    with pytest.raises(Card, match="nothing to back up"):
        action(backup, worker, monkeypatch, folder="").deploy()


def restarts_for_keys(worker: Worker, monkeypatch: pytest.MonkeyPatch, _file: Path) -> None:
    made = action(rotate_keys, worker, monkeypatch)
    made.delivery = MagicMock()
    made._ask(worker, "/api/instance/restart-gateway", "Hermes' restart")


DEEDS: dict[str, Callable[[Any, Any, Path], Any]] = {
    "refresh": lambda worker, _patch, _file: in_force.refresh(
        worker, "alice", in_force.Restart("sandbox", ["a new image"])
    ),
    "sleep of a destroy": lambda worker, _patch, _file: health.save_and_sleep(
        worker, "alice", "it is destroyed"
    ),
    "backup put back": lambda worker, _patch, file: backups.upload(worker, file, print),
    "backup": backs_up,
    "restart for keys": restarts_for_keys,
    "restart": lambda worker, patch, _file: action(
        instance, worker, patch, action="restart"
    ).deploy(),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_what_changes_hermes_is_waited_for_as_long_as_the_worker_takes(
    deed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    worker, file = Worker(), tmp_path / "backup"
    file.write_bytes(b"{}")
    DEEDS[deed](worker, monkeypatch, file)
    assert worker.waits, "it was asked to"
    assert {*worker.waits.values()} == {CHANGE_SECONDS}, worker.waits

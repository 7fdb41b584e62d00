# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What a status and the logs say of a Hermes that is still starting, or does not tell what it has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.action.deployment_info import ActionModule
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import (
    Answer,
    Unreachable,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.display import logs
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder

WHY = "Cloudflare is still distributing the image"
STARTING = {"since": "2026-03-01T12:00:00.000Z", "why": WHY}
BOOTING = {"state": "booting", "since": STARTING["since"], "starting": STARTING}
AWAKE = {"state": "awake", "since": STARTING["since"], "starting": None}
NOT_YET = "Hermes is still starting; what it has is not known yet."
KEPT = {"item": "soul", "why": "changed by Hermes or its owner"}


class Worker:
    """Answers each path with what it was given: a body, an error's status and sentence, or not at all."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def request(self, _method: str, path: str, **_more: Any) -> Answer:
        found = self.answers[path.partition("?")[0].rpartition("/")[2]]
        if found is None:
            raise Unreachable("timed out")
        status, body = found if isinstance(found, tuple) else (200, found)
        if isinstance(body, str):
            body = {"error": {"code": "code", "message": body}}
        return Answer(status, {}, json.dumps(body).encode())


@pytest.fixture
def info(tmp_path: Path) -> ActionModule:
    found = ActionModule.__new__(ActionModule)
    found.deployment = StateFolder(tmp_path, "alice")
    found.deployment.folder.mkdir(parents=True)
    found.deployment.keep_note("host", "alice.example.com")
    found.settings = Settings.__new__(Settings)
    object.__setattr__(found.settings, "name", "alice")
    found.command = lambda playbook, **_more: f"make {playbook}"
    return found


def rows(info: ActionModule, worker: Worker) -> dict[str, str]:
    """Return the rows of the status that this Worker has, by their names."""
    health, status = (
        info._get(worker, f"/api/{path}")  # type: ignore[arg-type]
        for path in ("health", "instance/status")
    )
    lines = info._card(worker, health, status)  # type: ignore[arg-type]
    return {line[:14].strip(): line[15:] for line in lines[2:]}


def test_of_one_that_starts_it_says_since_when_and_that_the_rest_is_not_known(
    info: ActionModule,
) -> None:
    worker = Worker(health={"instance": BOOTING}, status=BOOTING, agent=(409, NOT_YET))
    shown = rows(info, worker)
    assert shown["Hermes"].startswith("starting for ")
    assert shown["Hermes"].endswith(f": {WHY}")
    assert shown["agent"] == NOT_YET


def test_a_row_that_cannot_be_had_is_told_of(info: ActionModule) -> None:
    health = {"instance": AWAKE}
    silent = rows(info, Worker(health=health, status=None, agent=None))
    assert silent["Hermes"].startswith("awake for ")
    assert silent["agent"] == "Hermes did not tell in time what it has."


def test_what_was_kept_is_told_and_nothing_of_one_that_has_all(info: ActionModule) -> None:
    health = {"instance": AWAKE}
    told = {"declared": {}, "running": {"kept": [KEPT]}}
    assert rows(info, Worker(health=health, status=AWAKE, agent=told))["kept"].startswith("soul:")
    told = {"declared": {}, "running": None}
    assert (
        not {"kept", "agent"} & rows(info, Worker(health=health, status=AWAKE, agent=told)).keys()
    )


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"log": [], "starting": STARTING}, f"alice: Hermes has no log yet: {WHY}, "),
        ({"log": [], "starting": None}, "alice: nothing of that kind is in its logs"),
        ({}, "alice: Hermes' log is not known: the Worker does not answer to the token"),
    ],
)
def test_one_that_starts_has_no_log_yet(
    info: ActionModule, told: dict[str, Any], said: str
) -> None:
    shown: list[str] = []
    info.show = shown.extend
    info._logs(Worker(logs=told), logs.wanted({}, None))  # type: ignore[arg-type]
    assert shown[1].startswith(said)

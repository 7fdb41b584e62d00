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
from deployed_here import DeployedHere, here

__all__ = ["here"]

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


AT = "2001-03-01T12:00:00.000Z"


@pytest.mark.parametrize(
    ("status", "row", "words"),
    [
        ({"hermesVersion": "9.9"}, "version", "1.0, Hermes 1.2 (9.9 runs)"),
        ({"hermesVersion": "1.2"}, "version", "1.0, Hermes 1.2"),
        ({"sqlite": "3.50"}, "SQLite", "3.50"),
        ({"whyAwake": ["a chat", "a job"]}, "why awake", "a chat, a job"),
        ({"whyAwake": {"requests": 2, "jobs": None}}, "why awake", "requests 2"),
        ({"whyAwake": []}, "why awake", None),
        ({"running": {"today": 61, "month": 7260}}, "ran", "2 min today, 2 h 01 min this month"),
        ({"running": {"lastMonth": 60, "atMost": True}}, "ran", "at most 1 min last month"),
        ({"running": {"today": 0}}, "ran", None),
        ({"instanceType": "basic"}, "cost", "at most $0.00 this month"),
        ({"instanceType": "colossal"}, "cost", "not known for the size colossal"),
        ({"next": {"what": "sleeps", "at": AT}}, "next", "sleeps "),
        ({"lastSave": AT}, "last save", "2001-03-01"),
        (
            {"lastSaveError": {"at": AT, "message": "no\n room", "code": "full"}},
            "not saved",
            ": no room (full)",
        ),
        ({"backups": {"count": 0, "leftOut": ["a", "b"]}}, "backups", "0"),
        ({"backups": {"leftOut": ["a", "b"]}}, "left out", "a; b"),
        ({"state": None}, "Hermes", None),
        ({"state": "asleep"}, "Hermes", "asleep"),
    ],
)
def test_each_thing_that_a_worker_tells_has_its_row_and_nothing_else_has(
    info: ActionModule, status: dict[str, Any], row: str, words: str | None
) -> None:
    told = {"declared": {}, "running": None}
    health = {"worker": {"version": "1.0"}, "hermes": {"version": "1.2"}}
    shown = rows(info, Worker(health=health, status=status, agent=told))
    assert words in shown[row] if words is not None else row not in shown


def test_of_a_worker_that_does_not_answer_the_cost_is_not_known(info: ActionModule) -> None:
    shown = rows(info, Worker(health=None, status=None, agent=None))
    assert shown["cost"].startswith("not known while the Worker does not answer")
    assert "version" not in shown


@pytest.mark.parametrize("body", [(401, "no"), ["a stranger"]], ids=["refused", "a stranger"])
def test_what_answers_as_another_is_told_as_not_ours(info: ActionModule, body: Any) -> None:
    shown: list[str] = []
    worker = Worker(health=body, status=body, agent=body, logs=body)
    health, status = info._get(worker, "/api/health"), info._get(worker, "/api/instance/status")  # type: ignore[arg-type]
    shown += info._card(worker, health, status)  # type: ignore[arg-type]
    assert shown[1].startswith("alice: deployed, but the Worker does not answer to the token")


def test_a_status_shows_a_card_and_logs_are_asked_for_by_themselves(here: DeployedHere) -> None:
    here.answers["GET /api/instance/status"] = AWAKE
    here.answers["GET /api/instance/logs"] = {"log": "2026-03-01 12:00:00 INFO a chat"}
    result = here.run(ActionModule)
    assert result["shown"][1] == "alice: running" and result["running"] is True
    assert result["status"] == AWAKE
    shown = "\n".join(result["shown"])
    assert "after reboot stays down; `" in shown and "lacking" not in shown
    (here.deployment.folder / "boot.json").write_text('{"lacking": ["openai_api_key"]}')
    shown = "\n".join(here.run(ActionModule)["shown"])
    assert "lacking      openai_api_key, not kept for a reboot; run `" in shown
    logs_of = here.run(ActionModule, {"log_lines": "40"})
    assert any("a chat" in line for line in logs_of["shown"])
    assert not any(line == "alice: running" for line in logs_of["shown"])


class Files:
    """A deployment on this machine, as its files tell of it."""

    def __init__(self, info: ActionModule, monkeypatch: pytest.MonkeyPatch) -> None:
        info.deployment.drop_note("host")
        info.is_refused = False
        self.info, self.monkeypatch = info, monkeypatch

    def told(self, name: str, value: Any) -> None:
        self.monkeypatch.setattr(type(self.info.deployment), name, lambda _self: value)

    def verdict(self, health: dict[str, Any] | None = None) -> str:
        return self.info._verdict(self.info.deployment.supervisor(), health or {})


@pytest.fixture
def files(info: ActionModule, monkeypatch: pytest.MonkeyPatch) -> Files:
    return Files(info, monkeypatch)


def test_the_verdict_on_this_machine_says_what_brings_it_back(files: Files) -> None:
    assert files.verdict() == "stopped; `make deploy` starts it"
    files.told("orphans", [{"pid": 1}])
    assert "were killed; `make deploy` brings them back" in files.verdict()
    files.told("supervisor", {"ports": {"http": 1}})
    assert "the Worker does not answer; see `make logs`" in files.verdict()
    assert files.verdict({"worker": {}}) == "running"
    files.told("moved_from", "/before")
    assert files.verdict({"worker": {}}).startswith("moved here from /before while it ran")


def test_the_addresses_are_those_that_its_processes_hold(files: Files) -> None:
    record = {"ports": {"http": 1234, "providers": 2}, "revived": 1}
    files.told("supervisor", record)
    files.monkeypatch.setattr(files.info, "_after_reboot", lambda _record: [])
    shown = "\n".join(files.info._card(None, {}, {}))
    assert "URL          http://127.0.0.1:1234" in shown and "dashboard" not in shown
    assert "supervisor   was killed and started again, 1 time by now" in shown
    files.told("supervisor", record | {"ports": {"http": 1, "dashboard": 5678}, "revived": 2})
    shown = "\n".join(files.info._card(None, {}, {}))
    assert "dashboard    http://127.0.0.1:5678" in shown and "2 times" in shown


def test_the_logs_on_this_machine_are_of_each_process_that_has_one(files: Files) -> None:
    folder = files.info.deployment.folder / "logs"
    folder.mkdir()
    for name, word in (("workerd", "served"), ("engine", "up")):
        (folder / f"{name}.log").write_text(f"2026-03-01 12:00:00 INFO {word}\n")
    files.told("supervisor", {"kind": "process"})
    shown: list[str] = []
    files.info.show = shown.extend
    files.info._logs(Worker(logs={"log": "2026-03-01 12:00:00 INFO a chat"}), logs.wanted({}, None))  # type: ignore[arg-type]
    titles = [line.rpartition("/")[2] for line in shown if line.startswith("alice: ")]
    assert titles == ["workerd.log", "engine.log", "alice: Hermes"]
    raw: list[str] = []
    files.info.show_raw = raw.extend
    files.info._logs(None, logs.wanted({"hermes_log_raw": True}, None))
    assert raw == ["2026-03-01 12:00:00 INFO served", "2026-03-01 12:00:00 INFO up"]

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""How a play steers a supervisor: which program it starts, with what, and what it tells of a failure."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import Answer
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import (
    PROCESSES_RECORD,
    SUPERVISOR_RECORD,
    StateFolder,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd import processes
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.processes import Processes

KEY = "sk-canary-of-a-provider"
# Stands for the interpreter of a runtime: notes how it was called, and ends as `ending` has it.
PYTHON = f"""#!{sys.executable}
import json, os, pathlib, sys
here = pathlib.Path(sys.argv[0]).parents[2]
called = {{"words": sys.argv[1:], "input": sys.stdin.read(), "environment": dict(os.environ)}}
(here / "called.json").write_text(json.dumps(called))
code, words = json.loads((here / "ending.json").read_text())
sys.stderr.write(words)
sys.exit(code)
"""
# Holds a record as a supervisor does, says so, and ends when it is told to.
HOLDER = """
import fcntl, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
record = open(sys.argv[1])
fcntl.flock(record, fcntl.LOCK_EX)
print(flush=True)
signal.pause()
"""


class Managed(Processes):
    """The processes of a deployment whose runtimes only note how they are called."""

    def __init__(self, folder: Path) -> None:
        super().__init__(StateFolder(str(folder), "alice"), "new")
        self.deployment.create()
        for name in ("run", "logs"):
            (self.deployment.folder / name).mkdir(exist_ok=True)
        for host in ("new", "older"):
            python = self.python(host)
            python.parent.mkdir(parents=True)
            python.write_text(PYTHON)
            python.chmod(0o755)
        self.ends(0)

    def python(self, host: str) -> Path:
        return self.deployment.runtime / f"host-{host}" / "venv" / "bin" / "python"

    def ends(self, code: int, words: str = "") -> None:
        for host in ("new", "older"):
            (self.python(host).parents[2] / "ending.json").write_text(json.dumps([code, words]))

    def called(self, host: str) -> dict[str, Any] | None:
        path = self.python(host).parents[2] / "called.json"
        return json.loads(path.read_text()) if path.exists() else None

    def logged(self, name: str, *lines: str) -> None:
        text = "".join(f"{line}\n" for line in lines)
        (self.deployment.folder / "logs" / f"{name}.log").write_text(text)

    @contextmanager
    def supervised(self, pid: int) -> Iterator[None]:
        """Hold the record of a supervisor that runs from the older runtime."""
        record = self.deployment.folder / SUPERVISOR_RECORD
        record.write_text(json.dumps({"pid": pid, "host": "older"}))
        with record.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield


@pytest.fixture
def managed(tmp_path: Path) -> Managed:
    return Managed(tmp_path / "state")


def test_keys_reach_the_supervisor_by_its_input_and_nothing_else_of_the_callers_environment(
    managed: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-of-the-shell")
    monkeypatch.setenv("TZ", "Europe/Paris")
    managed.start("process", ["workerd"], {"http": 1}, 30, {"A_KEY": KEY}, {}, "stay_down")
    called = managed.called("new")
    assert called is not None and managed.called("older") is None
    assert called["words"][1:] == ["run", "--folder", str(managed.deployment.folder)]
    given = json.loads(called["input"])
    assert given["secrets"] == {"A_KEY": KEY}
    assert given["environment"]["TZ"] == given["workerd_environment"]["TZ"] == "Europe/Paris"
    assert KEY not in str(called["words"]) + str(called["environment"])
    assert "canary" not in str(called["environment"]) + str(given["environment"])


@pytest.mark.parametrize(
    ("change", "action", "content"),
    [
        (lambda one: one.restart_workerd({"drain": 1}), "restart", {"drain": 1}),
        (lambda one: one.set_secrets({"A": KEY}), "set-secrets", {"A": KEY}),
        (lambda one: one.change_secrets({"A": KEY}), "change-secrets", {"A": KEY}),
        (lambda one: one.undo_secrets(), "undo-secrets", None),
        (lambda one: one.settle_secrets(), "settle-secrets", None),
    ],
    ids=["restart", "set", "change", "undo", "settle"],
)
def test_a_running_supervisor_is_spoken_to_by_the_program_that_it_was_started_from(
    managed: Managed, change: Any, action: str, content: Any
) -> None:
    with managed.supervised(os.getpid()):
        change(managed)
    called = managed.called("older")
    assert called is not None and managed.called("new") is None
    assert called["words"][1:3] == ["ctl", action]
    assert called["input"] == ("" if content is None else json.dumps(content))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("Traceback ...\nOSError: the disk is full\n", "OSError: the disk is full"),
        ("", "exit code 9"),
    ],
    ids=["last words", "none"],
)
def test_a_command_that_fails_is_told_with_the_log(managed: Managed, words: str, told: str) -> None:
    managed.ends(9, words)
    managed.logged("supervisor", "one", "two", "three", "four", "five")
    with pytest.raises(Card) as caught:
        managed.set_secrets({"A": KEY})
    card = caught.value.render()
    assert f"alice: the processes could not be managed: {told}." in card
    assert "two" in card and "five" in card and "one\n" not in card
    assert KEY not in card


def test_a_port_that_no_setting_chose_is_told_as_it_is(managed: Managed) -> None:
    managed.ends(1, "[Errno 98] port 4711: Address already in use\n")
    with pytest.raises(Card) as caught:
        managed.start("process", [], {"http": 8787}, 30, {}, {}, "stay_down")
    assert caught.value.render().startswith("alice: 4711 was taken by another program")
    with pytest.raises(Card, match="could not be managed"):
        managed.undo_secrets()  # it asked for none


def test_of_a_deployment_that_is_down_nothing_is_stopped(managed: Managed) -> None:
    assert managed.stop() is False
    assert managed.called("new") is None


def test_what_outlived_a_killed_supervisor_is_ended_by_the_supervisors_own_means(
    managed: Managed,
) -> None:
    left = {"engine": {"pid": os.getpid(), "folder": str(managed.deployment.folder)}}
    (managed.deployment.folder / PROCESSES_RECORD).write_text(json.dumps(left))
    assert managed.stop() is True
    called = managed.called("new")
    assert called is not None and "end_orphans()" in called["words"][1]


def test_a_stop_waits_for_the_supervisors_end(managed: Managed) -> None:
    record = managed.deployment.folder / SUPERVISOR_RECORD
    record.touch()
    command = [sys.executable, "-c", HOLDER, str(record)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None and supervisor.stdout.readline()
        record.write_text(json.dumps({"pid": supervisor.pid}))
        reaping = threading.Thread(target=supervisor.wait)
        reaping.start()
        assert managed.stop() is True
        assert managed.deployment.supervisor() is None
        reaping.join()
        assert supervisor.returncode == 0


def test_a_supervisor_that_stays_is_told_with_what_ends_it(
    managed: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(processes.os, "kill", lambda *given: sent.append(given))
    monkeypatch.setattr(processes, "STOP_SECONDS", -1.0)
    with managed.supervised(4711), pytest.raises(Card) as caught:
        managed.stop()
    assert sent == [(4711, signal.SIGTERM)]
    assert "`kill -9 4711` ends it" in caught.value.render()


def answer(status: int, body: Any) -> Answer:
    return Answer(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("given", "sentence", "remedy", "logged"),
    [
        (None, "workerd does not serve the Worker", "read ", True),
        (answer(200, {"worker": {"version": "1"}}), "version 1 is running", "run deploy", False),
        (answer(200, {"worker": {"version": "2"}}), processes.CHANGED_BY_HAND, "run deploy", False),
        (answer(200, ["another"]), "version None is running", "run deploy", False),
        (answer(401, {"error": {"message": "no"}}), "answered with 401: no", "run deploy", False),
        (answer(500, b"<h1>Oh</h1>"), "answered with 500: <h1>Oh</h1>", "read ", True),
    ],
    ids=["none", "older", "by hand", "a stranger", "another token", "broken"],
)
def test_a_worker_that_is_not_as_it_should_be_is_told_with_what_mends_it(
    managed: Managed,
    monkeypatch: pytest.MonkeyPatch,
    given: Answer | None,
    sentence: str,
    remedy: str,
    logged: bool,
) -> None:
    managed.logged("workerd", "the last words")
    monkeypatch.setattr(processes, "health", lambda *_args, **_more: given)
    if given is None or given.status != 200:
        with pytest.raises(Card):  # nothing runs, so that nothing is waited for
            managed.wait_until_served(None, "2")  # type: ignore[arg-type]
    card = managed.not_served(given, "2")
    (problem,) = card.problems
    assert sentence in problem.sentence and problem.remedy.startswith(remedy)
    assert ("the last words" in card.render()) is logged


def test_a_worker_is_waited_for_until_it_is_the_one_that_was_deployed(
    managed: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [
        None,
        answer(503, {}),
        answer(200, []),
        *(answer(200, {"worker": {"version": one}}) for one in "12"),
    ]
    monkeypatch.setattr(processes, "health", lambda *_args, **_more: told.pop(0))
    monkeypatch.setattr(processes.time, "sleep", lambda _seconds: None)
    with managed.supervised(os.getpid()):
        found = managed.wait_until_served(None, "2")  # type: ignore[arg-type]
    assert found.json() == {"worker": {"version": "2"}} and told == []


def test_where_no_port_is_free_the_first_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "port_taken", lambda _port: True)
    assert processes.free_port(55000) == 55000

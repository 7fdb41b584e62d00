# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What the guardian starts, with what, and how often; a supervisor of its own is in test_supervisor.py."""

from __future__ import annotations

import importlib.util
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

GUARDIAN = Path(__file__).parents[3] / "host" / "guardian.py"
SETTINGS = {"name": "box", "secrets": {"API_TOKEN": "canary"}}

# Notes what it is given, and ends with the next of the codes.
SUPERVISOR = """
import json, pathlib, sys
given = pathlib.Path("given")
with given.open("a") as file:
    print(json.dumps([json.load(sys.stdin), sys.argv[1:]]), file=file)
codes = json.loads(pathlib.Path("codes").read_text())
sys.exit(codes[len(given.read_text().splitlines()) - 1])
"""


class Guard:
    """A guardian of a folder, in this process; its pauses are noted instead of made."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.paused: list[float] = []
        monkeypatch.chdir(folder)
        Path("supervisor.py").write_text(SUPERVISOR)
        Path("run").mkdir()
        spec = importlib.util.spec_from_file_location("guardian", GUARDIAN)
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        monkeypatch.setattr(self.module.time, "sleep", self.pause)

    def pause(self, seconds: float) -> None:
        self.paused.append(seconds)

    def outlives(self, told: str, codes: list[int]) -> list[Any]:
        """Return what it gives to supervisors, which end with these codes, once the first one is dead."""
        Path("codes").write_text(json.dumps(codes))
        self.monkeypatch.setattr("sys.stdin", io.StringIO(told))
        self.module.main("supervisor.py")
        given = Path("given")
        return (
            [json.loads(line) for line in given.read_text().splitlines()] if given.exists() else []
        )


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guard:
    return Guard(tmp_path, monkeypatch)


def line(**changes: Any) -> str:
    return json.dumps(SETTINGS | changes) + "\n"


def test_the_next_supervisor_is_given_what_was_told_last(guard: Guard) -> None:
    told = line() + line(drain=7, revived=2)
    ((given, words),) = guard.outlives(told, [0])
    assert given == {**SETTINGS, "drain": 7, "revived": 3, "guardian": os.getpid()}
    assert words == ["run", "--folder", os.getcwd()]


def test_a_line_that_the_death_cut_off_is_not_believed(guard: Guard) -> None:
    ((given, _words),) = guard.outlives(line(drain=7) + line(drain=8)[:-3], [0])
    assert given["drain"] == 7


def test_a_start_that_fails_is_tried_again_less_and_less_often(guard: Guard) -> None:
    guard.monkeypatch.setattr(guard.module, "LONGEST_WAIT", 3)
    assert len(guard.outlives(line(), [1, 1, 1, 1, 0])) == 5
    assert guard.paused == [0.5, 1, 2, 3, 3]


def test_it_leaves_the_folder_to_another_supervisor_that_runs_already(guard: Guard) -> None:
    assert len(guard.outlives(line(), [1, 3])) == 2


def test_of_what_it_was_never_told_it_starts_nothing(guard: Guard) -> None:
    assert guard.outlives(line()[:-1], []) == []


def test_it_gives_up_where_the_deployment_was_removed(guard: Guard) -> None:
    Path("run").rmdir()
    assert guard.outlives(line(), []) == []


def test_it_gives_up_where_the_deployment_is_removed_while_it_waits(guard: Guard) -> None:
    def removed_at_the_second(seconds: float) -> None:
        guard.pause(seconds)
        if len(guard.paused) == 2:
            Path("run").rmdir()

    guard.monkeypatch.setattr(guard.module.time, "sleep", removed_at_the_second)
    assert len(guard.outlives(line(), [1, 1])) == 1

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What a Worker is asked before its processes end, so that no request and no memory is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import (
    Answer,
    Unreachable,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.proof import health

BUSY, IDLE = {"requestsInFlight": 2}, {"requestsInFlight": 0}


class Worker:
    """Answers one after the other, the last one for ever; None is no answer."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def request(self, method: str, path: str, **_more: Any) -> Answer:
        self.asked.append(f"{method} {path}")
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if found is None:
            raise Unreachable("it is gone")
        status, body = found if isinstance(found, tuple) else (200, found)
        return Answer(status, {}, json.dumps(body).encode())


STATUS, SAVE = "GET /api/instance/status", "POST /api/instance/backups"


class Clock:
    """A time of which each pause takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _seconds: float) -> None:
        self.now += 1


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        ([BUSY, BUSY, IDLE], [STATUS, STATUS, STATUS, SAVE]),
        ([IDLE], [STATUS, SAVE]),
        ([["a stranger"]], [STATUS, SAVE]),
        ([BUSY], [STATUS] * 3 + [SAVE]),
        ([BUSY, None], [STATUS, STATUS]),
    ],
    ids=["busy for a while", "idle", "says nothing", "busy for ever", "dies"],
)
def test_the_state_is_saved_once_nothing_is_under_way_or_when_the_time_is_up(
    monkeypatch: pytest.MonkeyPatch, answers: list[Any], asked: list[str]
) -> None:
    monkeypatch.setattr(health, "time", Clock())
    worker = Worker(*answers)
    health.drain_and_save(worker, 3)  # type: ignore[arg-type]
    assert worker.asked == asked


def test_where_there_is_no_worker_nobody_is_asked() -> None:
    health.drain_and_save(None, 3)


def test_a_memory_that_cannot_be_saved_stops_what_would_lose_it() -> None:
    worker = Worker((507, {"error": {"message": "no room"}}))
    with pytest.raises(Card) as caught:
        health.save_and_sleep(worker, "alice", "its engine is replaced")  # type: ignore[arg-type]
    card = caught.value.render()
    assert "alice: its state could not be saved before its engine is replaced: no room" in card
    assert "\nNothing was changed.\n" in card


@pytest.mark.parametrize(("answer", "saved"), [({}, True), (None, False)])
def test_a_worker_is_saved_and_one_that_is_dead_is_not_waited_for(answer: Any, saved: bool) -> None:
    worker = Worker(answer)
    assert health.save_and_sleep(worker, "alice", "it ends") is saved  # type: ignore[arg-type]
    assert worker.asked == ["POST /api/instance/sleep"]

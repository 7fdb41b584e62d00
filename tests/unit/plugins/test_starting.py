# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A play that waits for a sandbox says what that waits for, and since when."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import Answer
from ansible_collections.hermes.workers.plugins.plugin_utils.proof import in_force
from ansible_collections.hermes.workers.plugins.plugin_utils.proof.starting import shown, words_of

WHY = "Cloudflare is still distributing the image"
SINCE = "2026-03-01T12:00:00.000Z"


class Worker:
    """Answers /api/health with one instance after the other, the last of them again and again."""

    def __init__(self, *instances: dict[str, Any]) -> None:
        self.instances = list(instances)
        self.asked = 0

    def request(self, *_: Any, **__: Any) -> Answer:
        instance = self.instances[min(self.asked, len(self.instances) - 1)]
        self.asked += 1
        return Answer(200, {}, json.dumps({"instance": instance}).encode())


def test_it_tells_what_and_how_long() -> None:
    now = datetime(2026, 3, 1, 12, 0, 40, tzinfo=UTC).timestamp()
    assert words_of({"since": SINCE, "why": WHY}, now) == f"{WHY}, 40 s"
    assert words_of(None) == ""


def test_a_play_shows_it_while_it_waits() -> None:
    lines: list[str] = []
    seen = threading.Event()

    def progress(line: str) -> None:
        lines.append(line)
        seen.set()

    worker = Worker({"starting": {"since": SINCE, "why": WHY}})
    with shown(worker, progress, 0.01):
        assert seen.wait(20)
    assert lines[0].startswith(f"{WHY}, ")
    count = len(lines)
    threading.Event().wait(0.05)
    assert len(lines) == count


def test_nothing_is_shown_of_one_that_runs() -> None:
    lines: list[str] = []
    worker = Worker({"starting": None}, {})
    with shown(worker, lines.append, 0.001):
        while worker.asked < 3:
            threading.Event().wait(0.001)
    assert lines == []


def test_whether_settings_are_in_force_is_waited_for_while_the_sandbox_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hours = iter(range(0, 360_000, 3600))
    monkeypatch.setattr(in_force.time, "monotonic", lambda: next(hours))
    monkeypatch.setattr(in_force.time, "sleep", lambda _: None)
    booting = {"state": "booting", "configuration": None, "starting": {"since": SINCE, "why": WHY}}
    awake = {"state": "awake", "configuration": {"restart": "nothing", "differs": []}}
    worker = Worker(*[booting] * 5, awake)
    told = in_force.wait_until_known(worker, "alice")
    assert told["instance"]["state"] == "awake"

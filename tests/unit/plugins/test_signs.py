# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A task that is silent says that it is still at it; one that speaks, or is over, does not."""

from __future__ import annotations

import threading

import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.display import signs
from ansible_collections.hermes.workers.plugins.plugin_utils.display.signs import Signs


class Clock:
    """Time that passes when somebody waits; each wait ends where it was to end, or with the last hour's."""

    def __init__(self, hours: float) -> None:
        self.now, self.end = 0.0, hours * 3600
        self.said: dict[float, str] = {}
        self.heard = lambda _text: None

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        after = self.now + seconds
        for at in sorted(self.said):
            if self.now < at <= after:
                self.now = at
                self.heard(self.said.pop(at))
                self.now = after
        self.now = after
        return self.now > self.end


def lines_of(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(signs, "time", clock)
    lines: list[str] = []
    made = Signs(lines.append, "Make the image")
    made._over = clock
    clock.heard = made.heard
    made._watch()
    return lines


def test_silence_is_told_more_and_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = lines_of(Clock(hours=0.1), monkeypatch)
    seconds = [5, 15, 35, 75, 135, 195, 255, 315]
    assert lines == [f"Make the image, {each} s" for each in seconds]


def test_what_was_said_last_is_what_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(hours=0.01)
    clock.said = {4: "pulling debian ...", 12: "pulling debian: done in 8.0 s"}
    lines = lines_of(clock, monkeypatch)
    assert lines[0] == "pulling debian, 6 s" or lines[0] == "pulling debian, 5 s"
    assert lines[1].startswith("Make the image, ")
    assert all(line.startswith("Make the image, ") for line in lines[1:])


def test_a_task_that_ends_is_silent_from_then_on() -> None:
    lines: list[str] = []
    seen = threading.Event()

    def show(line: str) -> None:
        lines.append(line)
        seen.set()

    with Signs(show, "Make the image", 0.01) as watched:
        assert seen.wait(20)
        watched.heard("asking Hermes")
    watched._thread.join(20)
    count = len(lines)
    threading.Event().wait(0.05)
    assert len(lines) == count >= 1

# SPDX-License-Identifier: Apache-2.0
"""The shared right to call: exact over every window, across processes, and after an interruption."""

from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import budget as module
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.budget import Budget
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import Cloudflare
from api_server import ApiServer, ok, refused


class Clock:
    """A clock that only sleep moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_no_window_ever_has_too_many_calls(tmp_path: Path, clock: Clock) -> None:
    budget, sent = Budget(tmp_path, "t", calls=10, seconds=60), []
    for number in range(45):
        clock.now += number % 7
        budget.take()
        sent.append(clock.now)
    for first, eleventh in zip(sent, sent[10:], strict=False):
        assert eleventh - first >= 60
    assert sent[9] - sent[0] < 60, "a burst up to the limit is not slowed down"


def test_tokens_do_not_share(tmp_path: Path, clock: Clock) -> None:
    started = clock.now
    for token in ("one", "two"):
        Budget(tmp_path, token, calls=3, seconds=60).take(3)
    assert clock.now == started
    assert "one" not in str(list(tmp_path.iterdir()))


def test_a_program_that_calls_by_itself_is_booked_whole(tmp_path: Path, clock: Clock) -> None:
    budget, lines, started = Budget(tmp_path, "t", calls=10, seconds=60), [], clock.now
    budget.take(8)
    budget.take(8, tell=lines.append)
    assert clock.now - started == 60
    assert "60 s" in lines[0]


def test_a_refusal_holds_everybody_back(tmp_path: Path, clock: Clock) -> None:
    Budget(tmp_path, "t").hold(30)
    started = clock.now
    Budget(tmp_path, "t").take()
    assert clock.now - started == 30


def test_a_clock_that_was_set_back_stops_nobody(tmp_path: Path, clock: Clock) -> None:
    budget = Budget(tmp_path, "t", calls=2, seconds=60)
    budget.take(2)
    budget.hold(60)
    clock.now -= 100_000
    started = clock.now
    budget.take()
    assert clock.now == started


def test_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    budget = Budget(tmp_path / "new", "t")
    budget.take()
    assert stat.S_IMODE(budget.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(budget.path.parent.stat().st_mode) == 0o700


def book(folder: Path, results: multiprocessing.Queue) -> None:
    budget = Budget(folder, "t", calls=50, seconds=1000)
    results.put([budget._book(1) for _ in range(40)])


def test_processes_share_one_budget(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=book, args=(tmp_path, results)) for _ in range(5)]
    for process in processes:
        process.start()
    times = sorted(at for _ in processes for at in results.get(timeout=60))
    for process in processes:
        process.join()
    assert len(times) == 200
    for first, later in zip(times, times[50:], strict=False):
        assert later - first >= 1000 - 1e-3


def test_the_client_counts_its_calls_and_tells_of_a_refusal(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client.time", clock
    )
    with ApiServer() as server:
        server.script = [refused(429, 971, "wait", Retry_After="90"), ok(), ok()]
        started = clock.now
        client = Cloudflare(
            "t", base_url=server.url, budget=Budget(tmp_path, "t", calls=2, seconds=200)
        )
        client.get("/x")
        assert clock.now - started == 90
        client.get("/x")
        assert clock.now - started == 200

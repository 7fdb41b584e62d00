# SPDX-License-Identifier: Apache-2.0
"""A message by Telegram, asleep and awake, against the same words by the API of the same deployment.

The platform and the model's provider are the tests' stand-ins, on this machine. HERMES_BENCH_ROUNDS (9) says how often
each is sent; both ways take turns.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from figure import Figure
from plays import Deployment

from tests.standins.provider import Provider
from tests.standins.telegram import Telegram

ROUNDS = int(os.environ.get("HERMES_BENCH_ROUNDS", "9"))
OUTSIDE = "https://hermes.example.com"
ANN = 77
IDLE = 30
"""Seconds in which an idle channel is watched."""
ASLEEP_GOAL = 1.5
AWAKE_GOAL = 3.0
ACKNOWLEDGED_GOAL = 1.0


class Timed(Telegram):
    """A Telegram that knows how long its deliveries took, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.took: list[float] = []

    def deliver(self, update: dict[str, Any], hook: dict[str, Any]) -> bool:
        """Send one update to a webhook."""
        began = time.perf_counter()
        taken = super().deliver(update, hook)
        self.took.append(time.perf_counter() - began)
        return taken


def seconds(work: Callable[[], object]) -> float:
    """How long some work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def of(made: Deployment, telegram: Timed) -> list[Figure]:
    """Write by both ways in turn."""
    numbers = itertools.count(1)

    def by_telegram() -> float:
        return seconds(
            lambda: telegram.await_answer(telegram.write(f"Hello {next(numbers)}", ANN), 120)
        )

    def by_api() -> float:
        return seconds(lambda: made.chat(f"Hello {next(numbers)}", session="bench"))

    def asleep(work: Callable[[], float]) -> float:
        assert made.call("POST", "/api/instance/sleep").status == 200
        return work()

    answered: dict[str, list[tuple[float, float]]] = {"asleep": [], "awake": []}
    acknowledged = []
    # The first of each is not counted.
    for _ in range(ROUNDS + 1):
        answered["asleep"].append((asleep(by_telegram), asleep(by_api)))
        acknowledged.append(
            (telegram.took[-1], seconds(lambda: made.call("GET", "/api/instance/status")))
        )
        answered["awake"].append((by_telegram(), by_api()))
    figures = [
        Figure.against(
            "a message to a sleeping Hermes is acknowledged",
            acknowledged[1:],
            "a look at its status",
            ACKNOWLEDGED_GOAL,
        )
    ]
    figures += [
        Figure.against(f"it is answered, {how}", answered[how][1:], "a chat by the API", goal)
        for how, goal in (("asleep", ASLEEP_GOAL), ("awake", AWAKE_GOAL))
    ]
    assert made.call("POST", "/api/instance/sleep").status == 200
    calls, boots = len(telegram.calls), made.status()["boots"]
    time.sleep(IDLE)
    done = len(telegram.calls) - calls + made.status()["boots"] - boots
    return [*figures, Figure(f"calls and boots of an idle channel in {IDLE} s", done, "", 0)]


def measure() -> list[Figure]:
    """Hold a message against a chat."""
    telegram = Timed()
    with (
        telegram,
        Provider("key-of-the-bench") as provider,
        tempfile.TemporaryDirectory(prefix="hermes-bench-") as folder,
    ):
        made = Deployment("channels", Path(folder))
        telegram.reaches[OUTSIDE] = made.url
        made.variables = {
            "hermes_channels": {"telegram": {"token": telegram.token, "allow": [ANN]}},
            "hermes_public_url": OUTSIDE,
            "hermes_telegram_api_url": telegram.url,
            "hermes_default_model": "custom/stand-in",
            "hermes_provider_base_url": provider.url + "/v1",
            "custom_api_key": provider.key,
        }
        made.deploy()
        try:
            return of(made, telegram)
        finally:
            made.play("destroy", "-e", "hermes_confirm=yes")

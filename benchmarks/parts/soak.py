# SPDX-License-Identifier: Apache-2.0
"""Long use on Docker: what grows over many chats, and over many sleeps.

HERMES_BENCH_CHATS (500) and HERMES_BENCH_SLEEPS (100) say how many.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

import psutil
from figure import Figure

from parts.container import Contained, contained, docker, provider

CHATS = int(os.environ.get("HERMES_BENCH_CHATS", "500"))
SLEEPS = int(os.environ.get("HERMES_BENCH_SLEEPS", "100"))
WARM_CHATS = 5
WARM_SLEEPS = 5
"""The vault has its three generations and the engine its snapshots by then."""
TIDY = 180
"""Seconds within which what is no longer needed must be gone."""


def chat(made: Contained, text: str) -> None:
    """One turn of a session of its own."""
    answer = made.deployment.chat(text)
    if answer.status != 200:
        raise RuntimeError(f"a chat was answered with {answer.status}: {answer.text}")


def memory(made: Contained) -> float:
    """Megabytes (PSS) of everything that runs in Hermes' container."""
    processes = made.engine("top", made.hermes, "-eo", "pid").split()[1:]
    total = 0.0
    for pid in processes:
        with suppress(psutil.NoSuchProcess):
            total += psutil.Process(int(pid)).memory_full_info().pss / 1e6
    return total


def over_chats(made: Contained) -> list[Figure]:
    """Memory when idle, and after many chats."""
    for n in range(WARM_CHATS):
        chat(made, f"Warm {n}")
    idle = memory(made)
    for n in range(CHATS):
        chat(made, f"Chat {n}")
    late = memory(made)
    return [
        Figure("Hermes' container, idle", round(idle, 1), "MB PSS", 260.0),
        Figure(f"the same after {CHATS} chats", round(late, 1), "MB PSS", round(1.5 * idle, 1)),
    ]


def tidied(made: Contained, most: dict[str, int]) -> dict[str, int]:
    """What there is once everything is tidied up: not more than `most`, or what remains of it."""
    end = time.monotonic() + TIDY
    found: dict[str, int] = made.holdings()
    while any(found[name] > most[name] for name in most) and time.monotonic() < end:
        time.sleep(1)
        found = made.holdings()
    return found


def over_sleeps(made: Contained) -> list[Figure]:
    """What there is more of after many sleeps than after a few."""

    def rounds(count: int, name: str) -> None:
        for n in range(count):
            chat(made, f"{name} {n}")
            made.sleep()

    rounds(WARM_SLEEPS, "Early")
    time.sleep(TIDY / 3)
    few = made.holdings()
    rounds(SLEEPS, "Round")
    many = tidied(made, few)
    return [
        Figure(f"{name} after {SLEEPS} sleeps more", many[name] - few[name], name, 0, few[name])
        for name in few
    ]


def measure() -> list[Figure]:
    """Look at what many chats and many sleeps leave behind."""
    with docker() as engine, provider() as model, contained(engine, model) as made:
        return over_chats(made) + over_sleeps(made)

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sandbox that takes its time to start: what a play shows meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from ...module_utils.worker_client import WorkerClient
from .health import health

LOOK_SECONDS = 10.0
JOIN_SECONDS = 15.0


@contextmanager
def shown(
    client: WorkerClient, progress: Callable[[str], None], every: float = LOOK_SECONDS
) -> Iterator[None]:
    """Show what a sandbox waits for that does not start at once, and for how long, while something waits for Hermes.

    client: for this alone, since it asks beside whoever waits; progress: shows one line.
    """
    over = threading.Event()

    def look() -> None:
        while not over.wait(every):
            if (words := words_of(starting(client))) and not over.is_set():
                progress(words)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(JOIN_SECONDS)


def starting(client: WorkerClient) -> dict[str, Any] | None:
    """Return what /api/health tells of a sandbox that is still to start, None when there is none."""
    answer = health(client, timeout=10.0)
    return starting_in(answer.json()) if answer is not None and answer.status == 200 else None


def starting_in(told: dict[str, Any]) -> dict[str, Any] | None:
    """Return the same of an answer of /api/health."""
    found = told.get("instance", {}).get("starting")
    return found if isinstance(found, dict) else None


def words_of(told: dict[str, Any] | None, now: float | None = None) -> str:
    """Return it in a few words. now: seconds since the epoch."""
    if told is None:
        return ""
    began = datetime.strptime(told["since"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    seconds = max(0, round((time.time() if now is None else now) - began.timestamp()))
    return f"{told['why']}, {seconds} s"

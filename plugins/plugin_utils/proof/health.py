# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a Worker how it is, and has it save before it ends."""

from __future__ import annotations

import time

from ...module_utils.cards import Card
from ...module_utils.worker_client import CHANGE_SECONDS, Answer, Unreachable, WorkerClient

SAVE_SECONDS = 180.0


def health(client: WorkerClient, timeout: float = 3.0) -> Answer | None:
    """Return the answer of /api/health, or None when nobody answers in time (seconds)."""
    try:
        return client.request("GET", "/api/health", timeout=timeout)
    except Unreachable:
        return None


def drain_and_save(client: WorkerClient | None, seconds: float) -> None:
    """Wait until no request is under way, at most so long, then have Hermes' state saved.

    For an engine whose containers outlive workerd only when it is killed: nothing then drains by itself. What cannot
    be saved now is not lost, it is still in the running container.
    """
    if client is None:
        return
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            status = client.request("GET", "/api/instance/status", timeout=10).json()
            if not status.get("requestsInFlight"):
                break
            time.sleep(0.1)
        client.request("POST", "/api/instance/backups", timeout=SAVE_SECONDS)
    except Unreachable:
        return


def save_and_sleep(client: WorkerClient, name: str, why: str) -> bool:
    """Have Hermes' state saved and the sandbox ended; returns False when there was nothing to ask.

    Raises a Card when the Worker answers but could not save: going on would lose memory.
    """
    try:
        answer = client.request("POST", "/api/instance/sleep", timeout=CHANGE_SECONDS)
    except Unreachable:
        return False
    if answer.status >= 400:
        raise Card.of(
            name,
            f"its state could not be saved before {why}: {answer.complaint()}",
            "see its logs, mend the cause and run it again.",
            "save",
        )
    return True

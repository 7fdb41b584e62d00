# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who works on a deployment now: the play, its processes, and how another play tells that it has ended."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

WATCH_SECONDS = 0.1


def play_process() -> int:
    """Return the id of the play's process, whose child this one is, also when that has ended."""
    play = multiprocessing.parent_process()
    return os.getppid() if play is None or play.pid is None else play.pid


@cache
def end_with_play() -> None:
    """Have this process of a play's, and what it started in its group, end soon after the play, however that ended."""
    play = multiprocessing.parent_process()
    if play is None:
        return

    def watch() -> None:
        while os.getppid() == play.pid:
            time.sleep(WATCH_SECONDS)
        os.kill(0 if os.getpgrp() == os.getpid() else os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def other_holder(text: str) -> dict[str, Any] | None:
    """Return the lock's record when the play that wrote it still runs and is not this one."""
    try:
        record = json.loads(text)
        running = alive(record["pid"]) and started_at(record["pid"]) == record["started"]
        return record if running and record["pid"] != play_process() else None
    except (ValueError, KeyError, TypeError):
        return None


def alive(pid: Any) -> bool:
    """Tell whether a process id exists, of a process that has not ended.

    Of what has ended the id stays until its parent looks after it: for ever, below a first process that is no init.
    """
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return stat_fields(pid)[:1] not in (["Z"], ["X"])


def started_at(pid: int) -> str:
    """Return something that tells a process from a later one with the same id."""
    fields = stat_fields(pid)
    if len(fields) > 19:
        return fields[19]
    try:
        done = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip()


def stat_fields(pid: int) -> list[str]:
    """Return what Linux tells of a process after its name, state first (proc_pid_stat(5)); nothing elsewhere."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return []

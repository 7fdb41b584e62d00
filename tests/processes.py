# SPDX-License-Identifier: Apache-2.0
"""What tests ask of the system's processes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import psutil


def alive(pid: int) -> bool:
    """Tell whether a process exists and is no zombie.

    Of what has ended, the number stays until its parent looks after it: for a moment, or, below a first process that
    is no init, for ever.
    """
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def wait_for_ends(processes: Iterable[psutil.Process], seconds: float = 60) -> None:
    """Wait until processes have ended, whoever has to look after them; fail after so many seconds."""
    left = list(processes)
    until = time.monotonic() + seconds
    while left := [one for one in left if alive(one.pid) and one.is_running()]:
        assert time.monotonic() < until, f"not ended within {seconds} s: {left}"
        time.sleep(0.05)

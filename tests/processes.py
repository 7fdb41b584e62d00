# SPDX-License-Identifier: Apache-2.0
"""What tests ask of the system's processes."""

from __future__ import annotations

from pathlib import Path


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

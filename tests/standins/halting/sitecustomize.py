# SPDX-License-Identifier: Apache-2.0
"""Holds a process still right before it does a thing, so that a test can kill it there however busy the machine is.

Python imports this at its start where the folder is on PYTHONPATH. HALT_BEFORE names Python's own audit events, each
with the end of an argument, in the order in which they are met: the last one stops the process (SIGSTOP).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from typing import Any

_ahead = [step.split(" ") for step in os.environ.get("HALT_BEFORE", "").split(", ") if step]


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, (str, bytes, os.PathLike)):
        yield os.fsdecode(value)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _texts(one)


def _hold(event: str, arguments: tuple[Any, ...]) -> None:
    if not _ahead or event != _ahead[0][0]:
        return
    if any(text.endswith(_ahead[0][1]) for text in _texts(arguments)):
        _ahead.pop(0)
        if not _ahead:
            os.kill(os.getpid(), signal.SIGSTOP)


sys.addaudithook(_hold)

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signs of life: a task that has said nothing for some seconds says that it is still at it, and for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

FIRST_SECONDS = 5.0
LONGEST_SECONDS = 60.0


class Signs:
    """Watches over one task, while it is entered. Each silence is told after 5 s, 10 s more, 20 s more and so on."""

    def __init__(
        self, show: Callable[[str], None], step: str, first: float = FIRST_SECONDS
    ) -> None:
        """show: shows one line; step: what is told of before the task itself said what it does."""
        self._show = show
        self._first = first
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._task = step
        self.heard(step)

    def heard(self, step: str) -> None:
        """Note what the task said just now: its silence begins anew."""
        # What is done is no step any more; what follows it has not been named.
        name = self._task if ": done in " in step else step.removesuffix(" ...")
        self._silence = (name, time.monotonic())

    def __enter__(self) -> Signs:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()

    def _watch(self) -> None:
        due = pause = self._first
        watched = self._silence
        while True:
            name, began = silence = self._silence
            if silence is not watched:
                watched, due, pause = silence, self._first, self._first
            silent = time.monotonic() - began
            if silent >= due:
                self._show(f"{name}, {silent:.0f} s")
                pause = min(pause * 2, LONGEST_SECONDS)
                due += pause
            if self._over.wait(due - silent if due > silent else 0):
                return

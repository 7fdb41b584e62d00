# SPDX-License-Identifier: Apache-2.0
"""Keeps Hermes' dashboard up, once somebody has asked for it."""

import signal
import time

from sandbox.errors import why
from sandbox.pid1.child import Child

TYPE_CHECKING = False  # `typing` would stay in PID 1's memory; checkers know this name
if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds before the first start after an unwanted end; each further one waits twice as long.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
# Who lived as long as this is in good health: the next end is the first one again.
HEALTHY = 60.0
# What it takes at most to end in an orderly way.
STOP_TIME = 5.0


class DashboardKeeper:
    """The dashboard of one sandbox: wanted from `want` to `stop`.

    `child` is its process while it runs, `due` when to call `tick`.
    """

    def __init__(
        self, start: "Callable[[int], Child]", note: "Callable[[int | None, str | None], None]"
    ) -> None:
        """start: starts it, given how often that was done. note: publishes its pid, or its end."""
        self._start_child = start
        self._note = note
        self.child: Child | None = None
        self._wanted = False
        self._renewing = False
        self._runs = 0
        self._started = 0.0
        self._pause = FIRST_PAUSE
        self.due: float | None = None

    def want(self) -> None:
        """Start it, unless it runs or its next start is due anyway."""
        self._wanted = True
        if self.child is None and self.due is None:
            self._start()

    def renew(self) -> None:
        """Let it come back with new settings, if it is there."""
        self._renewing = self.child is not None
        self._ask_to_end()

    def stop(self) -> None:
        """End it until it is wanted again."""
        self._wanted, self.due = False, None
        self._ask_to_end()

    def tick(self) -> None:
        """Do what is due: kill what did not end in time, or start it again."""
        if self.due is None or time.monotonic() < self.due:
            return
        self.due = None
        if self.child is not None:
            self.child.signal_group(signal.SIGKILL)
        else:
            self._start()

    def ended(self, child: Child, code: int) -> None:
        """Note that it was reaped, and when it is to come back."""
        self.child, self.due = None, None
        child.bury(code)
        self._over(f"ended with code {code}")

    def _over(self, how: str) -> None:
        self._note(None, how)
        if self._wanted:
            self.due = time.monotonic() + self._next_pause()

    def _next_pause(self) -> float:
        renewing, self._renewing = self._renewing, False
        if renewing:
            return 0.0
        if time.monotonic() - self._started >= HEALTHY:
            self._pause = FIRST_PAUSE
        pause = self._pause
        self._pause = min(2 * pause, LONGEST_PAUSE)
        return pause

    def _ask_to_end(self) -> None:
        if self.child is not None:
            self.child.signal_group(signal.SIGTERM)
            self.due = time.monotonic() + STOP_TIME

    def _start(self) -> None:
        self._runs += 1
        self._started = time.monotonic()
        try:
            self.child = self._start_child(self._runs)
        except (OSError, MemoryError) as error:
            self._over(f"cannot be started: {why(error)}")
            return
        self._note(self.child.pid, None)

# SPDX-License-Identifier: Apache-2.0
"""A process that PID 1 runs, with everything that descends from it."""

import contextlib
import os
import selectors
import signal
import subprocess

from sandbox import processes
from sandbox.pid1.log import Log


class Child:
    """One run of a command in a session of its own. PID 1 reaps it and then calls `bury`."""

    def __init__(
        self,
        command: "list[str]",
        environ: "dict[str, str]",
        mark: "tuple[str, str]",
        selector: selectors.BaseSelector,
        log: Log,
    ) -> None:
        """Start it; what it prints goes to `log`, from the `selector`'s events.

        mark: a variable and its value, by which descendants that left the session are found.
        Raises OSError or MemoryError when the command cannot be started.
        """
        self._mark = "=".join(mark)
        self._selector = selector
        self._log = log
        self._reader, writer = os.pipe()
        try:
            # Before there is a process: afterwards nothing may fail, or nobody would know of it.
            os.set_blocking(self._reader, False)
            selector.register(self._reader, selectors.EVENT_READ, self._pump)
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                env={**environ, mark[0]: mark[1]},
                start_new_session=True,
            )
        except (OSError, MemoryError):
            with contextlib.suppress(KeyError):
                selector.unregister(self._reader)
            os.close(self._reader)
            raise
        finally:
            os.close(writer)

    @property
    def pid(self) -> int:
        """Return its process id, which is also its group's."""
        return self._process.pid

    def signal(self, number: int) -> None:
        """Send a signal to it alone."""
        processes.kill({self.pid}, number)

    def signal_group(self, number: int) -> None:
        """Send a signal to its whole group."""
        processes.kill_group(self.pid, number)

    def bury(self, code: int) -> None:
        """It was reaped with `code`: end what it left behind and read its last words."""
        self._process.returncode = code  # reaped by PID 1, not by subprocess
        self.signal_group(signal.SIGKILL)
        processes.kill(processes.marked(self._mark))
        self._pump()

    def _pump(self) -> None:
        if self._reader >= 0 and not self._log.pump(self._reader):
            self._selector.unregister(self._reader)
            os.close(self._reader)
            self._reader = -1

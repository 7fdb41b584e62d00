# SPDX-License-Identifier: Apache-2.0
"""Runs a program that must not outlive whoever started it: `python guard.py PROGRAM ...`, its stdin held open.

When stdin ends, however its holder died, the program is asked to end, and a moment later killed with all its
children. So a stand-in that is killed leaves nothing behind. SIGUSR1 kills the program at once.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading

GRACE_SECONDS = 5.0


def main() -> int:
    """Run the program to its end and return its exit code."""
    # Listening sockets that are handed down keep their numbers.
    child = subprocess.Popen(
        sys.argv[1:], stdin=subprocess.DEVNULL, close_fds=False, start_new_session=True
    )
    signal.signal(signal.SIGUSR1, lambda *_: kill(child))
    threading.Thread(target=end_with_stdin, args=(child,), daemon=True).start()
    return child.wait()


def end_with_stdin(child: "subprocess.Popen[bytes]") -> None:
    """Wait for the end of stdin, then end the program."""
    while os.read(0, 1024):
        pass
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(GRACE_SECONDS)
    kill(child)


def kill(child: "subprocess.Popen[bytes]") -> None:
    """Kill the program and its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())

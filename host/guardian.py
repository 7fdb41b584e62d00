# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Starts the supervisor again when that was killed. The supervisor does the same for this one.

    python guardian.py SUPERVISOR < what to start it with

Standard input is a socket of the supervisor's. Each line on it is what the next supervisor is to be given, secrets
too: they are in the memory of these two and in workerd's environment, nowhere else. The end of the lines is the
supervisor's end. One that stops in order ends its guardian first.
"""

import json
import os
import sys
import time

TYPE_CHECKING = False  # `typing` would stay in its memory; checkers know this name
if TYPE_CHECKING:
    from typing import Any

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before a supervisor is started, and again where that failed: each time twice as long."""
ALREADY_RUNNING = 3


def main(supervisor: str) -> None:
    """Wait for the supervisor's end; then give another one what the last line said."""
    settings = None
    for line in sys.stdin:
        if line.endswith("\n"):
            settings = json.loads(line)
    wait = FIRST_WAIT
    while settings is not None:
        time.sleep(wait)
        # Looked for at the last moment: the deployment may have been removed meanwhile.
        if not os.path.isdir("run") or start(supervisor, settings) in (0, ALREADY_RUNNING):
            return
        wait = min(2 * wait, LONGEST_WAIT)


def start(supervisor: str, settings: "dict[str, Any]") -> int:
    """Start a supervisor in this folder and return its exit code; what it has to say is in its log."""
    import subprocess  # only now: this process mostly waits, and should be small

    given = settings | {"guardian": os.getpid(), "revived": settings.get("revived", 0) + 1}
    done = subprocess.run(
        [sys.executable, supervisor, "run", "--folder", os.getcwd()],
        input=json.dumps(given),
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode


if __name__ == "__main__":
    main(sys.argv[1])

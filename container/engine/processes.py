# SPDX-License-Identifier: Apache-2.0
"""Finding and ending what a sandbox left, by the mark that all of its processes inherit."""

import os
import signal
import subprocess
import sys
import time

MARK = "SANDBOX_ID"
KILL_SECONDS = 5.0


def kill_marked(sandbox: str) -> None:
    """Kill every process of a sandbox until none is left, or KILL_SECONDS are over."""
    end = time.monotonic() + KILL_SECONDS
    while (pids := _marked(f"{MARK}={sandbox}")) and time.monotonic() < end:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        time.sleep(0.01)


def _marked(variable: str) -> "set[int]":
    if sys.platform.startswith("linux"):
        return _marked_in_proc(variable)
    # With -E, ps adds the environment of the caller's own processes to their commands.
    listing = subprocess.run(
        ["ps", "-axww", "-E", "-o", "pid=,command="],
        capture_output=True,
        text=True,
        errors="replace",
        check=True,
    ).stdout
    lines = (line.split(None, 1) for line in listing.splitlines())
    return {int(line[0]) for line in lines if len(line) == 2 and variable in line[1].split()}


def _marked_in_proc(variable: str) -> "set[int]":
    wanted = b"\0" + variable.encode() + b"\0"
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if wanted in b"\0" + file.read() + b"\0":
                        found.add(int(name))
            except OSError:  # gone, or of another user
                continue
    return found

# SPDX-License-Identifier: Apache-2.0
"""Processes of this sandbox: who descends from PID 1, who carries a mark, and their end."""

import contextlib
import os
import signal
import subprocess
import sys
import time

_LINUX = sys.platform.startswith("linux")
KILL_SECONDS = 5.0


class Process:
    """One process: `rss` in bytes."""

    __slots__ = ("name", "parent", "pid", "rss")

    def __init__(self, pid: int, parent: int, rss: int, name: str) -> None:
        self.pid = pid
        self.parent = parent
        self.rss = rss
        self.name = name


def table() -> "dict[int, Process]":
    """Return all processes that can be seen, by pid; zombies are left out."""
    found = _table_of_proc() if _LINUX else _table_of_ps()
    return {process.pid: process for process in found}


def descendants(root: int) -> "list[Process]":
    """Return every process below `root`, parents first."""
    processes = table()
    children: dict[int, list[Process]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    queue = [root]
    while queue:
        below = children.pop(queue.pop(0), [])
        found += below
        queue += [process.pid for process in below]
    return found


def marked(variable: str) -> "set[int]":
    """Return the processes that were started with `variable` ("NAME=value") in their environment.

    It finds those that left their parent and their group; on systems without /proc none.
    """
    if not _LINUX:
        return set()
    wanted = b"\0" + variable.encode() + b"\0"
    found = set()
    try:
        names = os.listdir("/proc")
    except OSError:  # no descriptor is left for it
        return set()
    for name in names:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if wanted in b"\0" + file.read() + b"\0":
                        found.add(int(name))
            except OSError:  # gone, or not ours
                continue
    return found - {os.getpid()}


def kill(pids: "set[int]", number: int = signal.SIGKILL) -> None:
    """Send a signal to each process that still exists."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def kill_group(group: int, number: int) -> None:
    """Send a signal to a process group that may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def kill_all_below(root: int, mark: str) -> bool:
    """Kill every descendant of `root` and every marked process, until none is left; False when some survive that."""
    end = time.monotonic() + KILL_SECONDS
    while pids := {process.pid for process in descendants(root)} | marked(mark):
        kill(pids)
        _reap()
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def adopt_orphans() -> None:
    """Make orphaned descendants children of this process where the system can (Linux)."""
    if not _LINUX or os.getpid() == 1:
        return
    import ctypes

    set_child_subreaper = 36
    ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _table_of_proc() -> "list[Process]":
    page = os.sysconf("SC_PAGE_SIZE")
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            continue
        # The name is in parentheses and may hold anything, parentheses too.
        title = text[text.index("(") + 1 : text.rindex(")")]
        fields = text[text.rindex(")") + 2 :].split()
        if fields[0] not in "ZX":
            found.append(Process(int(name), int(fields[1]), int(fields[21]) * page, title))
    return found


def _table_of_ps() -> "list[Process]":
    command = ["ps", "-axo", "pid=,ppid=,rss=,state=,comm="]
    found = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ps:
        listing = ps.communicate()[0]
    for line in listing.splitlines():
        pid, parent, rss, state, name = line.split(None, 4)
        if not state.startswith("Z") and int(pid) not in (ps.pid, int(parent)):
            found.append(Process(int(pid), int(parent), int(rss) * 1024, os.path.basename(name)))
    return found

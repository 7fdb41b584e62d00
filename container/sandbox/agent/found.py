# SPDX-License-Identifier: Apache-2.0
"""What is in Hermes' home of that which can be declared, each thing as one digest."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import stat
from collections.abc import Iterator

from sandbox.state.members import CACHE_FOLDERS

# For type checkers only: see cli.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SOUL = "soul"
SKILLS, MEMORIES, CONFIG, JOBS = "skills", "memories", "config", "jobs"
MEMORY_FILES = ("MEMORY.md", "USER.md")
# The digest of that of which nobody can tell what it is: it differs from all that was laid.
UNREADABLE = "unreadable"
# What an archive may have; more than that was not laid by us, and is not read to its end.
FILES = 2000
UNPACKED = 32 << 20
_DEEPEST = 64
_LARGE = "more than can be declared"
# What decides of a job what it does and when, as Hermes keeps it.
_OF_A_JOB = (
    "name",
    "prompt",
    "schedule",
    "skills",
    "deliver",
    "model",
    "provider",
    "base_url",
    "script",
    "context_from",
    "enabled_toolsets",
    "workdir",
    "no_agent",
    "attach_to_session",
    "enabled",
)


def path_of(item: str) -> str:
    """Return where a soul, a skill or a memory lies in a home, and in an archive."""
    return "SOUL.md" if item == SOUL else item


def is_file(item: str) -> bool:
    """Tell whether an item is a file or folder of its own."""
    return not item.startswith((f"{CONFIG}/", f"{JOBS}/"))


def digest(value: object) -> str:
    """Return the digest of a value as JSON has it."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def job_digest(job: dict[str, Any]) -> str:
    """Return the digest of a job's record without what its runs change."""
    repeat = job.get("repeat")
    times = repeat.get("times") if isinstance(repeat, dict) else None
    return digest([times, *((name, job.get(name)) for name in _OF_A_JOB)])


def job_ends(job: dict[str, Any]) -> bool:
    """Tell whether a job is gone some day because it has done its work."""
    schedule, repeat = job.get("schedule"), job.get("repeat")
    once = isinstance(schedule, dict) and schedule.get("kind") == "once"
    return once or (isinstance(repeat, dict) and repeat.get("times") is not None)


class Tree:
    """A file or folder as it is on the disk: whether it is there, and its digest when asked.

    Names, contents and whether a file may be run count; caches, times and empty folders do not.
    """

    def __init__(self, root: str, item: str) -> None:
        self._path = os.path.join(root, path_of(item))
        self._status = _lstat(self._path)
        # A folder on the way that leads elsewhere, or is none: what lies behind it is not looked at.
        way = _lstat(os.path.dirname(self._path)) if "/" in item else None
        self.elsewhere = way is not None and not stat.S_ISDIR(way.st_mode)
        # An empty memory is none.
        nothing = self._status is None or (item.startswith(MEMORIES) and not self._status.st_size)
        self.exists = not nothing and not self.elsewhere

    def signature(self) -> str:
        """Return what differs as soon as something was written, in most cases; costs no reading."""
        try:
            return digest([[name, *_marks(status)] for name, _path, status in self._entries()])
        except OSError:
            return UNREADABLE

    def digest_if_any(self) -> str | None:
        """Return the digest, None where there is nothing."""
        if not self.exists:
            return UNREADABLE if self.elsewhere else None
        total = 0
        lines: list[list[object]] = []
        try:
            for name, path, status in self._entries():
                total += status.st_size
                if len(lines) >= FILES or total > UNPACKED:
                    return _LARGE
                lines.append([name, bool(status.st_mode & stat.S_IXUSR), _content(path, status)])
        except OSError:  # what is going on there cannot be told
            return UNREADABLE
        return digest(lines)

    def _entries(self) -> Iterator[tuple[str, str, os.stat_result]]:
        if self._status is not None and stat.S_ISDIR(self._status.st_mode):
            yield from itertools.islice(_walk(self._path, ""), FILES + 1)
        elif self._status is not None:
            yield "", self._path, self._status


def skills_of(root: str) -> list[str]:
    """Return the names of the folders with skills below a home or an unpacked archive."""
    folder = os.path.join(root, SKILLS)
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def leaves(config: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[list[str], Any]]:
    """Yield each value of a configuration with the keys that lead to it; a list is one value."""
    for key, value in config.items():
        path = (*above, str(key))
        if isinstance(value, dict) and value:
            yield from leaves(value, path)
        else:
            yield [*path], value


def _walk(root: str, folder: str) -> Iterator[tuple[str, str, os.stat_result]]:
    """Yield what is no folder, in the order of the names, and no more than is of use."""
    for entry in sorted(os.scandir(os.path.join(root, folder)), key=lambda entry: entry.name):
        name = os.path.join(folder, entry.name)
        if entry.is_dir(follow_symlinks=False) and name.count("/") < _DEEPEST:
            if entry.name not in CACHE_FOLDERS:
                yield from _walk(root, name)
        elif not name.endswith((".pyc", ".pyo")):
            yield name, entry.path, entry.stat(follow_symlinks=False)


def _marks(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_mode, status.st_ino]


def _content(path: str, status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return f"a link to {os.readlink(path)}"
    if not stat.S_ISREG(status.st_mode):
        return "no file"
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None

# SPDX-License-Identifier: Apache-2.0
"""`sandbox restore`: puts a saved state in place before Hermes starts, wholly or not at all."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from sandbox import archive, databases
from sandbox.errors import TOO_LATE, SandboxError
from sandbox.members import state_members
from sandbox.places import Places, read_text, write_private
from sandbox.swap import settle, swap


def restore(places: Places, source: BinaryIO) -> None:
    """Unpack and verify the archive in `source`, then make it HERMES_HOME.

    Raises SandboxError: 66 after `go`, 70 when the archive is damaged. Until the last step
    HERMES_HOME is as it was.
    """
    with _before_go(places):
        stage = _new_stage(places)
        try:
            archive.unpack(source, stage)
            swap(places, stage)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        _mark(places)


def begin_empty(places: Places) -> None:
    """Make HERMES_HOME an empty folder: there is no state to restore."""
    with _before_go(places):
        swap(places, _new_stage(places))
        _mark(places)


def keep(places: Places) -> None:
    """Accept the HERMES_HOME that is on the disk, as a snapshot brought it.

    Raises SandboxError 71 when a database in it is damaged.
    """
    with _before_go(places):
        os.makedirs(places.home, 0o700, exist_ok=True)
        copy = places.beside_home("checking")
        for member in state_members(places.home):
            if member.kind == "database":
                try:
                    databases.copy(member.path, copy, member.name)
                finally:
                    _remove(copy)
        _mark(places)


@contextmanager
def _before_go(places: Places) -> Iterator[None]:
    with open(places.in_run("restore.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(places.in_run("go")):
            raise SandboxError(TOO_LATE, "Hermes has been started: its state is not replaced.")
        _remove(places.in_run("restored"))
        settle(places)
        yield


def _new_stage(places: Places) -> str:
    stage = places.beside_home("restoring")
    shutil.rmtree(stage, ignore_errors=True)
    os.makedirs(stage, 0o700)
    return stage


def _mark(places: Places) -> None:
    write_private(places.in_run("restored"), read_text(places.in_run("boot")) or "")


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)

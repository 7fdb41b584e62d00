# SPDX-License-Identifier: Apache-2.0
"""`sandbox restore`: puts a saved state in place before Hermes starts, wholly or not at all."""

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from sandbox.errors import DAMAGED_STATE, NOT_RESTORED, TOO_LATE, SandboxError
from sandbox.paths import Paths, read_text, write_private
from sandbox.state import archive, databases
from sandbox.state.members import MEMORY, Member, state_members
from sandbox.state.replace_home import replace_home, settle

# What reading an archive may take, whatever it says of itself.
_ADDRESS_SPACE = 512 << 20


def restore(paths: Paths, source: BinaryIO) -> None:
    """Unpack and verify the archive in `source`, then make it HERMES_HOME.

    Raises SandboxError: 66 after `go`, 70 when the archive's bytes prove that it must not be
    used, 73 or 74 when the machine could not do it. Until the last step HERMES_HOME is as it was.
    """
    with _before_go(paths):
        stage = _new_stage(paths, "restoring")
        try:
            _unpack(source, stage)
            replace_home(paths, stage)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        _mark(paths)


def check(paths: Paths, source: BinaryIO) -> None:
    """Do all that a restore of the archive in `source` would, but for the last step.

    Hermes may run. Raises SandboxError as `restore` does.
    """
    with paths.locked("check.lock"):
        stage = _new_stage(paths, "checking")
        try:
            _unpack(source, stage)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def restore_sign_ins(paths: Paths, source: BinaryIO) -> None:
    """Put the keys and sign-ins in `source` in the place of those in HERMES_HOME.

    Raises SandboxError: 66 after `go`, 67 before a restore, and as `restore` does; what is in
    HERMES_HOME stays when the archive cannot be used.
    """
    if not paths.restored():
        raise SandboxError(NOT_RESTORED, "Nothing was restored in this boot: use restore first.")
    stage = _new_stage(paths, "signing-in")
    try:
        _bound_memory()
        archive.unpack(source, stage)
        with _before_go(paths):
            _remove_private(paths.home)
            for member in state_members(stage, []):
                _put(member, os.path.join(paths.home, member.name))
            _mark(paths)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _remove_private(home: str) -> None:
    for member in reversed([*state_members(home, [])]):
        if not member.private:
            continue
        if member.kind != "folder":
            _remove(member.path)
            continue
        with suppress(OSError):  # what is no state may lie in it
            os.rmdir(member.path)


def _put(member: Member, path: str) -> None:
    """Put an entry where it belongs, unless the state has something else there by now."""
    with suppress(FileExistsError, IsADirectoryError, NotADirectoryError):
        if member.kind == "folder":
            os.makedirs(path, member.mode | 0o700)
        else:
            os.replace(member.path, path)


def _bound_memory() -> None:
    with suppress(ValueError, OSError):  # not every system has this limit
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, resource.RLIM_INFINITY))


def _unpack(source: BinaryIO, stage: str) -> None:
    _bound_memory()
    header = archive.unpack(source, stage)
    if MEMORY not in header["databases"]:
        raise archive.refused(f"Hermes' memory, {MEMORY}, is not in it")
    archive.judge(databases.memory, os.path.join(stage, MEMORY), MEMORY)


def begin_empty(paths: Paths) -> None:
    """Make HERMES_HOME an empty folder: there is no state to restore."""
    with _before_go(paths):
        replace_home(paths, _new_stage(paths, "restoring"))
        _mark(paths)


def keep(paths: Paths) -> None:
    """Accept the HERMES_HOME that is on the disk, as a snapshot brought it.

    Raises SandboxError 71 when one of Hermes' databases in it is damaged, or its memory is gone.
    """
    with _before_go(paths):
        os.makedirs(paths.home, 0o700, exist_ok=True)
        copy, found = paths.beside_home("keeping"), set()
        for member in state_members(paths.home, []):
            if member.kind != "database":
                continue
            try:
                databases.copy(member.path, copy, member.name)
                if member.name == MEMORY:
                    databases.memory(copy, MEMORY)
            finally:
                _remove(copy)
            found.add(member.name)
        if MEMORY not in found:
            raise SandboxError(DAMAGED_STATE, f"There is no {MEMORY} in Hermes' home.")
        _mark(paths)


@contextmanager
def _before_go(paths: Paths) -> Iterator[None]:
    with paths.locked("restore.lock"):
        if os.path.exists(paths.in_run("go")):
            raise SandboxError(TOO_LATE, "Hermes has been started: its state is not replaced.")
        _remove(paths.in_run("restored"))
        settle(paths)
        yield


def _new_stage(paths: Paths, suffix: str) -> str:
    stage = paths.beside_home(suffix)
    shutil.rmtree(stage, ignore_errors=True)
    os.makedirs(stage, 0o700)
    return stage


def _mark(paths: Paths) -> None:
    write_private(paths.in_run("restored"), read_text(paths.in_run("boot")) or "")


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)

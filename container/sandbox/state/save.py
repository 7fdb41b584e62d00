# SPDX-License-Identifier: Apache-2.0
"""`sandbox save`: a consistent archive of a state that may be in use; one of its sign-ins."""

from __future__ import annotations

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from sandbox.errors import (
    DAMAGED_STATE,
    DISK_FULL,
    NOT_RESTORED,
    OK,
    TOO_LARGE,
    UNCHANGED,
    SandboxError,
)
from sandbox.paths import Paths, read_text
from sandbox.state import archive, databases
from sandbox.state.members import (
    MEMBERS,
    MEMORY,
    NO_PERMISSION,
    UNPACKED,
    Member,
    note,
    state_members,
)

# So many are named of what is left out, for a header has bounds, and of what is too large.
_NAMED = 20
_LARGEST = 3


def save(paths: Paths, unless: str, output: BinaryIO) -> int:
    """Write the archive of the state, without keys and sign-ins, to `output`.

    The archive is made in a file first: nothing is written before all of it is known to be
    good. Returns 3, and writes nothing, when the state's digest equals `unless`. Raises
    SandboxError: 67 when this boot's state was never restored, 71 when it is damaged or
    incomplete, 72 when it is larger than a backup may be, 73 when the disk is full, 75 when
    another save does not end.
    """
    with _stage(paths) as stage:
        left_out: list[str] = []
        members = [item for item in state_members(paths.home, left_out) if not item.private]
        _require_memory(members)
        return _Save(paths, stage, members, archive.PACKED, left_out).write(unless, output)


def save_sign_ins(paths: Paths, unless: str, output: BinaryIO) -> int:
    """Write an archive of just the keys and sign-ins in Hermes' home, as `save` does the rest."""
    with _stage(paths) as stage:
        members = _with_folders([*state_members(paths.home, [])])
        return _Save(paths, stage, members, archive.SIGN_INS, []).write(unless, output)


@contextmanager
def _stage(paths: Paths) -> Iterator[str]:
    """Have a folder beside the home, as the only save."""
    if not paths.restored():
        raise SandboxError(NOT_RESTORED, "Nothing was restored in this boot: nothing to save.")
    with paths.locked("save.lock"):
        _sweep(paths)
        stage = tempfile.mkdtemp(
            prefix=f"{os.path.basename(paths.home)}.saving-", dir=os.path.dirname(paths.home)
        )
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def _with_folders(members: list[Member]) -> list[Member]:
    """Return the private ones, and the folders in which they lie."""
    needed: set[str] = set()
    for member in members:
        if member.private:
            parts = member.name.split("/")
            needed |= {"/".join(parts[:depth]) for depth in range(1, len(parts))}
    return [item for item in members if item.private or item.name in needed]


class _Save:
    """One archive in the making."""

    def __init__(
        self,
        paths: Paths,
        stage: str,
        members: list[Member],
        limit: int,
        left_out: list[str],
    ) -> None:
        self._paths = paths
        self._stage = stage
        self._members = members
        self._limit = limit
        self._left_out = left_out
        self._require_bounds()
        self._copies = _copy_databases(members, stage)
        self._members = [item for item in members if item.beside not in self._copies]

    def write(self, unless: str, output: BinaryIO) -> int:
        """Make the archive and write it, or return 3 when its digest equals `unless`."""
        memory = databases.memory(self._copies[MEMORY], MEMORY) if MEMORY in self._copies else {}
        try:
            if unless and self._digest() == unless:
                return UNCHANGED
            with open(os.path.join(self._stage, "archive"), "w+b") as file:
                header = self._pack(file)
                if unless == header["digest"]:
                    return UNCHANGED
                header = {**header, **memory, "leftOut": _named(self._left_out)}
                output.write(json.dumps(header).encode() + b"\n")
                shutil.copyfileobj(file, output, archive.CHUNK)
                output.flush()
        except archive.Overflow:
            raise self._too_large(f"pack to more than {self._limit >> 20} MB") from None
        return OK

    def _pack(self, file: BinaryIO) -> dict[str, Any]:
        """Write the archive into `file`, go back to its beginning and return its header."""
        writer = archive.Writer(file, self._limit)
        for member in self._members:
            # What has vanished is no state any more; what is still there may not be read.
            done = writer.add(member, self._copies.get(member.name))
            if not done and os.path.lexists(member.path):
                self._left_out.append(note(member.name, NO_PERMISSION))
        header = writer.finish(read_text(self._paths.in_run("boot")) or "")
        file.flush()
        file.seek(0)
        return header

    def _digest(self) -> str:
        digest = archive.Digest()
        for member in self._members:
            content = member.target
            if member.kind in ("file", "database"):
                hashed = archive.hash_file(self._copies.get(member.name, member.path))
                if hashed is None:
                    continue
                content = hashed
            digest.add(member.name, member.kind, member.mode, content)
        return digest.hex()

    def _require_bounds(self) -> None:
        """Refuse, before anything is copied, what no archive may have."""
        if len(self._members) > MEMBERS:
            raise self._too_large(f"are more than {MEMBERS} files")
        if sum(member.size for member in self._members) > UNPACKED:
            raise self._too_large(f"are more than {UNPACKED >> 20} MB")

    def _too_large(self, why: str) -> SandboxError:
        what = "Hermes' files" if self._limit == archive.PACKED else "Hermes' keys and sign-ins"
        largest = sorted(self._members, key=lambda member: member.size, reverse=True)[:_LARGEST]
        named = "; ".join(note(item.name, f"{_mb(item.size)} MB") for item in largest)
        return SandboxError(TOO_LARGE, f"{what} {why}. The largest: {named}.")


def _mb(size: int) -> int:
    return -(-size >> 20)


def _require_memory(members: list[Member]) -> None:
    """Refuse a state without its main database: Hermes makes one as soon as it runs."""
    if not any(item.name == MEMORY and item.kind == "database" for item in members):
        raise SandboxError(
            DAMAGED_STATE, f"{MEMORY} in Hermes' home is missing, empty or no file: not saved."
        )


def _copy_databases(members: list[Member], stage: str) -> dict[str, str]:
    """Copy Hermes' own databases, which must be sound, and those of others that let themselves."""
    copies: dict[str, str] = {}
    for member in members:
        copy = os.path.join(stage, f"{len(copies)}.db")
        if member.kind == "database":
            databases.copy(member.path, copy, member.name)
        elif not member.sqlite or not _copied(member, copy):
            continue
        copies[member.name] = copy
    return copies


def _copied(member: Member, copy: str) -> bool:
    """Copy a database of somebody else, which goes along as the file that it is where that fails."""
    try:
        databases.copy(member.path, copy, member.name, own=False)
    except SandboxError as error:
        if error.code == DISK_FULL:
            raise
        with suppress(FileNotFoundError):  # where the database itself has vanished
            os.unlink(copy)
        return False
    return True


def _named(left_out: list[str]) -> list[str]:
    more = len(left_out) - _NAMED
    return [*left_out[:_NAMED], f"and {more} more"] if more > 0 else left_out


def _sweep(paths: Paths) -> None:
    """Remove what a killed save left; the lock says that no other save is under way."""
    for stale in glob.glob(f"{glob.escape(paths.home)}.saving-*"):
        shutil.rmtree(stale, ignore_errors=True)

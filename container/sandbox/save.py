# SPDX-License-Identifier: Apache-2.0
"""`sandbox save`: a consistent archive of a state that may be in use."""

import glob
import json
import os
import shutil
import tempfile
from typing import BinaryIO

from sandbox import archive, databases
from sandbox.errors import (
    DAMAGED_STATE,
    DISK_FULL,
    NOT_RESTORED,
    OK,
    TOO_LARGE,
    UNCHANGED,
    SandboxError,
)
from sandbox.members import MEMBERS, MEMORY, NO_PERMISSION, UNPACKED, Member, note, state_members
from sandbox.places import Places, read_text

# So many are named of what is left out, for a header has bounds, and of what is too large.
_NAMED = 20
_LARGEST = 3


def save(places: Places, unless: str, output: BinaryIO) -> int:
    """Write the archive of the state to `output`.

    The archive is made in a file first: nothing is written before all of it is known to be
    good. Returns 3, and writes nothing, when the state's digest equals `unless`. Raises
    SandboxError: 67 when this boot's state was never restored, 71 when it is damaged or
    incomplete, 72 when it is larger than a backup may be, 73 when the disk is full, 75 when
    another save does not end.
    """
    if not places.restored():
        raise SandboxError(NOT_RESTORED, "Nothing was restored in this boot: nothing to save.")
    with places.locked("save.lock"):
        _sweep(places)
        stage = tempfile.mkdtemp(
            prefix=f"{os.path.basename(places.home)}.saving-", dir=os.path.dirname(places.home)
        )
        try:
            return _save(places, stage, unless, output)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def _save(places: Places, stage: str, unless: str, output: BinaryIO) -> int:
    left_out: list[str] = []
    members = list(state_members(places.home, left_out))
    _require_bounds(members)
    _require_memory(members)
    copies = _copy_databases(members, stage)
    memory = databases.memory(copies[MEMORY], MEMORY)
    members = [item for item in members if item.beside not in copies]
    try:
        if unless and _digest(members, copies) == unless:
            return UNCHANGED
        with open(os.path.join(stage, "archive"), "w+b") as file:
            header = _write(file, members, copies, left_out, read_text(places.in_run("boot")) or "")
            if unless == header["digest"]:
                return UNCHANGED
            header = {**header, **memory, "leftOut": _named(left_out)}
            output.write(json.dumps(header).encode() + b"\n")
            shutil.copyfileobj(file, output, archive.CHUNK)
            output.flush()
    except archive.Overflow:
        raise _too_large(members, f"packs to more than {archive.PACKED >> 20} MB") from None
    return OK


def _write(
    file: BinaryIO,
    members: "list[Member]",
    copies: "dict[str, str]",
    left_out: "list[str]",
    boot: str,
) -> dict:
    """Write the archive into `file`, go back to its beginning and return its header."""
    writer = archive.Writer(file)
    for member in members:
        # What has vanished is no state any more; what is still there may not be read.
        if not writer.add(member, copies.get(member.name)) and os.path.lexists(member.path):
            left_out.append(note(member.name, NO_PERMISSION))
    header = writer.finish(boot)
    file.flush()
    file.seek(0)
    return header


def _require_bounds(members: "list[Member]") -> None:
    """Refuse, before anything is copied, a state that no archive may have."""
    if len(members) > MEMBERS:
        raise _too_large(members, f"has more than {MEMBERS} files")
    if sum(member.size for member in members) > UNPACKED:
        raise _too_large(members, f"is larger than {UNPACKED >> 20} MB")


def _too_large(members: "list[Member]", why: str) -> SandboxError:
    largest = sorted(members, key=lambda member: member.size, reverse=True)[:_LARGEST]
    named = "; ".join(note(item.name, f"{_mb(item.size)} MB") for item in largest)
    return SandboxError(TOO_LARGE, f"The state {why}. Its largest files: {named}.")


def _mb(size: int) -> int:
    return -(-size >> 20)


def _require_memory(members: "list[Member]") -> None:
    """Refuse a state without its main database: Hermes makes one as soon as it runs."""
    if not any(item.name == MEMORY and item.kind == "database" for item in members):
        raise SandboxError(
            DAMAGED_STATE, f"{MEMORY} in Hermes' home is missing, empty or no file: not saved."
        )


def _copy_databases(members: "list[Member]", stage: str) -> "dict[str, str]":
    """Copy Hermes' own databases, which must be sound, and those of others that let themselves."""
    copies = {}
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
        if os.path.exists(copy):
            os.unlink(copy)
        return False
    return True


def _digest(members: "list[Member]", copies: "dict[str, str]") -> str:
    digest = archive.Digest()
    for member in members:
        content: str | None = member.target
        if member.kind in ("file", "database"):
            content = archive.hash_file(copies.get(member.name, member.path))
            if content is None:
                continue
        digest.add(member.name, member.kind, member.mode, content)
    return digest.hex()


def _named(left_out: "list[str]") -> "list[str]":
    more = len(left_out) - _NAMED
    return [*left_out[:_NAMED], f"and {more} more"] if more > 0 else left_out


def _sweep(places: Places) -> None:
    """Remove what a killed save left; the lock says that no other save is under way."""
    for stale in glob.glob(f"{glob.escape(places.home)}.saving-*"):
        shutil.rmtree(stale, ignore_errors=True)

# SPDX-License-Identifier: Apache-2.0
"""`sandbox save`: a consistent archive of a state that may be in use."""

import fcntl
import glob
import json
import os
import shutil
import tempfile
from typing import BinaryIO

from sandbox import archive, databases
from sandbox.errors import DAMAGED_STATE, NOT_RESTORED, OK, UNCHANGED, SandboxError
from sandbox.members import Member, state_members
from sandbox.places import Places, read_text


def save(places: Places, unless: str, output: BinaryIO) -> int:
    """Write the archive of the state to `output`.

    The archive is made in a file first: nothing is written before all of it is known to be
    good. Returns 3, and writes nothing, when the state's digest equals `unless`. Raises
    SandboxError: 67 when this boot's state was never restored, 71 when it is damaged or
    incomplete, 73 when the disk is full.
    """
    if not places.restored():
        raise SandboxError(NOT_RESTORED, "Nothing was restored in this boot: nothing to save.")
    with open(places.in_run("save.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _sweep(places)
        stage = tempfile.mkdtemp(
            prefix=f"{os.path.basename(places.home)}.saving-", dir=os.path.dirname(places.home)
        )
        try:
            return _save(places, stage, unless, output)
        finally:
            shutil.rmtree(stage, ignore_errors=True)


def _save(places: Places, stage: str, unless: str, output: BinaryIO) -> int:
    members = list(state_members(places.home))
    _require_memory(places, members)
    copies = _copy_databases(members, stage)
    if unless and _digest(members, copies) == unless:
        return UNCHANGED
    path = os.path.join(stage, "archive")
    with open(path, "w+b") as file:
        writer = archive.Writer(file)
        for member in members:
            writer.add(member, copies.get(member.name))
        header = writer.finish(read_text(places.in_run("boot")) or "")
        file.flush()
        if unless == header["digest"]:
            return UNCHANGED
        file.seek(0)
        output.write(json.dumps(header).encode() + b"\n")
        shutil.copyfileobj(file, output, archive.CHUNK)
        output.flush()
    return OK


def _require_memory(places: Places, members: "list[Member]") -> None:
    """Refuse a state that lost its main database: Hermes made one as soon as it ran."""
    if places.state().get("everReady") and not any(item.name == "state.db" for item in members):
        raise SandboxError(DAMAGED_STATE, "state.db is missing from Hermes' home: not saved.")


def _copy_databases(members: "list[Member]", stage: str) -> "dict[str, str]":
    copies = {}
    for member in members:
        if member.kind == "database":
            copies[member.name] = os.path.join(stage, f"{len(copies)}.db")
            databases.copy(member.path, copies[member.name], member.name)
    return copies


def _digest(members: "list[Member]", copies: "dict[str, str]") -> str:
    digest = archive.Digest()
    for member in members:
        if member.kind == "file":
            content = archive.hash_file(member.path)
            if content is None:
                continue
        elif member.kind == "database":
            content = databases.fingerprint(copies[member.name])
        else:
            content = member.target
        digest.add(member.name, member.kind, member.mode, content)
    return digest.hex()


def _sweep(places: Places) -> None:
    """Remove what a killed save left; the lock says that no other save is under way."""
    for stale in glob.glob(f"{glob.escape(places.home)}.saving-*"):
        shutil.rmtree(stale, ignore_errors=True)

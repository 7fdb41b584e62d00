# SPDX-License-Identifier: Apache-2.0
"""SQLite databases: a consistent copy of a live one, its check, and its fingerprint."""

import contextlib
import hashlib
import os
import sqlite3
import urllib.parse

from sandbox.errors import DAMAGED_STATE, DISK_FULL, TEMPORARY, SandboxError

# Parts of the first page that change although nothing in the database did: journal mode,
# change counter, schema cookie (each copy counts it up), and the writer's version.
_VOLATILE = ((18, 20), (24, 28), (40, 44), (92, 100))

# What SQLite cannot write beside the database itself: its journal, and the index of that.
_CRAMPED = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)


def copy(source: str, target: str, name: str) -> None:
    """Copy a database that may be in use; writers of it are not blocked while it is in WAL mode.

    Raises SandboxError: 71 when `source` is damaged, 73 when the disk is full, 75 when it is
    locked for more than 10 s.
    """
    try:
        with _open(source, "rw") as original, _open(target, "rwc") as duplicate:
            original.backup(duplicate)
    except sqlite3.Error as error:
        raise _explain(error, name) from error
    check(target, name)


def check(path: str, name: str) -> None:
    """Raise SandboxError 71 unless SQLite finds nothing wrong with a database not in use."""
    try:
        with _open(path, "ro", "&immutable=1") as database:
            verdict = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise _explain(error, name) from error
    if verdict != "ok":
        reason = " ".join(verdict.split())  # SQLite's may have several lines
        raise SandboxError(DAMAGED_STATE, f"The database {name} is damaged: {reason}.")


def fingerprint(path: str) -> str:
    """Return a SHA-256 over the content of a database not in use, without what only ages."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        first = bytearray(file.read(4096))
        for start, end in _VOLATILE:
            first[start:end] = bytes(len(first[start:end]))
        digest.update(first)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _open(path: str, mode: str, more: str = "") -> "contextlib.closing[sqlite3.Connection]":
    location = urllib.parse.quote(os.fsencode(path))
    uri = f"file:{location}?mode={mode}{more}"
    return contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None))


def _explain(error: sqlite3.Error, name: str) -> SandboxError:
    code = getattr(error, "sqlite_errorcode", 0) or 0
    if code & 0xFF == sqlite3.SQLITE_FULL or code in _CRAMPED:
        return SandboxError(DISK_FULL, f"The disk is full: {name} could not be copied.")
    if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return SandboxError(TEMPORARY, f"The database {name} is locked.")
    return SandboxError(DAMAGED_STATE, f"The database {name} is damaged: {error}.")

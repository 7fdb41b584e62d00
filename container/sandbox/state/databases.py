# SPDX-License-Identifier: Apache-2.0
"""SQLite databases: a consistent copy of a live one, its check, and what tells Hermes' memory."""

import contextlib
import os
import re
import sqlite3
import urllib.parse

from sandbox.errors import DAMAGED_STATE, DISK_FULL, TEMPORARY, UNFINISHED, SandboxError

MAGIC = b"SQLite format 3\0"
# Parts of the first page that change although nothing in the database did: journal mode,
# change counter, schema cookie (each copy counts it up), and the writer's version.
_VOLATILE = ((18, 20), (24, 28), (40, 44), (92, 100))

# What SQLite cannot write beside the database itself: its journal, and the index of that.
_CRAMPED = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
# What proves that the bytes are bad. Anything else may be the machine's fault.
_BAD_BYTES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)
# `quick_check` tells of a page that could not be read as if the page were bad.
_UNREAD = re.compile(r"unable to get the page\. error code=(\d+)")
# The tables that Hermes' main database has had in every release.
_MEMORY = {
    "sessions": "SELECT count(*) FROM sessions",
    "messages": "SELECT count(*) FROM messages",
}


def copy(source: str, target: str, name: str, own: bool = True) -> None:
    """Copy a database that may be in use; writers of it are not blocked while it is in WAL mode.

    One that is not Hermes' `own` is not waited for long, and not mended where a crash left it.
    Raises SandboxError: 71 when `source` is damaged, 73 when the disk is full, 74 when it cannot
    be read, 75 when it is locked.
    """
    mode, patience = ("rw", 10.0) if own else ("ro", 1.0)
    try:
        with _open(source, mode, patience) as original, _open(target, "rwc") as duplicate:
            # The lock to read comes first: `backup` itself would wait for it without an end.
            original.execute("BEGIN")
            original.execute("SELECT count(*) FROM sqlite_master").fetchone()
            original.backup(duplicate)
    except sqlite3.Error as error:
        raise _explain(error, name) from error
    check(target, name)


def check(path: str, name: str) -> None:
    """Raise SandboxError 71 unless SQLite finds nothing wrong with a database not in use."""
    try:
        with _open(path, "ro&immutable=1") as database:
            verdict = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise _explain(error, name) from error
    if verdict != "ok":
        reason = " ".join(verdict.split())  # SQLite's may have several lines
        unread = _UNREAD.search(reason)
        if unread and int(unread[1]) & 0xFF not in _BAD_BYTES:
            raise SandboxError(UNFINISHED, f"The database {name} could not be read: {reason}.")
        raise SandboxError(DAMAGED_STATE, f"The database {name} is damaged: {reason}.")


def memory(path: str, name: str) -> "dict[str, int]":
    """Return how many sessions and messages Hermes' main database, not in use, remembers.

    Raises SandboxError 71 when it is a database of somebody else.
    """
    try:
        with _open(path, "ro&immutable=1") as database:
            query = "SELECT name FROM sqlite_master WHERE type = 'table'"
            tables = {row[0] for row in database.execute(query)}
            if not tables.issuperset(_MEMORY):
                raise SandboxError(DAMAGED_STATE, f"{name} is not the database of Hermes' memory.")
            return {table: database.execute(rows).fetchone()[0] for table, rows in _MEMORY.items()}
    except sqlite3.Error as error:
        raise _explain(error, name) from error


def without_age(first: bytes) -> bytes:
    """Return the beginning of a file, of a database's without what only ages."""
    if not first.startswith(MAGIC):
        return first
    timeless = bytearray(first)
    for start, end in _VOLATILE:
        timeless[start:end] = bytes(len(timeless[start:end]))
    return bytes(timeless)


def _open(path: str, mode: str, patience: float = 10.0) -> "contextlib.closing[sqlite3.Connection]":
    location = urllib.parse.quote(os.fsencode(path))
    uri = f"file:{location}?mode={mode}"
    return contextlib.closing(
        sqlite3.connect(uri, uri=True, timeout=patience, isolation_level=None)
    )


def _explain(error: sqlite3.Error, name: str) -> SandboxError:
    code = getattr(error, "sqlite_errorcode", 0) or 0
    if code & 0xFF == sqlite3.SQLITE_FULL or code in _CRAMPED:
        return SandboxError(DISK_FULL, f"The disk is full: {name} could not be copied.")
    if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return SandboxError(TEMPORARY, f"The database {name} is locked.")
    if code & 0xFF in _BAD_BYTES or code == sqlite3.SQLITE_IOERR_SHORT_READ:
        return SandboxError(DAMAGED_STATE, f"The database {name} is damaged: {error}.")
    return SandboxError(UNFINISHED, f"The database {name} could not be read: {error}.")

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups out of the files of a Durable Object that does not run: what `destroy` leaves on this machine."""

from __future__ import annotations

import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import IO, Any

from .backups import keep, path_for

OF_NO_OBJECT = "metadata.sqlite"
"""workerd's own, with the alarms."""
PACKED = b"\x1f\x8b"
"""How a file begins that a destroy of an earlier release left: the object's files, packed by tar and gzip."""
ROWS = ("*.sqlite", "*.sqlite-wal")


class NoBackup(Exception):
    """There is none in these files; the text says why."""


def newest(storage: Path, name: str, folder: Path) -> Path:
    """Write the newest backup that an object's files hold into a file of its own; return that file.

    storage: where the files are; name: of the deployment; folder: where backups are kept. Raises NoBackup, or OSError.
    """
    flaws = []
    for file in sorted(storage.rglob(ROWS[0])):
        if file.name == OF_NO_OBJECT:
            continue
        try:
            with closing(sqlite3.connect(file)) as rows:
                for backup, line in _generations(rows):
                    path = path_for(name, backup, folder)
                    try:
                        keep(path, backup, partial(_copy, rows, line, backup))
                    except ValueError as error:
                        flaws.append(str(error))
                    else:
                        return path
        except sqlite3.DatabaseError as error:
            flaws.append(f"{file.name}: {error}")
    raise NoBackup("; ".join(flaws))


def unpacked(archive: Path, name: str, folder: Path) -> Path:
    """Return the newest backup in what a destroy of an earlier release left, as a file in `folder`.

    Raises NoBackup, or OSError.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        try:
            with tarfile.open(archive) as packed:
                members = [one for one in packed if any(map(Path(one.name).match, ROWS))]
                packed.extractall(scratch, members, filter="data")
        except (tarfile.TarError, EOFError) as error:
            raise NoBackup(str(error)) from error
        return newest(Path(scratch), name, folder)


def _generations(rows: sqlite3.Connection) -> Iterator[tuple[dict[str, Any], str]]:
    """Return the sound ones, newest first: as the Worker describes each, and its first line."""
    columns = {row[1] for row in rows.execute("PRAGMA table_info(generations)")}
    if not columns:
        return
    # What an upload became keeps its bytes under another number; releases before that had no such column.
    body = "COALESCE(body, id)" if "body" in columns else "id"
    found = rows.execute(
        f"SELECT {body}, bytes, sha256, created, manifest FROM generations"  # noqa: S608 - one of two
        " WHERE state = 'good' ORDER BY id DESC"
    )
    for number, size, digest, created, line in found.fetchall():
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created / 1000))
        yield {"id": number, "bytes": size, "sha256": digest, "created": moment}, line


def _copy(rows: sqlite3.Connection, line: str, backup: dict[str, Any], out: IO[bytes]) -> None:
    out.write(f"{line}\n".encode())
    for (piece,) in rows.execute(
        "SELECT data FROM chunks WHERE generation = ? ORDER BY n", (backup["id"],)
    ):
        out.write(piece)

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that a deployment's Durable Object keeps its state in: whether they are the ones it had, and sound."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...module_utils.cards import Card, Problem
from ..state.backups import on_disk
from ..state.folder import StateFolder
from ..state.stored import OF_NO_OBJECT
from .config import STORAGE_KEY

NOTE = "storage"


class Storage:
    """Knows which storage a deployment had when the Worker was last asked: an object without one begins anew."""

    def __init__(self, deployment: StateFolder) -> None:
        self.deployment = deployment
        self.folder = deployment.folder / "storage"

    def known(self) -> dict[str, Any] | None:
        """Return what was noted last: {"id", "backups"}; None before the first note."""
        try:
            noted: dict[str, Any] = json.loads(self.deployment.note(NOTE))
            return noted
        except ValueError:
            return None

    def note(self, told: dict[str, Any] | None) -> None:
        """Note what the Worker tells of its storage, in /api/health; what it keeps is known then."""
        if told:
            kept = {"id": told["id"], "backups": told["backups"]}
            self.deployment.keep_note(NOTE, json.dumps(kept))

    def another(self, told: dict[str, Any] | None) -> str | None:
        """Return words on a running Worker whose storage is not the noted one; None when it is."""
        known = self.known()
        if not told or known is None or known["id"] == told["id"]:
            return None
        return f"began anew at {told['since']}; the one before had {counted(known['backups'])}"

    def flaw(self) -> str | None:
        """Return what is wrong with the files while nothing runs from them; None when they are as they should be."""
        known = self.known()
        found = sorted((self.folder / STORAGE_KEY).glob("*.sqlite"))
        try:
            marks = [mark_of(path) for path in found]
        except sqlite3.DatabaseError as error:
            return f"is damaged ({error})"
        if known is None or any(known["id"].encode() in mark for mark in marks):
            return None
        objects = [path for path in found if path.name != OF_NO_OBJECT]
        if not objects:
            return "is gone"
        empty = not any(marks)
        return "is empty" if empty else "is another one than it had"

    def problems(self, command: Callable[..., str]) -> list[Problem]:
        """Return why Hermes must not be started: it would begin with no memory, or not at all.

        command: returns what a person types for another playbook.
        """
        flaw = self.flaw()
        if flaw is None:
            return []
        known = self.known() or {}
        had = f"; it had {counted(known['backups'])}" if known.get("backups") else ""
        where = self.deployment.shown(self.folder)
        return [self._problem(f"its storage ({where}) {flaw}{had}.", command)]

    def lost(self, told: dict[str, Any] | None, command: Callable[..., str]) -> Card | None:
        """Return the card for a running Worker that lost what was noted; None when it did not."""
        words = self.another(told)
        return Card([self._problem(f"its storage {words}.", command)]) if words else None

    def _problem(self, sentence: str, command: Callable[..., str]) -> Problem:
        kept = on_disk(self.deployment)
        then = "; no backup is kept beside it"
        if kept:
            restore = command("restore", hermes_backup=self.deployment.shown(kept[0]))
            then = f", and then `{restore}` for the newest backup that is kept"
        remedy = (
            f"put its files back; or have it begin empty, by `{command('deploy', hermes_forget='true')}`"
            f" (what is there now is set aside){then}."
        )
        return Problem(self.deployment.name, sentence, remedy, "storage")

    def forget(self) -> None:
        """Set what is there aside and forget that there was something, if it is not what it should be."""
        if self.flaw() is not None:
            moment = time.strftime("%Y%m%d-%H%M%S")
            with contextlib.suppress(FileNotFoundError):
                self.folder.rename(self.folder.with_name(f"storage.lost-{moment}"))
            self.folder.mkdir(mode=0o700)
        self.deployment.drop_note(NOTE)


def counted(backups: int) -> str:
    """Return a number of backups in words."""
    return f"{backups} backup{'' if backups == 1 else 's'}"


def mark_of(path: Path) -> bytes:
    """Return the record in which the Worker keeps its storage's id; empty when there is none.

    Raises sqlite3.DatabaseError when the file is damaged.
    """
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        verdict = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        with contextlib.suppress(sqlite3.OperationalError):  # no such table
            row = database.execute("SELECT value FROM _cf_KV WHERE key = 'storage'").fetchone()
            return row[0] if row else b""
    return b""

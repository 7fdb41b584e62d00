# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts a backup in the place of a deployment's state, which is saved before that."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from ..module_utils.cards import Card
from ..module_utils.worker_client import Unreachable
from ..plugin_utils.actions.deployment_action import ExistingAction
from ..plugin_utils.proof.starting import shown
from ..plugin_utils.state import backups, stored
from ..plugin_utils.workerd.storage import Storage

NEWEST = "newest"
MISSING = 404
CAP = 256 * 1024 * 1024
"""What the Worker takes at most, in bytes."""


class ActionModule(ExistingAction):
    """The action `hermes.workers.restore`."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = ExistingAction.OPTIONS | {
        "backup": {"type": "str", "required": True},
    }

    def deploy(self) -> dict[str, Any]:
        """Upload the backup; the Worker checks it before it stops anything."""
        self.require()
        path = self._path()
        client = self.running()
        self.ask("GET", "/api/health", 20)
        if self.check_mode:
            return {"changed": True, "path": str(path)}
        self.deployment.take("restore")
        self.progress(f"restoring {self.deployment.shown(path)}; today's state is saved first")
        try:
            with self._as_backup(path) as backup, shown(self.running(), self.progress):
                answer = backups.upload(client, backup, self.progress)
        except Unreachable as error:
            raise Card.of(
                self.settings.name,
                f"the upload broke off: {error}",
                "run it again; what has arrived is kept for a day, and only the rest is sent.",
                "instance",
            ) from error
        if answer.status == MISSING:
            raise Card.of(
                self.settings.name,
                "the Worker is of an earlier release, which takes no backup in parts.",
                f"run `{self.command('deploy')}`, then this again.",
                "instance",
            )
        if answer.status != 200:
            raise self.silent(f"it was not restored: {answer.complaint()}")
        # Whatever storage it is in now, this is the memory that the owner wants.
        Storage(self.deployment).note(self.ask("GET", "/api/health", 20).get("storage"))
        self.show(
            ["", f"{self.settings.name}: restored, Hermes runs with {self.deployment.shown(path)}"]
        )
        return {"changed": True, "path": str(path), "backup": answer.json().get("backup")}

    @contextmanager
    def _as_backup(self, path: Path) -> Iterator[Path]:
        """Have a backup's file, taken out of what a destroy of an earlier release left. Raises a Card."""
        if not is_packed(path):
            yield path
            return
        with tempfile.TemporaryDirectory(dir=self.deployment.folder) as folder:
            try:
                backup = stored.unpacked(path, self.settings.name, Path(folder))
            except stored.NoBackup as error:
                raise Card.of(
                    "hermes_backup",
                    f"{self.deployment.shown(path)} holds no backup of Hermes{f': {error}' if str(error) else ''}.",
                    "name another file.",
                    "backup",
                ) from error
            yield backup

    def _path(self) -> Path:
        """Return the backup's file. Raises a Card that names hermes_backup."""
        named = self.options["backup"].strip()
        kept = backups.on_disk(self.deployment)
        if named == NEWEST and kept:
            return kept[0]
        path = Path(named).expanduser().absolute()
        if named == NEWEST:
            folder = self.deployment.shown(backups.folder_of(self.deployment))
            flaw: str | None = f"there is no backup in {folder}"
        else:
            flaw = flaw_of(path, self.deployment.shown(path)) if named else "not set"
        if flaw is None:
            return path
        others = [self.deployment.shown(one) for one in kept[:5]]
        there = (
            f"There is {', '.join(others)}." if others else f"`{self.command('backup')}` makes one."
        )
        raise Card.of(
            "hermes_backup",
            f"{flaw}.",
            f"set hermes_backup to a backup's file, or to {NEWEST}. {there}",
            "backup",
        )


def is_packed(path: Path) -> bool:
    """Tell whether a file is one that a destroy of an earlier release left: the whole storage, packed."""
    with path.open("rb") as file:
        return file.read(len(stored.PACKED)) == stored.PACKED


def flaw_of(path: Path, shown: str) -> str | None:
    """Return why a file is no backup, as far as its outside tells; None when nothing speaks against it."""
    if not path.is_file():
        return f"there is no file {shown}"
    if not os.access(path, os.R_OK):
        return f"{shown} cannot be read"
    if is_packed(path):
        return None
    size = path.stat().st_size
    if size > CAP:
        return f"{shown} has {size / 1e6:.0f} MB, and a backup has at most {CAP / 1e6:.0f}"
    with path.open("rb") as file:
        if file.read(1) != b"{":
            return f"{shown} is not a backup of Hermes"
    return None

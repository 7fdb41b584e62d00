# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes a backup of a deployment's Hermes and keeps it on the controller."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from ..module_utils.cards import Card
from ..module_utils.worker_client import CHANGE_SECONDS, Unreachable
from ..plugin_utils.actions.deployment_action import ExistingAction
from ..plugin_utils.proof.starting import shown
from ..plugin_utils.state import backups


class ActionModule(ExistingAction):
    """The action `hermes.workers.backup`."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = ExistingAction.OPTIONS | {
        "folder": {"type": "path", "default": ""},
    }

    def deploy(self) -> dict[str, Any]:
        """Have the state saved and download it, unless the same state is in the folder already."""
        client = self.running()
        if self.check_mode:
            return {"changed": True}
        self.deployment.take("backup")
        self.progress("saving Hermes' state")
        with shown(self.running(), self.progress):
            backup = self.ask("POST", backups.PATH, CHANGE_SECONDS)["backup"]
        if backup is None:
            raise Card.of(
                self.settings.name,
                "there is nothing to back up: Hermes has never been awake.",
                f"run `{self.command('verify')}`, or talk to it, and run it again.",
                "backup",
            )
        folder = Path(self.options["folder"] or backups.folder_of(self.deployment))
        path = backups.path_for(self.settings.name, backup, folder.absolute())
        is_new = not (path.is_file() and not backups.difference(path, backup))
        if is_new:
            self.progress(f"downloading {max(1, round(backup['bytes'] / 1000))} kB")
            try:
                backups.download(client, backup, path)
            except Unreachable as error:
                raise self.silent(f"the backup did not arrive: {error}") from error
        self._tell(path, is_new, backups.size_words(backup["bytes"]))
        return {"changed": is_new, "path": str(path), "backup": backup}

    def _tell(self, path: Path, is_new: bool, note: str) -> None:
        self.show(
            [
                "",
                f"{self.settings.name}: {'backed up' if is_new else 'backed up already, nothing has changed since'}",
                f"  backup  {self.deployment.shown(path)}",
                *([f"  note    {note}"] if note else []),
                "",
                "To have it back:",
                f"  {self.restore_command(path)}",
            ]
        )

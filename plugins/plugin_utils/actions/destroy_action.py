# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the actions share that take a deployment away, wherever it runs."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from ...module_utils.cards import Card
from ..build.pruning import remove_runtime
from ..inputs.answers import yes_or_no
from ..proof.channels import withdraw
from ..state.backups import folder_of, kept
from .deployment_action import PLACE_OPTIONS, ExistingAction


class DestroyAction(ExistingAction):
    """Takes a deployment away after a plan and a yes; leaves a last backup, and tells the way back."""

    FURTHER_INPUTS: ClassVar[frozenset[str]] = frozenset(("confirm",))
    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = PLACE_OPTIONS | {
        "confirmed": {"type": "raw", "default": False},
        "forget": {"type": "raw", "default": False},
        "only_plan": {"type": "bool", "default": False},
    }

    def deploy(self) -> dict[str, Any]:
        """Show what goes, or take it away when somebody confirmed it."""
        confirmed = yes_or_no("hermes_confirm", self.options["confirmed"])
        forget = yes_or_no("hermes_forget", self.options["forget"])
        self.judge()
        exists = self.exists()
        if self.options["only_plan"]:
            self.show(self._plan(exists, forget))
            return {"changed": False, "exists": exists}
        if not exists or self.check_mode:
            return {"changed": exists}
        if not confirmed:
            raise Card.of(
                self.settings.name,
                "not destroyed: nobody confirmed it.",
                f"answer yes, or run `{self.command('destroy', hermes_confirm='yes')}`.",
                "confirm",
            )
        self.deployment.create()
        self.deployment.take("destroy")
        withdraw(self.client(), kept={})
        backup = self.end(keep=self.has_memory() and not forget)
        card = self._card(backup)  # while what was noted for its commands is there
        self.remove()
        shutil.rmtree(self.deployment.folder)
        remove_runtime(self.deployment)
        self.show(card)
        return {"changed": True, "backup": str(backup) if backup else None}

    @abstractmethod
    def judge(self) -> None:
        """Refuse what is elsewhere, or not ours. Raises a Card."""

    @abstractmethod
    def exists(self) -> bool:
        """Tell whether anything of it is there."""

    @abstractmethod
    def has_memory(self) -> bool:
        """Tell whether Hermes may have anything to remember."""

    @abstractmethod
    def removals(self) -> list[str]:
        """Return what goes, in words, each with a verb before it."""

    @abstractmethod
    def end(self, *, keep: bool) -> Path | None:
        """End what has to be ended first; returns the last backup, if there is to be one. Raises a Card."""

    @abstractmethod
    def remove(self) -> None:
        """Remove everything but its folder."""

    def remark(self, _backup: Path) -> str:
        """Return what is to be known of a backup, or an empty text."""
        return ""

    def no_backup(self, why: Exception, changed: str | None = None) -> Card:
        """Return the card of a last backup that cannot be had. changed: what was done already."""
        return Card.of(
            self.settings.name,
            f"its last backup cannot be taken: {why}.",
            f"run `{self.command('deploy')}` first to mend it; {self._without_backup()}.",
            "save",
            changed,
        )

    def without_room(self, remedy: str) -> str:
        """Return what to do on a full disk: only a last backup needs room."""
        if yes_or_no("hermes_forget", self.options["forget"]):
            return remedy
        return f"{remedy.rstrip('.')}; {self._without_backup()} and needs no room."

    def _without_backup(self) -> str:
        return f"or run `{self.command('destroy', hermes_forget='yes')}`, which keeps no backup"

    def _plan(self, exists: bool, forget: bool) -> list[str]:
        name, folder = self.settings.name, self.deployment.folder
        if not exists:
            shown = self.deployment.shown(folder)
            return ["", f"{name}: nothing to remove, there is no {shown}."]
        lines = ["", f"Plan to destroy {name}", *(f"  {words}" for words in self.removals())]
        if self.has_memory():
            lines.append(f"  {kept(folder_of(self.deployment), self.deployment, forget)}")
        return lines

    def _card(self, backup: Path | None) -> list[str]:
        lines = ["", f"{self.settings.name}: destroyed"]
        if backup is None:
            return [*lines, "  no backup was kept"]
        remark = self.remark(backup)
        return [
            *lines,
            f"  backup  {self.deployment.shown(backup)}",
            *([f"  note    {remark}"] if remark else []),
            "",
            "To have it back:",
            f"  {self.command('deploy')}",
            f"  {self.restore_command(backup)}",
        ]

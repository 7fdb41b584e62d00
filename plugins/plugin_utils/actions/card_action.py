# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Base of this collection's action plugins: they work on the controller's files and on a Worker on this machine."""

from __future__ import annotations

import copy
import os
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars

from ...module_utils.cards import LIMITS, Card, limit_card
from ...module_utils.settings.catalogue import INPUTS
from ..display import screen
from ..display.commands import as_typed
from ..display.signs import Signs
from ..inputs import inventory
from ..state import owner
from ..state.disk import DISK_FULL, disk_card

display = Display()

# Results that roles register, in the order of the way of a deploy, and what a change there means in a card.
STEPS = {
    "image_result": "image",
    "worker_result": "worker",
    "workerd_result": "processes",
    "secrets_result": "secrets",
    "routes_result": "hostname",
}
CARRIERS = {"cloudflare": "worker", "workerd": "processes"}
"""Platform -> the step that gives the Worker its secrets by itself, whether or not they differ."""
ELSEWHERE = {"cloudflare": "processes", "workerd": "hostname"}
"""Platform -> the step that it does not have."""


class CardAction(ActionBase):
    """Validates its options, runs, and turns a Card into the task's failure."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True
    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = {}
    FURTHER_INPUTS: ClassVar[frozenset[str]] = frozenset()
    """Variables without a prefix that the playbook around this action reads."""
    _signs: Signs | None = None
    done: Sequence[str] = ()
    """What this task has changed so far, for the card of a failure."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the action; see the module of the same name for its options and its result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        self.task_vars = task_vars or {}
        self.shown: list[str] = []
        _checked, options = self.validate_argument_spec(copy.deepcopy(self.OPTIONS))
        try:
            with Signs(self._show_line, str(self._task.name or self._task.action)) as self._signs:
                result.update(self.execute(options))
        except Card as card:
            result.update(self._failure(card))
        except OSError as error:
            result.update(self._failure(system_card(error, self.place)))
        if self.shown:
            # For controllers that keep results, and no output.
            result["shown"] = self.shown
        return result

    def _failure(self, card: Card) -> dict[str, Any]:
        if card.changed is None:
            card.changed = self.changed_so_far()
        given = load_extra_vars(self._loader)
        card.problems = [as_typed(problem, given) for problem in card.problems]
        return {"failed": True, "changed": False, "msg": card.render(), "hermes_card": True}

    @abstractmethod
    def execute(self, options: dict[str, Any]) -> dict[str, Any]:
        """Do the work and return the task's result. Raises Card."""

    def read_inputs(self, names: Iterable[str]) -> inventory.Inputs:
        """Read inventory variables of this host; they stand in no argument, which Ansible may be told to print."""
        return inventory.read(
            names,
            self.task_vars,
            lambda name: self._templar.template(self.task_vars[name]),
            load_extra_vars(self._loader),
        )

    def existing_inputs(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the inputs of what was deployed; options of that name win. Raises a Card when one cannot be read."""
        found = self.read_inputs(INPUTS | self.FURTHER_INPUTS)
        if found.problems:
            raise Card(found.problems)
        given = {name: options[name] for name in ("name", "state_dir") if options.get(name)}
        return (
            {"hermes_name": self.host}
            | found.values
            | {f"hermes_{name}": value for name, value in given.items()}
        )

    @property
    def place(self) -> Path:
        """The folder below which it writes, for failures that name no file."""
        return Path("/")

    @property
    def check_mode(self) -> bool:
        """Whether nothing may be written."""
        return bool(self._task.check_mode)

    @property
    def diff_mode(self) -> bool:
        """Whether the result should carry a diff."""
        return bool(self._task.diff)

    @property
    def host(self) -> str:
        """The inventory's name of the host."""
        return str(self.task_vars.get("inventory_hostname", "localhost"))

    def progress(self, text: str) -> None:
        """Show one line now, before the task ends."""
        if self._signs:
            self._signs.heard(text)
        self._show_line(text)

    def _show_line(self, text: str) -> None:
        screen.show(display, f"  {self.host} | {text}")

    def show(self, lines: Iterable[str]) -> None:
        """Show a block of lines in one piece; the result has them as well."""
        text = "\n".join(lines)
        self.shown += text.splitlines()
        screen.show(display, text)

    def show_raw(self, lines: Iterable[str]) -> None:
        """Show lines as they are, for other programs."""
        display.display("\n".join(lines))

    def changed_so_far(self) -> str | None:
        """Return the card's sentence on what this play changed so far; None when that was nothing."""
        if self.check_mode:
            return None
        done = [
            words
            for name, words in STEPS.items()
            if isinstance(self.task_vars.get(name), dict) and self.task_vars[name].get("changed")
        ]
        done += self.done
        if not done:
            return None
        settings = (self.task_vars.get("preflight_result") or {}).get("settings") or {}
        platform = settings.get("platform") or ""
        carrier = CARRIERS.get(platform)
        told = {*done, ELSEWHERE.get(platform), *(("secrets",) if carrier in done else ())}
        rest = [
            words
            for words in STEPS.values()
            if words not in told and not any(one.startswith(f"{words} (") for one in done)
        ]
        if carrier in done and "secrets" not in done:
            done[done.index(carrier)] = f"{carrier} (which took the secrets along)"
        left = f" Not changed: {', '.join(rest)}." if rest else ""
        return f"Changed: {', '.join(done)}.{left}"


def system_card(error: OSError, place: Path = Path("/")) -> Card:
    """Return the card for a failure of the operating system that no step expected.

    place: the folder that it was below, for one that names no file.
    """
    if error.errno in DISK_FULL:
        return disk_card(error, Path(error.filename or place))
    if error.errno in LIMITS:
        return limit_card(error)
    if isinstance(error, PermissionError) and error.filename:
        path = owner.existing(Path(os.fsdecode(error.filename)).absolute())
        if path.lstat().st_uid != os.geteuid():
            return Card([owner.foreign(path)])
    return Card.of(
        str(error.filename or "this machine"),
        f"{error.strerror or error}.",
        "mend the cause (a full disk, a missing right, a file in the way) and run it again.",
        "system",
    )

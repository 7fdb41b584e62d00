# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows what became of all deployments of a play, those that failed among them. Runs once for all, always."""

from __future__ import annotations

from typing import Any, ClassVar

from ..module_utils.cards import Card
from ..plugin_utils.actions.card_action import CardAction
from ..plugin_utils.display import screen
from ..plugin_utils.display.table import STEPS, Row, row, table


class ActionModule(CardAction):
    """The action `hermes.workers.show_results`."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = {
        "batch": {"type": "list", "elements": "str", "default": []},
        "max_fail_percentage": {"type": "float", "default": 100.0},
    }

    def execute(self, options: dict[str, Any]) -> dict[str, Any]:
        """Do the work and return the task's result. Raises Card."""
        rows = [
            row(host, results, check_mode=self.check_mode)
            for host, results in self._results().items()
        ]
        # A single one has just shown its card.
        if len(rows) > 1:
            self.show(["", *table(rows, screen.WIDTH)])
        self._judge(rows, options["batch"], options["max_fail_percentage"])
        return {"changed": False, "failed_deployments": [each.name for each in rows if each.error]}

    def _judge(self, rows: list[Row], batch: list[str], most: float) -> None:
        """End the play when too many of a batch failed and others were to follow. Raises a Card.

        Ansible's own max_fail_percentage does not see what fails in a block with an `always` section.
        """
        failed = [each for each in rows if each.error and each.name in batch]
        begun = {*batch, *(each.name for each in rows)}
        hosts = self.task_vars.get("ansible_play_hosts_all", [])
        left = [host for host in hosts if host not in begun]
        if left and 100 * len(failed) > most * len(batch):
            raise Card.of(
                "hermes_max_fail_percentage",
                f"{len(failed)} of the {len(batch)} deployments of this batch failed, and {most:g}% may.",
                "mend what the table names and run it again.",
                "batches",
                changed=f"Not begun: {', '.join(left)}.",
            )

    def _results(self) -> dict[str, dict[str, Any]]:
        """Return what each host of the play registered so far; hosts of later batches have nothing yet."""
        found = {}
        for host in self.task_vars.get("ansible_play_hosts_all", []):
            variables = self.task_vars["hostvars"][host]
            results = {name: variables[name] for name in STEPS if name in variables}
            if results:
                found[host] = results
        return found

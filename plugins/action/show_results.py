# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows what became of all deployments of a play, those that failed among them. Runs once for all, always."""

from __future__ import annotations

from typing import Any

from ansible_collections.hermes.workers.plugins.plugin_utils.action import CardAction
from ansible_collections.hermes.workers.plugins.plugin_utils.table import STEPS, row, table


class ActionModule(CardAction):
    """hermes.workers.show_results"""

    def execute(self, options: dict[str, Any]) -> dict[str, Any]:
        rows = [
            row(host, results, check_mode=self.check_mode)
            for host, results in self._results().items()
        ]
        # A single one has just shown its card.
        if len(rows) > 1:
            self.show(["", *table(rows)])
        return {"changed": False, "failed_deployments": [each.name for each in rows if each.error]}

    def _results(self) -> dict[str, dict[str, Any]]:
        """Return what each host of the play registered so far; hosts of later batches have nothing yet."""
        found = {}
        for host in self.task_vars.get("ansible_play_hosts_all", []):
            variables = self.task_vars["hostvars"][host]
            results = {name: variables[name] for name in STEPS if name in variables}
            if results:
                found[host] = results
        return found

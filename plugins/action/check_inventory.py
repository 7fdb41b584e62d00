# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that the hosts of one inventory do not take each other's name or port. Runs once for all."""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.hermes.workers.plugins.module_utils.errors import Card
from ansible_collections.hermes.workers.plugins.module_utils.settings import Checker, collisions
from ansible_collections.hermes.workers.plugins.plugin_utils.action import CardAction

VARIABLES = (
    "hermes_name",
    "hermes_port",
    "hermes_providers_port",
    "hermes_dashboard",
    "hermes_dashboard_port",
    "hermes_state_dir",
    "hermes_platform",
    "hermes_engine",
)


class ActionModule(CardAction):
    """hermes.workers.check_inventory"""

    def execute(self, options: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for host in self.task_vars.get("ansible_play_hosts_all", []):
            variables = self.task_vars["hostvars"][host]
            raw = {name: variables.get(name) for name in VARIABLES}
            if raw["hermes_platform"] != "workerd":
                continue
            raw["hermes_name"] = raw["hermes_name"] or host
            settings = Checker(raw, raw).check().settings
            folder = os.path.abspath(os.path.expanduser(settings.state_dir))
            name = settings.name or str(raw["hermes_name"])
            found[host] = (folder, name, settings.ports.values())
        problems = collisions(found)
        if problems:
            raise Card(problems)
        return {"changed": False, "deployments": len(found)}

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wakes, puts to sleep, restarts or stops a deployment's Hermes, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from ..module_utils.cards import Card
from ..module_utils.settings.values import show
from ..module_utils.worker_client import CHANGE_SECONDS
from ..plugin_utils.actions.deployment_action import ExistingAction
from ..plugin_utils.proof.chats import SLEEP_BY_FORCE
from ..plugin_utils.proof.starting import shown

ACTIONS = {
    "wake": "wake",
    "sleep": "sleep",
    SLEEP_BY_FORCE: "sleep?force=true",
    "restart": "restart",
    "restart-gateway": "restart-gateway",
    "stop": "stop",
}
"""What can be asked, and the Worker's path for it."""
ALREADY: dict[str, Callable[[dict[str, Any]], bool]] = {
    "wake": lambda now: now["state"] == "awake" and now["gateway"] == "running",
    "sleep": lambda now: now["state"] == "asleep",
    SLEEP_BY_FORCE: lambda now: now["state"] == "asleep",
    "stop": lambda now: now["state"] == "asleep" or now["gateway"] is None,
}
"""What would change nothing, by what is asked: told from /api/health's view of the instance."""


class ActionModule(ExistingAction):
    """The action `hermes.workers.instance`."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = ExistingAction.OPTIONS | {
        "action": {
            "type": "str",
            "default": "",
        },
    }

    def deploy(self) -> dict[str, Any]:
        """Ask the Worker, unless Hermes is as wanted."""
        action = self._action()
        before = self._instance()
        is_so = ALREADY.get(action)
        if is_so is not None and is_so(before):
            return self._tell(False, before)
        if self.check_mode:
            return {"changed": True, "instance": before}
        self.deployment.take(action)
        self.progress(f"{action}: asking the Worker")
        with shown(self.running(), self.progress):
            self.ask("POST", f"/api/instance/{ACTIONS[action]}", CHANGE_SECONDS)
        return self._tell(True, self._instance())

    def _action(self) -> str:
        action: str = self.options["action"]
        if action in ACTIONS:
            return action
        raise Card.of(
            "hermes_action",
            f"{show(action)} is none." if action else "not set.",
            f"set hermes_action to one of {', '.join(ACTIONS)}.",
            "inputs",
        )

    def _instance(self) -> dict[str, Any]:
        health = self.ask("GET", "/api/health", 20)
        instance: dict[str, Any] = health["instance"] | {"gateway": health["hermes"]["gateway"]}
        return instance

    def _tell(self, changed: bool, now: dict[str, Any]) -> dict[str, Any]:
        gateway = now["gateway"] or "stopped"
        words = (
            now["state"] if now["state"] == "asleep" else f"{now['state']}, its gateway {gateway}"
        )
        self.show(
            ["", f"{self.settings.name}: Hermes is {words}" + ("" if changed else " already")]
        )
        return {"changed": changed, "instance": now}

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the Worker's secrets to what the inventory says; compares by the Worker's own proof."""

from __future__ import annotations

from typing import Any, ClassVar

from ..module_utils.cards import Card
from ..module_utils.worker_client import WorkerClient
from ..plugin_utils.actions.deployment_action import SETTINGS_OPTION, DeploymentAction
from ..plugin_utils.proof.health import drain_and_save
from ..plugin_utils.proof.secrets import effective_secrets, prove_secrets
from ..plugin_utils.state.folder import new_token
from ..plugin_utils.workerd.plan import observe
from ..plugin_utils.workerd.processes import Processes


class ActionModule(DeploymentAction):
    """The action `hermes.workers.workerd_secrets`."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = SETTINGS_OPTION | {
        "delivered": {"type": "bool", "default": False}
    }

    def deploy(self) -> dict[str, Any]:
        """Do the work and return the task's result. Raises Card."""
        if self.check_mode and self.options["delivered"]:
            return {
                "changed": False,
                "names": [],
                "msg": "The processes start with today's secrets.",
            }
        wanted = effective_secrets(self.settings, self.given_secrets, self.deployment)
        if "API_TOKEN" not in wanted and not self.settings.allow_unauthenticated:
            wanted["API_TOKEN"] = new_token()
        names = self._differing(wanted)
        result: dict[str, Any] = {"changed": bool(names), "names": names}
        if not names:
            return result
        result["msg"] = f"changed {', '.join(names)}"
        if self.diff_mode:
            result["diff"] = {"prepared": "".join(f"changed {name}\n" for name in names)}
        if not self.check_mode:
            self._deliver(wanted, names)
        return result

    def _differing(self, wanted: dict[str, str]) -> list[str]:
        names = prove_secrets(observe(self.settings, self.deployment, wanted).client, wanted)
        if names is None:
            raise Card.of(
                self.settings.name,
                "the Worker does not prove what secrets it holds.",
                f"run `{self.command('deploy')}`: it starts the processes with today's secrets.",
                "secrets",
            )
        return names

    def _deliver(self, wanted: dict[str, str], names: list[str]) -> None:
        self.deployment.take("deploy")
        self.deployment.note_proof(None)
        self.progress(
            f"changing {', '.join(names)}; workerd restarts, open requests are finished first"
        )
        processes = Processes(self.deployment, self.sources.host)
        if self.settings.engine == "docker":
            drain_and_save(
                observe(self.settings, self.deployment, wanted).client, self.settings.drain_timeout
            )
        processes.set_secrets(wanted)
        if "API_TOKEN" in wanted:
            self.deployment.keep_token(wanted["API_TOKEN"])
        client = WorkerClient(self.settings.port, wanted.get("API_TOKEN"))
        processes.wait_until_served(client, None)
        if self._differing(wanted):
            raise Card.of(
                self.settings.name,
                f"the Worker still holds another value of {', '.join(self._differing(wanted))}.",
                f"run `{self.command('deploy')}` again; if it persists, `{self.command('destroy')}` keeps a"
                " backup, so that it can be deployed afresh.",
                "secrets",
                changed=f"Changed: {', '.join(names)}.",
            )

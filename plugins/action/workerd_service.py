# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings a deployment's processes to what it should be: supervisor, engine, workerd."""

from __future__ import annotations

from typing import Any, ClassVar

from ..module_utils.cards import Card
from ..module_utils.worker_client import WorkerClient
from ..plugin_utils.actions.deployment_action import SETTINGS_OPTION, DeploymentAction
from ..plugin_utils.build import installer
from ..plugin_utils.build.variables import CONTAINER_PORTS
from ..plugin_utils.containers.image import Containers
from ..plugin_utils.inputs.answers import yes_or_no
from ..plugin_utils.plan import Actual, Change
from ..plugin_utils.proof.channels import withdraw
from ..plugin_utils.proof.health import drain_and_save, save_and_sleep
from ..plugin_utils.proof.secrets import effective_secrets, prove_secrets
from ..plugin_utils.state.folder import new_token, session_of
from ..plugin_utils.workerd.config import render
from ..plugin_utils.workerd.plan import (
    UNPROVED,
    WORKERD,
    at_boot_of,
    kind_of,
    observe,
    processes_change,
)
from ..plugin_utils.workerd.processes import Processes
from ..plugin_utils.workerd.storage import Storage

PROCESSES = "processes"
"""What the card of a failure calls them."""


class ActionModule(DeploymentAction):
    """The action `hermes.workers.workerd_service`."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = SETTINGS_OPTION

    def deploy(self) -> dict[str, Any]:
        """Do the work and return the task's result. Raises Card."""
        rendered = render(self.settings, self.sources)
        wanted = effective_secrets(self.settings, self.given_secrets, self.deployment)
        actual = observe(self.settings, self.deployment, wanted)
        change = processes_change(self.settings, self.runtime, rendered, actual)
        names = prove_secrets(actual.client, wanted)
        if change is None and names is None:
            change = Change("update", "processes", UNPROVED, WORKERD)
        result = {"changed": change is not None, "secrets_changed": (names or []) if change else []}
        if change is None:
            return result
        result["detail"] = change.detail
        if self.check_mode:
            return result
        self.deployment.create()
        self.deployment.take("deploy")
        self.deployment.note_proof(None)
        self._apply(rendered.version, wanted, actual)
        return result

    def _apply(self, version: str, wanted: dict[str, str], actual: Actual) -> None:
        if "API_TOKEN" not in wanted and not self.settings.allow_unauthenticated:
            wanted["API_TOKEN"] = new_token()
            self.deployment.keep_token(wanted["API_TOKEN"])
        self.runtime.install_host()
        if containers := self._containers():
            Containers(**containers).hold_bridge(self.settings.sidecar_image)
        processes = Processes(self.deployment, self.sources.host)
        withdraw(actual.client, self.settings.bots)
        self.done, self.ran = [PROCESSES], actual.supervisor is not None
        if self._same_supervisor(actual):
            self.progress("restarting workerd; open requests are finished first")
            if self.settings.engine == "docker":
                drain_and_save(actual.client, self.settings.drain_timeout)
            changes = {
                "workerd": self._workerd(),
                "drain": self.settings.drain_timeout,
                "secrets": wanted,
                "after_reboot": self.settings.after_reboot,
            }
            processes.restart_workerd(changes)
        else:
            self._replace_supervisor(processes, wanted, actual)
        if "API_TOKEN" in wanted and self.deployment.token() != wanted["API_TOKEN"]:
            self.deployment.keep_token(wanted["API_TOKEN"])
        client = WorkerClient(self.settings.port, wanted.get("API_TOKEN"))
        processes.wait_until_served(client, version)
        left = at_boot_of(self.settings).settle(self.settings.after_reboot, self.runtime.host)
        if left:
            self.progress(f"after a reboot: {left}")

    def changed_so_far(self) -> str | None:
        """Return the card's sentence on what changed; of processes only if there are some now, or were before."""
        if self.done and self.deployment.supervisor() is None:
            self.done = [f"{PROCESSES} (ended, and none runs now)"] if self.ran else []
        return super().changed_so_far()

    def _same_supervisor(self, actual: Actual) -> bool:
        record = actual.supervisor
        return (
            record is not None
            and kind_of(record) == self.settings.engine
            and record.get("host") == self.sources.host
            and self.deployment.moved_from() is None
            and record.get("ports") == self.settings.ports
            and self.deployment.containers() == self._containers()
        )

    def _containers(self) -> dict[str, str] | None:
        """Return where this deployment's containers should be; None when it should have none."""
        if self.settings.engine != "docker":
            return None
        return {"socket": self.settings.docker_socket, "session": session_of(self.settings)}

    def _replace_supervisor(
        self, processes: Processes, wanted: dict[str, str], actual: Actual
    ) -> None:
        if actual.supervisor is not None:
            self.progress("restarting the supervisor; Hermes' state is saved first")
            if actual.client:
                save_and_sleep(actual.client, self.settings.name, "its engine is replaced")
            processes.stop()
        self._settle_containers()
        self._settle_storage()
        what = "workerd" if self.settings.engine == "docker" else "workerd and the engine"
        done = installer.timed(self.progress, f"starting {what}")
        processes.start(
            self.settings.engine,
            self._workerd(),
            self.settings.ports,
            self.settings.drain_timeout,
            wanted,
            self._helpers(processes),
            self.settings.after_reboot,
        )
        done()

    def _settle_storage(self) -> None:
        """Have the storage be the one that it was, or begin empty if the owner says so. Raises a Card."""
        storage = Storage(self.deployment)
        if yes_or_no("hermes_forget", self.task_vars.get("hermes_forget")):
            storage.forget()
        elif problems := storage.problems(self.command):
            raise Card(problems)

    def _settle_containers(self) -> None:
        """Remove the containers of a deployment that has none any more, or has them elsewhere now."""
        old, wanted = self.deployment.containers(), self._containers()
        if old is not None and old != wanted:
            Containers(**old).remove_all()
            self.deployment.forget_containers()
        if wanted is not None:
            self.deployment.note_containers(**wanted)

    def _helpers(self, processes: Processes) -> dict[str, list[str]]:
        """Return the commands of what runs beside workerd."""
        containers = self._containers()
        if containers:
            return {"cleaner": processes.cleaner_command(**containers)}
        return {"engine": processes.engine_command(CONTAINER_PORTS)}

    def _workerd(self) -> list[str]:
        """Return workerd's command; circus fills in the numbers of the sockets that the supervisor holds."""
        binary = str(self.runtime.workerd())
        sockets = [f"--socket-fd={name}=$(circus.sockets.{name})" for name in self.settings.ports]
        return [binary, "serve", "build/config.capnp", "--experimental", *sockets]

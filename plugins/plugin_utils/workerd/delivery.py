# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives a workerd on this machine other secrets, so that they can be taken back until they are proved."""

from __future__ import annotations

from ...module_utils.settings.settings import Settings
from ...module_utils.worker_client import WorkerClient
from ..proof.health import drain_and_save
from ..state.folder import StateFolder
from .processes import Processes


class WorkerdDelivery:
    """Through the supervisor, which keeps the sockets while workerd restarts, and the old secrets in its memory."""

    def __init__(self, settings: Settings, deployment: StateFolder, host_digest: str) -> None:
        self.settings = settings
        self.deployment = deployment
        self.processes = Processes(deployment, host_digest)
        record = deployment.supervisor()
        self.port = record["ports"]["http"] if record else settings.port
        self.url = f"http://127.0.0.1:{self.port}"

    def connect(self, token: str | None) -> WorkerClient:
        """Return a client with this token."""
        return WorkerClient(self.port, token)

    def before(self) -> str:
        """Return what undo() has to be told later: nothing, the supervisor knows."""
        return ""

    def deliver(self, values: dict[str, str], client: WorkerClient) -> None:
        """Give the Worker these secrets; client: whose token it takes before and after."""
        if values:
            self._drain(client)
            self.processes.change_secrets(values)
        self.processes.wait_until_served(client, None)

    def undo(self, _before: str, _values: dict[str, str], client: WorkerClient) -> None:
        """Give it the secrets of before deliver(). Raises a Card."""
        self._drain(client)
        self.processes.undo_secrets()
        self.processes.wait_until_served(client, None)

    def settle(self) -> None:
        """Forget the secrets of before."""
        self.processes.settle_secrets()

    def _drain(self, client: WorkerClient) -> None:
        # The process engine's workerd ends when it has answered; that of containers is killed.
        if self.settings.engine == "docker":
            drain_and_save(client, self.settings.drain_timeout)

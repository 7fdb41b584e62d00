# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives a Worker on Cloudflare other secrets as a new version, so that the version before can be gone back to."""

from __future__ import annotations

from typing import Any

from ...module_utils.cards import Card
from ...module_utils.cloudflare import scripts
from ...module_utils.cloudflare.client import Cloudflare
from ...module_utils.settings.settings import Settings
from ...module_utils.worker_client import RemoteClient, WorkerClient
from ..proof.secrets import differing_secrets
from .deployed import held_back, is_in_step, wait_until_in_force
from .upload import write_secrets

SECONDS = 120.0
"""How long a new version may take until it answers everywhere."""


class CloudflareDelivery:
    """Through Cloudflare's API; the Worker itself proves what it holds."""

    def __init__(self, settings: Settings, api: Cloudflare) -> None:
        self.settings = settings
        self.api = api
        self.url = f"https://{settings.host}"

    def connect(self, token: str | None) -> RemoteClient:
        """Return a client with this token."""
        return RemoteClient(self.settings.host, token)

    def before(self) -> str:
        """Return what undo() has to be told later: the version that serves now."""
        return scripts.serving(self.api, self.settings.name)

    def deliver(self, values: dict[str, str], client: WorkerClient) -> None:
        """Give the Worker these secrets in one call; client: whose token it takes before and after.

        Without any it is an earlier delivery that was cut off, and whose end is waited for.
        """
        if not values and is_in_step(client):
            return
        with held_back(client, self.settings.drain_timeout):
            if values:
                write_secrets(self.api, self.settings, values)
            self._wait(values, client, held=True)

    def undo(self, before: str, values: dict[str, str], client: WorkerClient) -> None:
        """Serve the version of before deliver(values) again. Raises a Card when somebody deployed since."""
        since = []
        for deployment in scripts.deployments(self.api, self.settings.name):
            if before in [share["version_id"] for share in deployment["versions"]]:
                break
            since.append(deployment)
        if not before or not all(self._changes_secrets_only(one) for one in since):
            raise Card.of(
                self.settings.name,
                "something was deployed since the keys were changed, so that they cannot be taken back alone.",
                "set the keys in the inventory to ones that work and run this again.",
                "rotation",
            )
        if since:
            message = "A rotation of keys was taken back"
            with held_back(client, self.settings.drain_timeout):
                scripts.serve(self.api, self.settings.name, before, message, force=True)
                self._wait(values, client, held=False)

    def _changes_secrets_only(self, deployment: dict[str, Any]) -> bool:
        """Tell whether a deployment is of what a change of secrets made, by one call or by an upload."""
        if scripts.changes_secrets_only(deployment):
            return True
        made = (share["version_id"] for share in deployment["versions"])
        name = self.settings.name
        return all(
            scripts.changes_secrets_only(scripts.version(self.api, name, one)) for one in made
        )

    def settle(self) -> None:
        """Nothing is kept that could be forgotten."""

    def _wait(self, values: dict[str, str], client: WorkerClient, *, held: bool) -> None:
        """Wait until the Worker proves that it holds these secrets, or none of them, and its object with it.

        Raises a Card.
        """

        def is_new() -> bool:
            differing = differing_secrets(client, values)
            wrong = values.keys() & set(differing or ())
            return differing is not None and wrong == (set() if held else values.keys())

        if not wait_until_in_force(self.settings, self.api, client, is_new, SECONDS):
            raise Card.of(
                self.settings.name,
                f"the Worker does not prove its new secrets within {SECONDS:.0f} s.",
                "run it again; it goes on where this run stopped.",
                "secrets",
                changed="Changed: secrets, as far as Cloudflare answered. The API token of before is valid.",
            )

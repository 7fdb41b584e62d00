# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the secrets of a Worker on Cloudflare to what the inventory says: one call, one new version."""

from __future__ import annotations

from typing import Any, ClassVar

from ..module_utils.cards import Card
from ..module_utils.worker_client import RemoteClient, WorkerClient
from ..plugin_utils.actions.cloudflare_action import CloudflareAction
from ..plugin_utils.cloudflare.deployed import (
    client_for,
    held_back,
    is_in_step,
    wait_until_in_force,
)
from ..plugin_utils.cloudflare.plan import BEHIND, secret_changes
from ..plugin_utils.cloudflare.upload import write_secrets
from ..plugin_utils.proof.secrets import differing_secrets, variables_of

SECONDS = 120.0
"""How long a new version may take until it answers everywhere."""
BROUGHT = "bringing the Worker's Durable Object to what was changed before"


class ActionModule(CloudflareAction):
    """The action `hermes.workers.cloudflare_secrets`."""

    STEP: ClassVar[str] = "secrets"
    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = CloudflareAction.OPTIONS | {
        "planned": {"type": "bool", "default": False}
    }

    def deploy(self) -> dict[str, Any]:
        """Write what differs; a deploy of the Worker in this play has brought its secrets along."""
        if not self.options["planned"]:
            return {"changed": False, "names": []}
        client = client_for(self.settings.host, self.deployment, self.wanted_secrets)
        names = secret_changes(self.deployed, self.wanted_secrets, client)
        if names is None:
            raise Card.of(
                self.settings.name,
                "the Worker does not prove what secrets it holds.",
                "run the deploy again: it uploads the Worker with today's secrets.",
                "secrets",
            )
        shown = variables_of(names)
        behind = not names and client is not None and not is_in_step(client)
        result: dict[str, Any] = {"changed": bool(names) or behind, "names": shown}
        if self.diff_mode:
            result["diff"] = {"prepared": "".join(f"changed {name}\n" for name in shown)}
        if result["changed"] and not self.check_mode:
            self._deliver(client, names)
        return result | {"msg": BEHIND if behind else f"changed {', '.join(shown)}"}

    def _deliver(self, client: WorkerClient | None, names: list[str]) -> None:
        self.deployment.take("deploy")
        self.deployment.note_proof(None)
        wanted = self.wanted_secrets
        told = f"changing {', '.join(variables_of(names))}" if names else BROUGHT
        self.progress(f"{told}; requests under way come first")
        values = {name: wanted.get(name) for name in names}
        with held_back(client, self.settings.drain_timeout):
            if values:
                write_secrets(self.api, self.settings, values)
                self.done = ["secrets"]
            if "API_TOKEN" in wanted:
                self.deployment.keep_token(wanted["API_TOKEN"])
            self._wait(RemoteClient(self.settings.host, wanted.get("API_TOKEN")))

    def _wait(self, client: RemoteClient) -> None:
        """Wait until the Worker proves that it holds them, and its object with it."""

        def is_new() -> bool:
            return differing_secrets(client, self.wanted_secrets) == []

        if not wait_until_in_force(self.settings, self.api, client, is_new, SECONDS):
            raise Card.of(
                self.settings.name,
                f"the Worker does not prove its new secrets within {SECONDS:.0f} s.",
                "run the deploy again; it goes on where this one stopped.",
                "secrets",
                changed="Changed: secrets, as far as Cloudflare answered.",
            )

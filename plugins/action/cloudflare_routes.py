# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives a deployment on Cloudflare its hostname and mail address, and takes away what the inventory no longer names."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from ..module_utils.cards import Card
from ..module_utils.worker_client import Owner, RemoteClient
from ..plugin_utils.actions.cloudflare_action import CloudflareAction
from ..plugin_utils.build import installer
from ..plugin_utils.cloudflare.hostname import Hostnames
from ..plugin_utils.cloudflare.mailbox import Mailbox

SECONDS = 600.0
"""How long a certificate may take."""
FOREIGN_SECONDS = 120.0
"""How long something else may answer there: a change takes its time until it is known everywhere."""
TOLD_EVERY = 15.0


class ActionModule(CloudflareAction):
    """The action `hermes.workers.cloudflare_routes`."""

    STEP: ClassVar[str] = "routes"
    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = CloudflareAction.OPTIONS | {
        "planned": {"type": "bool", "default": False}
    }

    def deploy(self) -> dict[str, Any]:
        """Do what the plan said."""
        planned = self.options["planned"]
        if not planned or self.check_mode:
            return {"changed": planned}
        hostnames = Hostnames(
            self.api, self.settings, self.account, self.deployed.tags, self.progress
        )
        # Shared, so that a card of a step that fails tells those before it.
        self.done = hostnames.done
        steps = hostnames.settle()
        if any(step.kind in ("attach", "route") for step in steps):
            self._wait(self.settings.dashboard_hostname)
        mailbox = Mailbox(self.api, self.settings, self.account, hostnames.tags, self.progress)
        mailbox.done = self.done
        words = [step.words for step in steps] + [step.words for step in mailbox.settle()]
        return {"changed": True, "steps": words}

    def _wait(self, hostname: str) -> None:
        """Wait until the hostname leads to the Worker over TLS: its certificate may take minutes."""
        client = RemoteClient(hostname, self.deployment.token())
        done = installer.timed(self.progress, f"waiting for the certificate of {hostname}")
        deadline = time.monotonic() + SECONDS
        foreign = 0.0
        told = time.monotonic()
        while (owner := client.owner()) is not Owner.OURS:
            if owner is Owner.ANOTHER:
                if self.settings.access_team_domain:
                    break  # Access asks everybody to sign in first, us too
                foreign = foreign or time.monotonic() + FOREIGN_SECONDS
                if time.monotonic() > foreign:
                    raise self._another(hostname)
            if time.monotonic() > deadline:
                raise Card.of(
                    "hermes_dashboard_hostname",
                    f"{hostname} does not answer over https after {SECONDS / 60:.0f} minutes.",
                    "look at its certificate in the dashboard (SSL/TLS, Edge Certificates), then run it again.",
                    "hostname",
                    changed="Changed: worker, hostname.",
                )
            if time.monotonic() - told > TOLD_EVERY:
                told = time.monotonic()
                self.progress(f"still no certificate for {hostname}; Cloudflare is making one")
            time.sleep(2.0)
        done()

    def _another(self, hostname: str) -> Card:
        return Card.of(
            "hermes_dashboard_hostname",
            f"{hostname} is answered by something else, not by Worker {self.settings.name}.",
            "look for routes and rules of the zone that catch it, remove them, then run it again.",
            "hostname",
            changed="Changed: worker, hostname.",
        )

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings a running Hermes to the deployed settings by the lightest restart; leaves a sleeping one alone."""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.actions.deployment_action import SETTINGS_OPTION, DeploymentAction
from ..plugin_utils.build import installer
from ..plugin_utils.platform import Service, service_of
from ..plugin_utils.proof import channels
from ..plugin_utils.proof.in_force import CONTENT, outstanding, refresh, wait_until_known
from ..plugin_utils.proof.starting import shown
from ..plugin_utils.workerd import confinement


class ActionModule(DeploymentAction):
    """The action `hermes.workers.refresh_instance`."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = SETTINGS_OPTION | {
        "planned": {"type": "bool", "default": False}
    }

    def deploy(self) -> dict[str, Any]:
        """Restart what has to be, and see that it has the settings then."""
        planned = self.options["planned"]
        if self.check_mode:
            return {"changed": planned}
        service = service_of(self.settings, self.deployment, self.runtime)
        client = service.connect(self.deployment.token())
        confines = confinement.next_start(self.settings, self.sources.container)
        restart = outstanding(wait_until_known(client, self.settings.name), confines)
        # A request that came meanwhile may have had it restarted before us.
        result = {"changed": planned or bool(restart), "restarted": restart.what}
        if restart:
            self.deployment.take("deploy")
            self.deployment.note_proof(None)
            verb = "bringing" if restart.what == CONTENT else "restarting"
            done = installer.timed(self.progress, f"{verb} {restart.words}")
            with shown(service.connect(self.deployment.token()), self.progress):
                refresh(client, self.settings.name, restart, confines)
            done()
        return result | self._channels(service)

    def _channels(self, service: Service) -> dict[str, Any]:
        """Have the platforms by which people write send their messages here."""
        client = service.connect(self.deployment.token())
        told = channels.register(client, self.settings, service.reached, look=False)
        changed = [name for name, one in told.items() if one["changed"]]
        if changed:
            self.progress(f"told where to send messages: {', '.join(changed)}")
        return {"channels": told} | ({"changed": True} if changed else {})

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs the process engine's image: Hermes from its hashed lock, with the sandbox's scripts."""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.actions.deployment_action import SETTINGS_OPTION, DeploymentAction
from ..plugin_utils.build.pruning import note_use


class ActionModule(DeploymentAction):
    """The action `hermes.workers.process_image`."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = SETTINGS_OPTION | {
        "planned": {"type": "bool", "default": False}
    }

    def deploy(self) -> dict[str, Any]:
        """Install the image unless it is there."""
        missing = not self.runtime.has_image()
        result = {
            "digest": self.sources.image,
            "hermes_version": self.sources.hermes_version,
            # Hosts share the image: the plan for a host counts, not which of them came first.
            "changed": missing or self.options["planned"],
        }
        if missing and not self.check_mode:
            self.deployment.create()
            note_use(self.deployment, self.runtime)
            with self.runtime.installing_ahead():
                self.runtime.install_image()
        return result

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the image that containers run Hermes from, through the container engine's API."""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.actions.deployment_action import SETTINGS_OPTION, DeploymentAction
from ..plugin_utils.build.pruning import note_use
from ..plugin_utils.containers.image import ContainerImage


class ActionModule(DeploymentAction):
    """The action `hermes.workers.container_image`."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = SETTINGS_OPTION

    def deploy(self) -> dict[str, Any]:
        """Build the image unless it is there, and pull the sidecar's."""
        image = ContainerImage(self.settings, self.sources, self.deployment.runtime, self.progress)
        missing = not image.has_image()
        if missing and not self.check_mode:
            self.deployment.create()
            if self.deployment.containers() is None:
                self.deployment.note_containers(image.socket, image.session)
            note_use(self.deployment, self.runtime)
            with self.runtime.installing_ahead():
                image.install()
        return {
            "changed": missing,
            "digest": image.digest,
            "image": image.name,
            "hermes_version": self.sources.hermes_version,
        }

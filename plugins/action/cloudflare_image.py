# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the image of Hermes in the account's registry, or builds and pushes it, once for all deployments there."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, ClassVar

from ..module_utils.cards import Card
from ..plugin_utils.actions.cloudflare_action import CloudflareAction
from ..plugin_utils.build.pruning import note_use
from ..plugin_utils.cloudflare.image import PushedImage


class ActionModule(CloudflareAction):
    """The action `hermes.workers.cloudflare_image`."""

    STEP: ClassVar[str] = "image"
    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = CloudflareAction.OPTIONS | {
        "planned": {"type": "bool", "default": False}
    }

    def deploy(self) -> dict[str, Any]:
        """Return the image's reference; hosts share it, so the plan for a host counts, not who came first."""
        result: dict[str, Any] = {
            "changed": self.options["planned"],
            "hermes_version": self.sources.hermes_version,
        }
        if self.check_mode and self.options["planned"]:
            return result | {"reference": ""}
        if self.deployed.has_image(self.sources.image_for(self.settings)):
            return result | {"reference": self.deployed.reference}
        image = PushedImage(
            self.settings, self.sources, self.deployment.runtime, self.progress, self.api
        )
        reference = image.reference()
        if not reference:
            self.deployment.create()
            note_use(self.deployment, self.runtime)
            # What a push that fails leaves in the engine goes with the next deploy, or with the deployment.
            if self.deployment.containers() is None:
                self.deployment.note_containers(image.socket, image.session)
            reference = image.publish()
        if self.deployment.containers() and not self.check_mode:
            # What is in the registry, whoever pushed it, need not take room here.
            with suppress(Card):
                image.prune(keep=None)
        return result | {"reference": reference}

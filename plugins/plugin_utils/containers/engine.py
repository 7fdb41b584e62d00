# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container engine of this machine, as far as a deployment depends on it."""

from __future__ import annotations

import os
import shutil

from ...module_utils.cards import Card, Problem
from ...module_utils.settings.settings import Settings
from ..build.runtime import Runtime
from ..state.disk import IMAGE_BYTES, RUN_BYTES
from .image import ContainerImage, pull_problem, speaking


class ContainerEngine:
    """The container engine of this machine, as far as a deployment depends on it."""

    def __init__(
        self, settings: Settings, runtime: Runtime, image: ContainerImage | None = None
    ) -> None:
        self.image = image or ContainerImage(
            settings, runtime.sources, runtime.folder, runtime.progress
        )
        self.version = "not reachable"

    def problems(self) -> list[Problem]:
        """Return everything about the engine that stands against the deployment."""
        try:
            with speaking(self.image.socket, self.image.settings):
                self.version = self.image.engine.version()
                gateway = self.image.engine.bridge_gateway()
                architecture = self.image.engine.architecture()
            problems = [self._no_gateway()] if self.image.runs_here and not gateway else []
            if architecture not in ("amd64", "x86_64"):
                problems.append(self._other_architecture(architecture))
            return problems + self._images() + self._disk()
        except Card as card:
            return card.problems

    def _no_gateway(self) -> Problem:
        return Problem(
            "hermes_engine",
            "the engine's default bridge has no gateway address, by which a container would reach workerd.",
            "start dockerd with --bip, for example --bip 172.17.0.1/16.",
            "docker",
        )

    def _other_architecture(self, found: str) -> Problem:
        settings = self.image.settings
        instead = "set hermes_engine: process, or " if settings.may_be_processes else ""
        platform = settings.platform == "cloudflare"
        return Problem(
            "hermes_platform" if platform else "hermes_engine",
            f"{'cloudflare' if platform else 'docker'} needs an engine on x86-64,"
            f" as Cloudflare's containers are; this one is on {found}.",
            f"{instead}deploy from another machine.",
            "machine",
        )

    def _images(self) -> list[Problem]:
        problems = []
        for variable, name in self.image.missing():
            with speaking(self.image.socket, self.image.settings):
                why = self.image.engine.registry_problem(name)
            if why:
                problems.append(pull_problem(variable, name, why))
        return problems

    def _disk(self) -> list[Problem]:
        """An engine in a virtual machine has its folder elsewhere; what cannot be seen is not judged."""
        with speaking(self.image.socket, self.image.settings):
            root = self.image.engine.root()
        if not root or not os.path.isdir(root):
            return []
        needed = RUN_BYTES if self.image.has_image() else IMAGE_BYTES
        free = shutil.disk_usage(root).free
        if free >= needed:
            return []
        return [
            Problem(
                "disk",
                f"{free // 1_000_000} MB free for the container engine below {root},"
                f" {needed // 1_000_000} MB needed.",
                "free space there, for example by `docker system prune`.",
                "disk",
            )
        ]

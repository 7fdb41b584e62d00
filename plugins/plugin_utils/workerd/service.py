# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment that workerd serves: its address and version, and what a proof of it permits to remove."""

from __future__ import annotations

from typing import Any

from ...module_utils.cards import Card
from ...module_utils.settings.settings import Settings
from ...module_utils.worker_client import Answer, WorkerClient
from ..build.pruning import prune
from ..build.runtime import Runtime
from ..containers.image import ContainerImage, Containers
from ..state.folder import StateFolder, session_of
from .config import render
from .plan import wanted_build
from .processes import Processes


class WorkerdService:
    """Served by workerd on this machine."""

    audience = "anyone on this machine"

    def __init__(self, settings: Settings, deployment: StateFolder, runtime: Runtime) -> None:
        self.settings = settings
        self.deployment = deployment
        self.runtime = runtime
        self.url = f"http://127.0.0.1:{settings.port}"
        self.reached = settings.public_url
        self.rendered = render(settings, runtime.sources)
        self.version = self.rendered.version

    def connect(self, token: str | None) -> WorkerClient:
        """Return a client with this token."""
        return WorkerClient(self.settings.port, token)

    def stranger(self, token: str | None) -> WorkerClient:
        """Return a client with a made-up token, or none."""
        return self.connect(token)

    def is_as_built(self) -> bool:
        """Tell whether workerd runs from the files that a deploy made, and not from what somebody made of them."""
        wanted = wanted_build(self.runtime, self.rendered, self.settings)
        return wanted in (None, self.deployment.running_build())

    def not_served(self, answer: Answer | None) -> Card:
        """Return the card for a Worker that does not answer as it should."""
        processes = Processes(self.deployment, self.runtime.sources.host)
        return processes.not_served(answer, self.version)

    def prune(self) -> None:
        """Remove what the version before left, now that this one is proved."""
        prune(self.deployment, self.runtime)
        if self.settings.engine == "docker":
            image = ContainerImage(
                self.settings, self.runtime.sources, self.deployment.runtime, self.runtime.progress
            )
            image.prune(keep=image.name)

    def dashboard(self, status: dict[str, Any]) -> str:
        """Return where Hermes' dashboard is, or why it is nowhere. status: the answer of /api/health."""
        if not self.settings.dashboard:
            return "off (hermes_dashboard)"
        # Nothing is told where a container confines in any case.
        if status.get("confined") is False and not self.settings.host_tools:
            return "not served: bubblewrap is not installed, and hermes_host_tools is off"
        return f"http://127.0.0.1:{self.settings.dashboard_port} (sign in with the token)"

    def rows(self, status: dict[str, Any]) -> list[tuple[str, str]]:
        """Return what the summary says of the place. status: the answer of /api/health."""
        if self.settings.engine == "docker":
            containers = Containers(self.settings.docker_socket, session_of(self.settings))
            open_ = containers.network_words(self.settings.egress)
            return [("sandbox", "container (docker)"), ("network", open_)]
        tools = "host tools on" if self.settings.host_tools else "no host tools"
        words: dict[bool | None, str] = {
            True: "by bubblewrap",
            False: "no (bubblewrap missing or not usable)",
        }
        confined = words.get(status.get("confined"), "decided when Hermes wakes")
        return [("confined", f"{confined}, {tools}")]

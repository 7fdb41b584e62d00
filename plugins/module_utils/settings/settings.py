# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A checked deployment."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .fields import Fields


@dataclass
class Settings(Fields):
    """A checked deployment, without its secrets. Durations are in seconds."""

    host: str = ""
    """Where Cloudflare serves the API; empty on this machine."""
    bots: dict[str, str] = field(default_factory=dict)
    """Channel -> number of the bot that Hermes speaks as there, which is no secret."""
    channel_apis: list[str] = field(default_factory=list)
    """Servers of platforms' APIs that are the owner's, besides Telegram's."""
    mail_address: str = ""
    """The channel e-mail's own; empty without that channel."""
    mail_people: list[str] = field(default_factory=list)
    """Who may write there, and is written to."""
    deployments: int = 1
    """How many of the account share what Cloudflare's plan includes."""
    agent: dict[str, Any] = field(default_factory=dict)
    """What the declared agent is: its archive and its parts by their digests; empty when nothing is declared."""

    @property
    def provider(self) -> str:
        """The provider of the default model."""
        return self.default_model.split("/", 1)[0]

    @property
    def ports(self) -> dict[str, int]:
        """The ports of 127.0.0.1 that the deployment takes, by the name of the socket."""
        if self.platform != "workerd":
            return {}
        ports = {"http": self.port}
        if self.engine == "process":  # from a container, Hermes reaches its providers otherwise
            ports["providers"] = self.providers_port
        if self.dashboard:
            ports["dashboard"] = self.dashboard_port
        return ports

    @property
    def has_host_tools(self) -> bool:
        """Whether Hermes has tools that touch what it runs on: always in a container, in a process if it may."""
        return self.engine != "process" or self.host_tools

    @property
    def may_be_processes(self) -> bool:
        """Whether Hermes could be processes of this machine instead, as far as the other settings go."""
        in_an_image = "image" in self.source or "chromium" in self.features
        needs_a_container = self.egress != "open" or in_an_image
        reads_the_machine = "browser" in self.features and not self.host_tools
        return self.platform == "workerd" and not (needs_a_container or reads_the_machine)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for a task's result."""
        return asdict(self)

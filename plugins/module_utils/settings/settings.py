# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A checked deployment."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .catalogue import (
    API_BASE_URL,
    DASHBOARD_PORT_OFFSET,
    DEFAULT_PORT,
    INSTANCE_TYPES,
    LOCATIONS,
    PROVIDERS_PORT_OFFSET,
    REHEARSAL_MODEL,
    SIDECAR_IMAGE,
)


@dataclass
class Settings:
    """A checked deployment, without its secrets. Durations are in seconds."""

    name: str = ""
    platform: str = "workerd"
    engine: str = "process"
    state_dir: str = ".hermes"
    port: int = DEFAULT_PORT
    providers_port: int = DEFAULT_PORT + PROVIDERS_PORT_OFFSET
    dashboard: bool = True
    dashboard_port: int = DEFAULT_PORT + DASHBOARD_PORT_OFFSET
    default_model: str = REHEARSAL_MODEL
    models: list[str] = field(default_factory=list)
    provider_base_url: str = ""
    context_length: int = 0
    """Of the models behind it, in tokens; 0 when nobody said."""
    provider_keys: str = "sealed"
    ai_gateway: str = ""
    egress: str = "open"
    """open, providers, or hosts separated by commas."""
    sleep_after: int = 4 * 3600
    drain_timeout: int = 60
    token_overlap: int = 600
    on_disconnect: str = "stop"
    after_reboot: str = "stay_down"
    token_vault_file: str = ""
    """Where a rotation writes the API token that the inventory gives; one of these two, or neither."""
    token_command: list[str] = field(default_factory=list)
    host_tools: bool = False
    allow_unauthenticated: bool = False
    cors_origins: list[str] = field(default_factory=list)
    access_team_domain: str = ""
    access_audiences: list[str] = field(default_factory=list)
    dashboard_idle: int = 3600
    dashboard_origin: str = ""
    """Where people see the dashboard, when a proxy before it tells the Worker something else."""
    env: dict[str, str] = field(default_factory=dict)
    verify: str = "auto"
    docker_socket: str = ""
    base_image: str = ""
    sidecar_image: str = SIDECAR_IMAGE
    host: str = ""
    """Where Cloudflare serves the API; empty on this machine."""
    deployments: int = 1
    """How many of the account share what Cloudflare's plan includes."""
    account_id: str = ""
    api_base_url: str = API_BASE_URL
    instance_type: str = INSTANCE_TYPES[0]
    location: str = LOCATIONS[0]
    """Near where the object is made; what is there already stays where it is."""
    dashboard_hostname: str = ""
    route_mode: str = "custom_domain"
    take_over_hostname: bool = False
    uploader: str = "auto"
    """What uploads to Cloudflare: wrangler, plain calls, or what suits the number of deployments."""
    check_provider_key: bool = False
    prune_images: bool = False

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

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for a task's result."""
        return asdict(self)

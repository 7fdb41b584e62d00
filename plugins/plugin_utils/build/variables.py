# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Worker is told: its variables, the names of its secrets, and what it asks of its runtime."""

from __future__ import annotations

from dataclasses import dataclass

from ...module_utils.settings.catalogue import KEY_NAMES
from ...module_utils.settings.settings import Settings
from ...module_utils.settings.values import canonical, duration
from .sources import Sources

COMPATIBILITY_DATE = "2026-08-15"
SECRET_BINDINGS = (
    "API_TOKEN",
    "API_TOKEN_PREVIOUS",
    *KEY_NAMES.values(),
    "AI_GATEWAY_TOKEN",
    "HERMES_SECRETS",
)
CONTAINER_PORTS = "18789,9119"
INSTANCE_CLASS = "HermesInstance"
# An address that no network uses: what Hermes sends there, the sidecar hands to the Worker.
PROVIDERS_IN_CONTAINER = "http://198.51.100.1"


@dataclass(frozen=True)
class Rendered:
    """A configuration, and the version that marks it and the code."""

    text: str
    version: str


def variables(settings: Settings, sources: Sources, version: str) -> dict[str, str]:
    """Return the Worker's text variables."""
    return {
        "HERMES_NAME": settings.name,
        "WORKER_VERSION": version,
        "HERMES_VERSION": sources.hermes_version,
        "HERMES_IMAGE": sources.image_for(settings),
        "HERMES_PLATFORM": settings.platform,
        "HERMES_ENGINE": settings.engine,
        "HERMES_DEFAULT_MODEL": settings.default_model,
        "HERMES_MODELS": canonical(settings.models),
        "HERMES_PROVIDER_BASE_URL": settings.provider_base_url,
        "HERMES_CONTEXT_LENGTH": str(settings.context_length or ""),
        "HERMES_PROVIDER_KEYS": settings.provider_keys,
        "HERMES_AI_GATEWAY": settings.ai_gateway,
        "HERMES_EGRESS": settings.egress,
        "HERMES_SLEEP_AFTER": duration(settings.sleep_after),
        "HERMES_DRAIN_TIMEOUT": str(settings.drain_timeout),
        "HERMES_TOKEN_OVERLAP": f"{settings.token_overlap}s",
        "HERMES_CORS_ORIGINS": ",".join(settings.cors_origins),
        "HERMES_ACCESS_TEAM_DOMAIN": settings.access_team_domain,
        "HERMES_ACCESS_AUDIENCES": ",".join(settings.access_audiences),
        "HERMES_DASHBOARD_ORIGIN": settings.dashboard_origin,
        "HERMES_DASHBOARD_IDLE": f"{settings.dashboard_idle}s",
        "HERMES_ON_DISCONNECT": settings.on_disconnect,
        "HERMES_HOST_TOOLS": _boolean(settings.host_tools),
        "HERMES_ALLOW_UNAUTHENTICATED": _boolean(settings.allow_unauthenticated),
        "HERMES_DASHBOARD": _dashboard(settings),
        "PROVIDERS_ADDRESS": PROVIDERS_IN_CONTAINER
        if settings.engine != "process"
        else f"http://127.0.0.1:{settings.providers_port}",
        "HERMES_INSTANCE_TYPE": settings.instance_type,
        "HERMES_LOCATION": settings.location,
        "HERMES_DASHBOARD_HOSTNAME": settings.dashboard_hostname,
        "HERMES_ENV": canonical(settings.env),
    }


def compatibility_flags(settings: Settings) -> list[str]:
    """Return what the Worker asks of the runtime beyond its date.

    Clients that leave are told of; an object that finishes a turn alone is not evicted during it.
    """
    alone = ["durable_object_io_tasks_prevent_eviction"]
    return ["enable_request_signal", *(alone if settings.on_disconnect == "finish" else [])]


def _dashboard(settings: Settings) -> str:
    """Return "on", or "off: " and why."""
    if not settings.dashboard:
        return "off: hermes_dashboard is false."
    if settings.platform == "cloudflare" and not settings.dashboard_hostname:
        return "off: hermes_dashboard_hostname is not set."
    return "on"


def _boolean(value: bool) -> str:
    return "true" if value else "false"

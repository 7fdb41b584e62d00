# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Worker is told: its variables, and what it asks of its runtime."""

from __future__ import annotations

from dataclasses import dataclass

from ...module_utils.settings.catalogue import SETTINGS
from ...module_utils.settings.settings import Settings
from ...module_utils.settings.values import canonical
from .sources import Sources

COMPATIBILITY_DATE = "2026-08-15"
CONTAINER_PORTS = "18789,9119,18790"
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
    of_the_inventory = {
        one.worker: one.kind.for_worker(getattr(settings, one.field))
        for one in SETTINGS
        if one.worker
    }
    return of_the_inventory | {
        "HERMES_NAME": settings.name,
        "WORKER_VERSION": version,
        "HERMES_VERSION": sources.hermes_version,
        "HERMES_IMAGE": sources.image_for(settings),
        "HERMES_PLATFORM": settings.platform,
        "HERMES_ENGINE": settings.engine,
        "HERMES_BOTS": canonical(settings.bots),
        "HERMES_DASHBOARD": _dashboard(settings),
        "HERMES_AGENT": canonical(settings.agent),
        "PROVIDERS_ADDRESS": PROVIDERS_IN_CONTAINER
        if settings.engine != "process"
        else f"http://127.0.0.1:{settings.providers_port}",
    }


def compatibility_flags(settings: Settings) -> list[str]:
    """Return what the Worker asks of the runtime beyond its date.

    Clients that leave are told of; an object that finishes a turn alone, or waits on this machine for what people
    write, is not evicted during it.
    """
    alone = ["durable_object_io_tasks_prevent_eviction"]
    waits = bool(settings.bots) and settings.platform == "workerd"
    return [
        "enable_request_signal",
        *(alone if settings.on_disconnect == "finish" or waits else []),
    ]


def _dashboard(settings: Settings) -> str:
    """Return "on", or "off: " and why."""
    if not settings.dashboard:
        return "off: hermes_dashboard is false."
    if settings.platform == "cloudflare" and not settings.dashboard_hostname:
        return "off: hermes_dashboard_hostname is not set."
    return "on"

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a deployment runs: workerd on this machine, or Cloudflare, behind one face."""

from __future__ import annotations

from ..module_utils.settings.settings import Settings
from .build.runtime import Runtime
from .cloudflare.service import CloudflareService
from .state.folder import Deployment
from .workerd.service import WorkerdService

Service = WorkerdService | CloudflareService
"""Where a deployment is served."""


def service_of(
    settings: Settings, deployment: Deployment, runtime: Runtime, cloudflare_token: str = ""
) -> Service:
    """Return where a deployment is served. cloudflare_token: for pruning images."""
    if settings.platform == "workerd":
        return WorkerdService(settings, deployment, runtime)
    return CloudflareService(settings, deployment, runtime, cloudflare_token)

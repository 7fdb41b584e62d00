# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment that Cloudflare serves: its address and version, and what a proof of it permits to remove."""

from __future__ import annotations

from typing import Any

from ...module_utils.cards import Card
from ...module_utils.cloudflare.client import CloudflareError
from ...module_utils.settings.settings import Settings
from ...module_utils.worker_client import Answer, RemoteClient
from ..build.pruning import prune
from ..build.runtime import Runtime
from ..state.folder import StateFolder
from . import cost
from .deployed import not_served, read
from .image import prune as prune_images
from .place import open_api
from .wrangler_config import version_of


class CloudflareService:
    """Served by Cloudflare."""

    audience = "anyone on the internet"

    def __init__(
        self, settings: Settings, deployment: StateFolder, runtime: Runtime, token: str
    ) -> None:
        """token: Cloudflare's, for pruning images."""
        self.settings = settings
        self.deployment = deployment
        self.runtime = runtime
        self.token = token
        self.url = f"https://{settings.host}"
        self.reached = self.url
        self.version = version_of(settings, runtime.sources)

    def connect(self, token: str | None) -> RemoteClient:
        """Return a client with this token."""
        return RemoteClient(self.settings.host, token)

    def is_as_built(self) -> bool:
        """Tell that it runs what was uploaded: nobody changes that, and of variables set by hand the plan knows."""
        return True

    def stranger(self, token: str | None) -> RemoteClient:
        """Return a client with a made-up token, or none."""
        return RemoteClient(self.settings.host, token, is_secret=False)

    def not_served(self, answer: Answer | None) -> Card:
        """Return the card for a Worker that does not answer as it should."""
        return not_served(self.settings, answer, self.version)

    def prune(self) -> None:
        """Remove what the version before left here and, when that is wanted, in the registry."""
        prune(self.deployment, self.runtime)
        if not self.settings.prune_images:
            return
        api = open_api(self.settings, self.token, self.deployment, self.runtime.progress)
        try:
            deleted = prune_images(api, keep=read(api, self.settings.name).reference)
        except CloudflareError as error:
            raise error.card("hermes_prune_images") from error
        if deleted:
            self.runtime.progress(f"deleted old images from the registry: {', '.join(deleted)}")

    def dashboard(self, status: dict[str, Any]) -> str:
        """Return where Hermes' dashboard is, or why it is nowhere. status: the answer of /api/health."""
        if not self.settings.dashboard:
            return "off (hermes_dashboard)"
        if not self.settings.dashboard_hostname:
            return "off (hermes_dashboard_hostname is not set)"
        return f"https://{self.settings.dashboard_hostname} (sign in with the token)"

    def rows(self, status: dict[str, Any]) -> list[tuple[str, str]]:
        """Return what the summary says of the place. status: the answer of /api/health."""
        settings = self.settings
        return [
            ("sandbox", f"Cloudflare container, {settings.instance_type}"),
            *(("cost", words) for words in cost.estimates(settings)),
        ]

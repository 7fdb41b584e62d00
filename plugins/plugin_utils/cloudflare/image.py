# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image of Hermes in the account's registry: found there, or built here and pushed, once for all deployments."""

from __future__ import annotations

import time
from pathlib import Path

from ...module_utils.cards import Card
from ...module_utils.cloudflare import containers, registry
from ...module_utils.cloudflare.client import Cloudflare
from ...module_utils.docker import DockerError
from ...module_utils.settings.settings import Settings
from ..build import installer
from ..build.sources import REPOSITORY, Sources
from ..containers.image import QUIET_SECONDS, ContainerImage, speaking


class PushedImage(ContainerImage):
    """The image that Cloudflare's containers run Hermes from."""

    runs_here = False

    def __init__(
        self,
        settings: Settings,
        sources: Sources,
        runtime: Path,
        progress: installer.Progress,
        api: Cloudflare,
    ) -> None:
        """runtime: folder for what the build needs for its time; progress: shows one line."""
        super().__init__(settings, sources, runtime, progress)
        self.api = api
        self.remote = f"{registry.host()}/{api.account_id}/{REPOSITORY}"

    def reference(self) -> str:
        """Return the image's name by its digest in the registry; an empty text when it is not there."""
        images = registry.Registry(self.api)
        digest = images.digest(REPOSITORY, self.digest)
        return images.reference(REPOSITORY, digest) if digest else ""

    def missing(self) -> list[tuple[str, str]]:
        """Return what would have to be pulled: no sidecar, Cloudflare has its own."""
        return [entry for entry in super().missing() if entry[0] != "hermes_sidecar_image"]

    def prove_network(self) -> None:
        """Ask for nothing: no container runs Hermes here."""

    def publish(self) -> str:
        """Build and push the image unless another run did meanwhile; return its reference. Raises a Card.

        The engine keeps it: where the push fails, the next run need not build it again.
        """
        self.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        label = f"the image of Hermes {self.sources.hermes_version}"
        lock = self.runtime / f"push-{self.api.account_id}-{self.digest}"
        with installer.installing(lock, label, self.progress):
            try:
                return self.reference() or self._build_and_push()
            finally:
                lock.rmdir()

    def _build_and_push(self) -> str:
        self.install()
        with speaking(self.socket, self.settings):
            self.engine.tag(self.name, self.remote, self.digest)
            try:
                digest = self._push()
            finally:
                self.engine.remove_image(f"{self.remote}:{self.digest}")
        return f"{self.remote}@{digest}"

    def _push(self) -> str:
        said = [time.monotonic()]

        def tell(line: str) -> None:
            if time.monotonic() - said[0] > QUIET_SECONDS:
                said[0] = time.monotonic()
                self.progress(f"pushing the image: {line}")

        done = installer.timed(self.progress, f"pushing the image to {registry.host()}")
        username, password = registry.credentials(self.api)
        try:
            digest = self.engine.push(self.remote, self.digest, username, password, tell)
        except DockerError as error:
            raise Card.of(
                "the image of Hermes",
                f"{registry.host()} did not take it: {self.api.redact(str(error))}",
                "check the network to the registry and the token's permission Containers: Edit, then run it again.",
                "image",
                changed="Nothing was deployed.",
            ) from error
        done()
        return digest


def prune(api: Cloudflare, keep: str) -> list[str]:
    """Delete the images of Hermes that no Worker names, nor a version that a rollback goes back to.

    keep: reference that stays in any case. Returns the tags that were deleted.
    """
    images = registry.Registry(api, ("pull", "push"))
    tags = images.repositories().get(REPOSITORY, [])
    used = images.used(REPOSITORY, tags, {*containers.images_in_use(api), keep})
    deleted = [tag for tag in tags if tag not in used and images.delete(REPOSITORY, tag)]
    if deleted:
        images.collect()
    return deleted

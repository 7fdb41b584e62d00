# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment is built from: this collection's own files, and their digests."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from ...module_utils.digests import digest_of, files_below
from ...module_utils.settings.features import DEFAULT_FEATURES
from ...module_utils.settings.settings import Settings
from . import build_context, upstream_layer
from .installer import locked_version, python_tag
from .releases import Release

NPM_FILES = ("package.json", "package-lock.json")
REPOSITORY = "hermes-workers"
"""What the images for containers are called; their tag is the digest of their sources."""


class Sources:
    """The collection's own files, read-only, in a checkout or installed."""

    def __init__(
        self,
        root: Path | None = None,
        features: Sequence[str] = DEFAULT_FEATURES,
        release: Release | None = None,
    ) -> None:
        """root: the collection's folder, by default the one that this file is in; features: what Hermes has besides.

        release: another Hermes than the one that is pinned, or one with further packages.
        """
        self.features = features
        self.release = release
        self.root = root or Path(__file__).resolve().parents[3]
        self.container = self.root / "container"
        self.worker = self.root / "worker"
        self.hermes_lock = self.container / "requirements.lock"
        host = self.root / "host"
        self.host_lock = host / "host.lock"
        self.node_lock = self.root / "roles" / "worker" / "files" / "node.lock"
        self.wrangler_lock = self.root / "roles" / "worker" / "files" / "wrangler"
        # The client of container engines is beside the cleaner, which imports it.
        docker = self.root / "plugins" / "module_utils" / "docker.py"
        self.host_programs = [*sorted(host.glob("*.py")), docker]
        self.engine = self.container / "engine"
        self.sandbox = self.container / "sandbox"
        self.sqlite = self.container / build_context.SQLITE
        self.start_script = self.container / "start-hermes.sh"

    @cached_property
    def hermes_version(self) -> str:
        """The Hermes that is installed; without a word the release that the lock pins."""
        if self.release:
            return self.release.version
        return locked_version(self.hermes_lock, "hermes-agent")

    @property
    def lock_text(self) -> str:
        """The lock of Hermes with its features."""
        if self.release:
            return self.release.lock
        return build_context.lock_text(self.container, self.features)

    @cached_property
    def image(self) -> str:
        """Digest of the process engine's image."""
        paths = [self.start_script, *files_below(self.sandbox), *files_below(self.sqlite)]
        return digest_of(self.root, paths, self.lock_text, python_tag())

    def container_image(self, base: str) -> str:
        """Return the digest of the image for containers. base: the image it is built upon, empty for the default."""
        if self.release and self.release.image:
            layer = upstream_layer.digest(self.container, self.release.image)
            return digest_of(self.root, [], layer)
        further = self.release.debian if self.release else None
        sources = build_context.source_digest(
            self.container, "", self.lock_text, self.features, further
        )
        return digest_of(self.root, [], sources, base)

    def image_for(self, settings: Settings) -> str:
        """Return the name of the image that a deployment runs Hermes from, as the Worker knows it."""
        if settings.engine != "process":
            return f"{REPOSITORY}:{self.container_image(settings.base_image)}"
        return self.image

    @cached_property
    def host(self) -> str:
        """Digest of the host's runtime: its programs and the engine."""
        paths = [self.host_lock, *self.host_programs, *files_below(self.engine)]
        return digest_of(self.root, paths, python_tag())

    @cached_property
    def tools(self) -> str:
        """Digest of what npm installs for the Worker; tools of its developers do not count."""
        return digest_of(self.root, [], *self.production_packages.values())

    @cached_property
    def wrangler(self) -> str:
        """Digest of what npm installs to upload a Worker to Cloudflare."""
        return digest_of(self.root, [self.wrangler_lock / name for name in NPM_FILES])

    @cached_property
    def production_packages(self) -> dict[str, str]:
        """package.json and package-lock.json without anything that only developers need: name -> text."""
        manifest = json.loads((self.worker / "package.json").read_text(encoding="utf-8"))
        lock = json.loads((self.worker / "package-lock.json").read_text(encoding="utf-8"))
        manifest.pop("devDependencies", None)
        lock["packages"] = {
            path: entry for path, entry in lock["packages"].items() if not entry.get("dev")
        }
        lock["packages"][""].pop("devDependencies", None)
        manifest.pop("scripts", None)
        return {
            "package.json": json.dumps(manifest, indent=2),
            "package-lock.json": json.dumps(lock, indent=2),
        }

    @cached_property
    def code(self) -> str:
        """Digest of the Worker's sources and of the tools that bundle them."""
        return digest_of(
            self.root, files_below(self.worker / "src"), self.tools, *self._bundle_words()
        )

    def bundle_command(self, esbuild: Path, output: Path) -> list[str]:
        """Return the bundler's command, with the options that worker/package.json names."""
        return [str(esbuild), *self._bundle_words(), f"--outfile={output}"]

    def _bundle_words(self) -> list[str]:
        scripts = json.loads((self.worker / "package.json").read_text(encoding="utf-8"))["scripts"]
        return [
            word for word in shlex.split(scripts["bundle"])[1:] if not word.startswith("--outfile")
        ]

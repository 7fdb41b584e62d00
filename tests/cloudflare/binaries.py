# SPDX-License-Identifier: Apache-2.0
"""Where workerd and the process image come from: the product's own runtime, installed as a deployment installs it."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cloudflare.edge import ROOT, Binaries

if TYPE_CHECKING:
    from ansible_collections.hermes.workers.plugins.plugin_utils.build.runtime import Runtime

COLLECTIONS = ROOT / ".ansible" / "collections"
MACHINES = {"x86_64": "64", "amd64": "64", "aarch64": "arm64", "arm64": "arm64"}


class Installed(Binaries):
    """Installs what is missing into the runtime of a state folder."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir

    def workerd(self) -> Path:
        """Return workerd's binary: the one of the Worker's tests, else the deployment's."""
        name = f"workerd-{platform.system().lower()}-{MACHINES[platform.machine().lower()]}"
        checkout = ROOT / "worker" / "node_modules" / "@cloudflare" / name / "bin" / "workerd"
        if checkout.exists():
            return checkout
        runtime = self._runtime()
        runtime.install_tools()
        return runtime.workerd()

    def image(self) -> Path:
        """Return the process image's folder."""
        runtime = self._runtime()
        runtime.install_image()
        return runtime.image

    def _runtime(self) -> Runtime:
        if str(COLLECTIONS) not in sys.path:
            sys.path.insert(0, str(COLLECTIONS))
        from ansible_collections.hermes.workers.plugins.plugin_utils.build.runtime import Runtime
        from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
        from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder

        deployment = StateFolder(str(self.state_dir), "none")
        deployment.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Runtime(
            deployment,
            Sources(),
            lambda line: print(f"  stand-in | {line}", file=sys.stderr, flush=True),
        )

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs the process engine's image: Hermes from its hashed lock, with the sandbox's scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.hermes.workers.plugins.module_utils.digests import clean_bytes, files_below
from ansible_collections.hermes.workers.plugins.plugin_utils import installer
from ansible_collections.hermes.workers.plugins.plugin_utils.deploy import (
    SETTINGS_OPTION,
    DeploymentAction,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.plan import (
    IMAGE_MARKER,
    image_folder,
    image_installed,
    note_use,
)

# The engine starts this by its absolute path, on a PATH of its own.
LAUNCHER = """#!/bin/sh
root=${0%/bin/sandbox}
exec "$root/venv/bin/python" -I -S "$root/sandbox" "$@"
"""


class ActionModule(DeploymentAction):
    """hermes.workers.process_image"""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = SETTINGS_OPTION | {
        "planned": {"type": "bool", "default": False}
    }

    def deploy(self) -> dict[str, Any]:
        digest = self.sources.image
        # Hosts share the image: what preflight planned for a host counts, not which host came first.
        missing = not image_installed(self.deployment, self.sources)
        result = {"digest": digest, "hermes_version": self.sources.hermes_version}
        result["changed"] = missing or self.options["planned"]
        if self.check_mode or not missing:
            return result
        self.deployment.create()
        note_use(self.deployment, self.sources)
        folder = image_folder(self.deployment, self.sources)
        label = f"Hermes {self.sources.hermes_version}"
        with installer.installing(folder, label, self.progress, IMAGE_MARKER) as needed:
            if needed:
                done = installer.timed(self.progress, f"installing {label} from its hashed lock")
                self._install(folder)
                done()
        return result

    def _install(self, folder: Path) -> None:
        python = installer.make_environment(folder / "venv", self.sources.hermes_lock, "Hermes")
        for path in files_below(self.sources.sandbox):
            target = folder / "sandbox" / path.relative_to(self.sources.sandbox)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(clean_bytes(path))
        script = folder / "start-hermes.sh"
        script.write_bytes(clean_bytes(self.sources.start_script))
        launcher = folder / "bin" / "sandbox"
        launcher.parent.mkdir()
        launcher.write_text(LAUNCHER, encoding="utf-8")
        for path in (script, launcher):
            path.chmod(0o755)
        installer.run(
            [str(python), "-m", "compileall", "-q", str(folder / "sandbox")], "the sandbox"
        )
        description = {
            "digest": self.sources.image,
            "hermesVersion": self.sources.hermes_version,
            "entrypoint": ["sandbox", "init"],
        }
        installer.finish(folder, description, IMAGE_MARKER)

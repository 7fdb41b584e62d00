# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds a deployment's Worker: tools from npm, bundle, rendered workerd configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.hermes.workers.plugins.module_utils.errors import Card
from ansible_collections.hermes.workers.plugins.plugin_utils import installer
from ansible_collections.hermes.workers.plugins.plugin_utils.build import Rendered, render
from ansible_collections.hermes.workers.plugins.plugin_utils.deploy import (
    SETTINGS_OPTION,
    DeploymentAction,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.layout import disk_card, write_private
from ansible_collections.hermes.workers.plugins.plugin_utils.plan import (
    note_use,
    tools_folder,
    worker_built,
)


class ActionModule(DeploymentAction):
    """hermes.workers.worker_bundle"""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = SETTINGS_OPTION

    def deploy(self) -> dict[str, Any]:
        rendered = render(self.settings, self.sources)
        result: dict[str, Any] = {
            "version": rendered.version,
            "config": str(self.deployment.build / "config.capnp"),
        }
        if worker_built(self.deployment, rendered):
            return result | {"changed": False}
        if self.diff_mode:
            result["diff"] = self._diff(rendered)
        if not self.check_mode:
            self.deployment.create()
            self.deployment.take("deploy")
            note_use(self.deployment, self.sources)
            bundle = self._bundle(self._tools())
            self._write(rendered, bundle)
        return result | {"changed": True}

    def _diff(self, rendered: Rendered) -> dict[str, str]:
        path = self.deployment.build / "config.capnp"
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        shown = self.deployment.shown(path)
        return {
            "before": before,
            "after": rendered.text,
            "before_header": shown,
            "after_header": shown,
        }

    def _tools(self) -> Path:
        """Return the folder with workerd and the bundler, installing it when needed."""
        folder = tools_folder(self.deployment, self.sources)
        if installer.is_complete(folder):
            return folder
        with installer.installing(folder, "workerd", self.progress) as needed:
            if needed:
                npm, path = self._npm()
                done = installer.timed(self.progress, "installing workerd and the bundler from npm")
                for name, text in self.sources.production_packages.items():
                    (folder / name).write_text(text, encoding="utf-8")
                command = [
                    *npm,
                    "install",
                    "--ignore-scripts",
                    "--no-audit",
                    "--no-fund",
                    "--loglevel=error",
                ]
                installer.run(
                    command, "workerd", cwd=folder, env=installer.clean_environment(PATH=path)
                )
                workerd_binary(folder)
                installer.finish(folder, {"tools": self.sources.tools})
                done()
        return folder

    def _npm(self) -> tuple[list[str], str]:
        """Return npm's command, and the PATH with the node that it needs in front."""
        path = os.environ.get("PATH", os.defpath)
        if installer.system_node()[0]:
            return ["npm"], path
        folder = installer.install_node(
            self.deployment.runtime, self.sources.node_lock, self.progress
        )
        command, binaries = installer.packaged_npm(folder)
        return command, f"{binaries}{os.pathsep}{path}"

    def _bundle(self, tools: Path) -> Path:
        """Return the bundle of this code, made once for all deployments."""
        folder = self.deployment.runtime / f"bundle-{self.sources.code}"
        if installer.is_complete(folder):
            return folder / "worker.js"
        with installer.installing(folder, "the Worker", self.progress) as needed:
            if needed:
                esbuild = npm_binary(tools, "@esbuild", "esbuild")
                command = self.sources.bundle_command(esbuild, folder / "worker.js")
                env = installer.clean_environment(NODE_PATH=str(tools / "node_modules"))
                done = subprocess.run(
                    command,
                    cwd=self.sources.worker,
                    env=env,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode != 0:
                    raise installer.installer_card(
                        "the Worker", "esbuild", done.returncode, done.stderr
                    )
                installer.finish(folder, {"code": self.sources.code})
        return folder / "worker.js"

    def _write(self, rendered: Rendered, bundle: Path) -> None:
        """Fill the build folder; the version goes last, so that a cut run is seen as unfinished."""
        build = self.deployment.build
        try:
            (build / "version").unlink(missing_ok=True)
            shutil.copyfile(bundle, build / "worker.js.new")
            (build / "worker.js.new").replace(build / "worker.js")
            write_private(build / "config.capnp", rendered.text)
            write_private(build / "version", rendered.version + "\n")
        except OSError as error:
            raise disk_card(error, build) from error


def npm_binary(tools: Path, scope: str, name: str) -> Path:
    """Return the native binary that an npm package brings for this machine. Raises a Card when it is missing."""
    wanted = installer.package_platform()
    # workerd names x64 machines "64".
    package = f"workerd-{wanted}".replace("x64", "64") if name == "workerd" else str(wanted)
    path = tools / "node_modules" / scope / package / "bin" / name
    if not path.is_file():
        raise Card.of(
            name,
            f"npm installed no {name} for {wanted}.",
            "see whether npm is told to omit optional packages.",
            "tools",
        )
    return path


def workerd_binary(tools: Path) -> Path:
    """Return workerd's binary."""
    return npm_binary(tools, "@cloudflare", "workerd")

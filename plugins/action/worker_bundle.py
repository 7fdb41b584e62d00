# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds a deployment's Worker: tools from npm, bundle, rendered workerd configuration."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

from ..plugin_utils.actions.deployment_action import SETTINGS_OPTION, DeploymentAction
from ..plugin_utils.build.pruning import note_use
from ..plugin_utils.build.variables import Rendered
from ..plugin_utils.state.disk import disk_card, write_private
from ..plugin_utils.workerd.config import render
from ..plugin_utils.workerd.plan import worker_built


class ActionModule(DeploymentAction):
    """The action `hermes.workers.worker_bundle`."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = SETTINGS_OPTION

    def deploy(self) -> dict[str, Any]:
        """Build what is not built yet."""
        rendered = render(self.settings, self.sources)
        if not self.check_mode:
            self.deployment.create()
            self.deployment.take("deploy")
            self.note_variables()
        result: dict[str, Any] = {
            "version": rendered.version,
            "config": str(self.deployment.build / "config.capnp"),
        }
        if worker_built(self.settings, self.deployment, self.runtime, rendered):
            return result | {"changed": False}
        if self.diff_mode:
            result["diff"] = [self._diff(rendered), *self.agent_diffs(None)]
        if not self.check_mode:
            note_use(self.deployment, self.runtime)
            self.runtime.install_tools()
            self._write(rendered, self.runtime.install_bundle())
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

    def _write(self, rendered: Rendered, bundle: Path) -> None:
        """Fill the build folder; the version goes last, so that a cut run is seen as unfinished."""
        build = self.deployment.build
        try:
            (build / "version").unlink(missing_ok=True)
            shutil.copyfile(bundle, build / "worker.js.new")
            (build / "worker.js.new").replace(build / "worker.js")
            self.write_agent()
            write_private(build / "config.capnp", rendered.text)
            write_private(build / "version", rendered.version + "\n")
        except OSError as error:
            raise disk_card(error, build) from error

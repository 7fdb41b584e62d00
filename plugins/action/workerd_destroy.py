# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes a deployment away: processes, files, and the shared runtime when nobody else needs it."""

from __future__ import annotations

import shlex
import shutil
import time
from pathlib import Path
from typing import Any, ClassVar

from ..module_utils.cards import Card
from ..plugin_utils.actions.deployment_action import ExistingAction
from ..plugin_utils.build.pruning import others, remove_runtime
from ..plugin_utils.containers.image import Containers, speaking
from ..plugin_utils.inputs.answers import yes_or_no
from ..plugin_utils.proof.health import save_and_sleep
from ..plugin_utils.state.backups import folder_of, kept, pack
from ..plugin_utils.state.disk import disk_card
from ..plugin_utils.workerd.plan import at_boot_of
from ..plugin_utils.workerd.processes import Processes


class ActionModule(ExistingAction):
    """hermes.workers.workerd_destroy"""

    FURTHER_INPUTS: ClassVar[frozenset[str]] = frozenset(("confirm",))
    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = ExistingAction.OPTIONS | {
        "confirmed": {"type": "raw", "default": False},
        "forget": {"type": "raw", "default": False},
        "only_plan": {"type": "bool", "default": False},
    }

    def deploy(self) -> dict[str, Any]:
        confirmed = yes_or_no("confirm", self.options["confirmed"])
        forget = yes_or_no("hermes_forget", self.options["forget"])
        exists = self.deployment.folder.is_dir()
        self._refuse_what_is_elsewhere()
        if self.options["only_plan"]:
            self.show(self._plan(exists, forget))
            return {"changed": False, "exists": exists}
        if not exists or self.check_mode:
            return {"changed": exists}
        if not confirmed:
            raise Card.of(
                self.settings.name,
                "not destroyed: nobody confirmed it.",
                f"answer yes, or run `{self.command('destroy', confirm='yes')}`.",
                "confirm",
            )
        self.deployment.take("destroy")
        containers = self._containers()
        stored = self.deployment.has_storage()
        if stored and not forget:
            self._save()
        self.progress("stopping the processes")
        at_boot_of(self.settings).remove()
        Processes(self.deployment, self.sources.host).stop()
        backup = self._back_up() if stored and not forget else None
        if containers is not None:
            self.progress("removing its containers, snapshots and images")
            containers.remove_all()
        card = self._card(backup)  # while what was noted for its commands is there
        shutil.rmtree(self.deployment.folder)
        remove_runtime(self.deployment)
        self.show(card)
        return {"changed": True, "backup": str(backup) if backup else None}

    def _refuse_what_is_elsewhere(self) -> None:
        """Keep the folder of a deployment at Cloudflare: its token opens a Worker that would stay. Raises a Card."""
        host = self.deployment.note("host")
        if not host or self.deployment.has_storage():
            return
        raise Card.of(
            "hermes_platform",
            f"{self.settings.name} was deployed to Cloudflare (https://{host}), and the inventory says workerd.",
            "set hermes_platform: cloudflare, or say -e hermes_platform=cloudflare.",
            "platform",
        )

    def _containers(self) -> Containers | None:
        """Return what this deployment has in a container engine. Raises a Card when that does not answer."""
        place = self.deployment.containers()
        if place is None:
            return None
        containers = Containers(**place)
        with speaking(containers.socket):
            containers.engine.version()
        return containers

    def _plan(self, exists: bool, forget: bool) -> list[str]:
        shown = self.deployment.shown(self.deployment.folder)
        if not exists:
            return ["", f"{self.settings.name}: nothing to remove, there is no {shown}."]
        running = "running" if self.deployment.supervisor() else "not running"
        lines = ["", f"Plan to destroy {self.settings.name}"]
        lines += [
            f"  stop    its processes ({running})",
            f"  remove  {shown} (token, build, logs, memory)",
        ]
        place = self.deployment.containers()
        if place:
            lines.append(
                f"  remove  its containers, snapshots and images at unix:{place['socket']}"
            )
        if not others(self.deployment):
            lines.append(
                f"  remove  {self.deployment.shown(self.deployment.runtime)} (no other deployment uses it)"
            )
        if self.deployment.has_storage():
            lines.append(f"  {kept(folder_of(self.deployment), self.deployment, forget)}")
        return lines

    def _save(self) -> None:
        client = self.client()
        if client is not None:
            self.progress("saving Hermes' state")
            save_and_sleep(client, self.settings.name, "it is destroyed")

    def _back_up(self) -> Path:
        """Pack the stopped Durable Object's files and return the archive."""
        folder = folder_of(self.deployment)
        path = folder / f"{self.settings.name}-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz"
        try:
            pack(self.deployment.folder / "storage", path)
        except OSError as error:
            raise disk_card(
                error, folder, "Changed: processes stopped. Not changed: files and memory."
            ) from error
        return path

    def _card(self, backup: Path | None) -> list[str]:
        lines = ["", f"{self.settings.name}: destroyed"]
        if backup is None:
            return [*lines, "  no backup was kept"]
        folder = self.deployment.shown(self.deployment.folder)
        folder, archive = map(shlex.quote, (folder, self.deployment.shown(backup)))
        restore = f"mkdir -m 700 -p {folder} && tar -xzf {archive} -C {folder}"
        return [
            *lines,
            f"  backup  {self.deployment.shown(backup)}",
            "",
            "To have it back:",
            f"  {restore}",
            f"  {self.command('deploy')}",
        ]

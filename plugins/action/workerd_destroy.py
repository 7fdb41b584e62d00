# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes a deployment away: processes, files, and the shared runtime when nobody else needs it."""

from __future__ import annotations

from pathlib import Path

from ..module_utils.cards import Card
from ..plugin_utils.actions.destroy_action import DestroyAction
from ..plugin_utils.build.pruning import others
from ..plugin_utils.containers.image import Containers, speaking
from ..plugin_utils.proof.health import save_and_sleep
from ..plugin_utils.state import stored
from ..plugin_utils.state.backups import folder_of
from ..plugin_utils.state.disk import disk_card
from ..plugin_utils.workerd.plan import at_boot_of
from ..plugin_utils.workerd.processes import Processes


class ActionModule(DestroyAction):
    """The action `hermes.workers.workerd_destroy`."""

    stopped: str | None = None
    """The card's sentence once processes were stopped."""

    def judge(self) -> None:
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

    def exists(self) -> bool:
        """Tell whether anything of it is there."""
        return self.deployment.folder.is_dir()

    def has_memory(self) -> bool:
        """Tell whether Hermes may have anything to remember."""
        return self.deployment.has_storage()

    def removals(self) -> list[str]:
        """Return what goes, in words, each with a verb before it."""
        shown = self.deployment.shown
        running = "running" if self.deployment.supervisor() else "not running"
        found = [
            f"stop    its processes ({running})",
            f"remove  {shown(self.deployment.folder)} (token, build, logs, memory)",
        ]
        if place := self.deployment.containers():
            found.append(f"remove  its containers, snapshots and images at unix:{place['socket']}")
        if not others(self.deployment):
            found.append(f"remove  {shown(self.deployment.runtime)} (no other deployment uses it)")
        return found

    def end(self, *, keep: bool) -> Path | None:
        """Stop its processes; returns the last backup, if there is to be one. Raises a Card."""
        self.containers = self._containers()
        if keep:
            self._save()
        self.progress("stopping the processes")
        at_boot_of(self.settings).remove()
        if Processes(self.deployment, self.sources.host).stop():
            self.stopped = "Changed: processes stopped. Not changed: files and memory."
        return self._back_up() if keep else None

    def remove(self) -> None:
        """Remove everything but its folder."""
        if self.containers is not None:
            self.progress("removing its containers, snapshots and images")
            self.containers.remove_all()

    def _save(self) -> None:
        client = self.client()
        if client is not None:
            self.progress("saving Hermes' state")
            save_and_sleep(client, self.settings.name, "it is destroyed")

    def _back_up(self) -> Path | None:
        """Keep the newest backup that the stopped Durable Object's files hold; None when nothing was ever saved."""
        folder = folder_of(self.deployment)
        try:
            return stored.newest(self.deployment.folder / "storage", self.settings.name, folder)
        except OSError as error:
            raise disk_card(error, folder, self.stopped) from error
        except stored.NoBackup as error:
            if not str(error):
                return None
            raise self.no_backup(error, self.stopped) from error

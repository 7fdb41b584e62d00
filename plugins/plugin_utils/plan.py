# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares what a deployment should be with what it is, without changing anything."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets as random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..module_utils.digests import differing
from ..module_utils.settings.catalogue import SECRET_VARIABLES
from ..module_utils.settings.settings import Settings
from ..module_utils.worker_client import Unreachable, WorkerClient
from . import confinement
from .at_boot import AtBoot
from .build import Rendered, render, session_of, variables
from .container import ContainerImage
from .in_force import Restart, outstanding, preview, with_confinement
from .layout import Deployment, write_private
from .processes import CHANGED_BY_HAND, health
from .runtime import IMAGE_MARKER, Runtime

USES = "uses.json"
PREVIOUS = "API_TOKEN_PREVIOUS"
"""The API token that a rotation replaced; set by rotations only."""
WORKERD = "workerd"
EVERYTHING = "workerd, its engine and Hermes"
UNPROVED = "the Worker does not prove what secrets it holds"


@dataclass
class Change:
    """One line of a plan.

    action: create or update; what: image, worker, processes, secrets, hermes; detail: words; restarts: what starts
    again for it, in words, or an empty text.
    """

    action: str
    what: str
    detail: str
    restarts: str = ""


@dataclass
class Actual:
    """What is there now."""

    supervisor: dict[str, Any] | None = None
    client: WorkerClient | None = None
    """A client whose token the Worker accepts; None when the Worker does not answer or knows none of our tokens."""
    health: dict[str, Any] = field(default_factory=dict)
    """The answer of /api/health, or empty."""
    refuses: bool = False
    """Whether it answers, and takes none of our tokens."""
    build: str = ""
    """Digest of the build that the running workerd was started from."""

    @property
    def version(self) -> str | None:
        """The version of the Worker that answers."""
        return self.health.get("worker", {}).get("version")


def effective_secrets(
    settings: Settings, given: dict[str, str], deployment: Deployment
) -> dict[str, str]:
    """Return the secrets that the Worker should hold, with the API token kept in the state folder.

    Without an API token in the result (and without hermes_allow_unauthenticated) one has yet to be generated.
    """
    wanted = dict(given)
    if "API_TOKEN" not in wanted and not settings.allow_unauthenticated:
        kept = deployment.token()
        if kept:
            wanted["API_TOKEN"] = kept
    return wanted


def observe(settings: Settings, deployment: Deployment, wanted: dict[str, str]) -> Actual:
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
            content = answer.json()
            told = content if isinstance(content, dict) else {}
            return Actual(supervisor, client, told, build=deployment.running_build())
        refuses = refuses or (answer is not None and answer.status == 401)
    return Actual(supervisor, refuses=refuses)


def prove_secrets(client: WorkerClient | None, wanted: dict[str, str]) -> list[str] | None:
    """Return the variables of the secrets that differ from what the Worker holds; None when it gives no proof."""
    names = differing_secrets(client, wanted)
    return None if names is None else variables_of(names)


def variables_of(names: list[str]) -> list[str]:
    """Return the inventory variables that people know secrets by."""
    return [SECRET_VARIABLES.get(name, name) for name in names]


def differing_secrets(client: WorkerClient | None, wanted: dict[str, str]) -> list[str] | None:
    """Return the names of the secrets that differ from what the Worker holds; None when it gives no proof."""
    if client is None:
        return None
    nonce = random.token_hex(32)
    try:
        answer = client.request("POST", "/api/secrets/proof", {"nonce": nonce}, timeout=10)
    except Unreachable:
        return None
    content = answer.json()
    proofs = content.get("proofs") if isinstance(content, dict) else None
    if answer.status != 200 or not isinstance(proofs, dict):
        return None
    # The token of before a rotation stays until the next one: by then it is long refused, and nobody sets it by hand.
    return [name for name in differing(wanted, proofs, nonce) if name in wanted or name != PREVIOUS]


def worker_built(deployment: Deployment, runtime: Runtime, rendered: Rendered) -> bool:
    """Tell whether the build folder holds this version's configuration and bundle, as they were made."""
    try:
        return (
            build_digest(deployment.build) == wanted_build(runtime, rendered)
            and (deployment.build / "version").read_text(encoding="utf-8").strip()
            == rendered.version
        )
    except FileNotFoundError:
        return False


def build_digest(folder: Path) -> str:
    """Return the digest by which the supervisor notes what it starts workerd from. Raises FileNotFoundError."""
    return digest_of_build(
        (folder / "config.capnp").read_bytes(), (folder / "worker.js").read_bytes()
    )


def wanted_build(runtime: Runtime, rendered: Rendered) -> str | None:
    """Return the digest of the build that should run; None while its bundle is still to be made."""
    if not runtime.has_bundle():
        return None
    return digest_of_build(rendered.text.encode(), (runtime.bundle / "worker.js").read_bytes())


def digest_of_build(config: bytes, bundle: bytes) -> str:
    """Return the digest of a build; the supervisor computes the same."""
    return hashlib.sha256(config + b"\0" + bundle).hexdigest()


def processes_change(
    settings: Settings, runtime: Runtime, rendered: Rendered, actual: Actual
) -> Change | None:
    """Return what has to happen to the processes for this code and configuration; None when nothing has."""
    sources = runtime.sources
    if actual.supervisor is None:
        what = "workerd" if settings.engine == "docker" else "workerd and engine"
        return Change("create", "processes", f"{what} on 127.0.0.1:{settings.port}")
    if old := Deployment(settings.state_dir, settings.name).moved_from():
        return Change("update", "processes", f"moved here from {old}", restarts=True)
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
    if wanted_build(runtime, rendered) not in (None, actual.build):
        return Change("update", "processes", CHANGED_BY_HAND, WORKERD)
    if rebooted := at_boot_of(settings).differs(settings.after_reboot, runtime.host):
        return Change("update", "processes", rebooted, WORKERD)
    return None


def at_boot_of(settings: Settings) -> AtBoot:
    """Return what starts a deployment after a reboot."""
    return AtBoot(Deployment(settings.state_dir, settings.name), session_of(settings))


def hermes_change(
    variables: Mapping[str, str],
    actual: Actual,
    *,
    changed: bool,
    secrets: list[str],
    confines: bool | None = None,
) -> Change | None:
    """Return the restart of a running Hermes that a deploy brings; None when there is none.

    variables: of the Worker, as it should be; changed: whether it is to be given them; secrets: names of those that
    differ; confines: whether bubblewrap confines a Hermes that starts now.
    """
    restart: Restart | None = outstanding(actual.health)
    if changed or secrets:
        restart = preview(actual.client, variables, secrets)
        if restart is None:
            restart = _guessed(variables, actual)
    restart = with_confinement(restart, actual.health, confines)
    return Change("update", "hermes", restart.words, restart.words) if restart else None


def _guessed(variables: Mapping[str, str], actual: Actual) -> Restart:
    """Return what can be told of a Worker of an earlier release: which image its Hermes runs from."""
    running = actual.health.get("instance", {})
    if running.get("state", "asleep") == "asleep" or running.get("image") in (
        None,
        variables["HERMES_IMAGE"],
    ):
        return Restart()
    return Restart("sandbox", ["a new image"])


def make_plan(
    settings: Settings, secrets: dict[str, str], deployment: Deployment, runtime: Runtime
) -> list[Change]:
    """Return the changes that a deploy will make, in the order in which it makes them."""
    changes = []
    sources = runtime.sources
    images = ImageStore(settings, runtime)
    if not images.has_image():
        tag = f"Hermes {sources.hermes_version}, image {sources.image_for(settings)}"
        changes.append(Change("update" if images.has_other() else "create", "image", tag))
    rendered = render(settings, sources)
    if not worker_built(deployment, runtime, rendered):
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
    return changes


def kind_of(supervisor: dict[str, Any]) -> str:
    """Return the engine that a running supervisor was started for."""
    return supervisor.get("kind", "process")


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

    def install(self) -> None:
        """Make the image. Raises a Card."""
        if self.container:
            self.container.install()
        else:
            self.runtime.install_image()


def note_use(deployment: Deployment, runtime: Runtime, *, proved: bool = False) -> None:
    """Write down which parts of the shared runtime this deployment uses.

    Until the new parts are proved, the old ones count too: they may still run.
    """
    old = set() if proved else _uses(deployment.build) or set()
    used = sorted(runtime.parts() | old)
    write_private(deployment.build / USES, json.dumps(used) + "\n")


def _uses(build: Path) -> set[str] | None:
    """Return what a deployment wrote down that it uses, or None."""
    try:
        return set(json.loads((build / USES).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None


def prune(deployment: Deployment, runtime: Runtime) -> list[str]:
    """Remove what no deployment of this state folder uses any more; return what was removed.

    Called after a proof. A deployment that has not written down what it uses keeps everything.
    """
    used: set[str] = set()
    note_use(deployment, runtime, proved=True)
    for build in deployment.state_dir.glob("*/build"):
        theirs = _uses(build)
        if theirs is None:
            return []
        used |= theirs
    removed = []
    for pattern in ("images/*", "host-*", "worker-*", "wrangler-*", "bundle-*"):
        for folder in deployment.runtime.glob(pattern):
            name = folder.relative_to(deployment.runtime).as_posix()
            if name not in used and folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(name)
    return removed


def others(deployment: Deployment) -> list[Path]:
    """Return the folders of other deployments beside this one."""
    try:
        entries = list(deployment.state_dir.iterdir())
    except FileNotFoundError:
        return []
    return [entry for entry in entries if entry != deployment.folder and (entry / "build").is_dir()]


def remove_runtime(deployment: Deployment) -> None:
    """Remove the shared runtime and the folder around it, when no other deployment is there."""
    if others(deployment):
        return
    shutil.rmtree(deployment.runtime, ignore_errors=True)
    # Not when backups, or something of the owner's own, are in it.
    with contextlib.suppress(OSError):
        deployment.state_dir.rmdir()

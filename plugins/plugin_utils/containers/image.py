# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment has in a container engine: its image, the sidecar's, its containers and snapshots."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...module_utils.cards import Card, Problem
from ...module_utils.docker import EVERYWHERE, SESSION_LABEL, SNAPSHOTS, DockerEngine, DockerError
from ...module_utils.settings.settings import Settings
from ..build import build_context, conformance, installer, upstream_layer
from ..build.sources import REPOSITORY, Sources
from ..state.folder import session_of
from . import network

PYTHONS = ("3.11", "3.12", "3.13")
ASK_PYTHON = ["python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
# The words of Docker's classic builder, and Podman's, for the layer that a step left.
LAYER = re.compile(r"^ ?--+> ([0-9a-f]{11,64})$")
QUIET_SECONDS = 5.0
NO_COMMAND = re.compile("not found|no such file", re.IGNORECASE)


class Containers:
    """One deployment's part of a container engine. Every method raises a Card when the engine does not answer."""

    settings: Settings | None = None
    """Of the deployment, where it is about to be deployed."""

    def __init__(self, socket: str, session: str) -> None:
        """socket: path of the engine's unix socket; session: the id in workerd's configuration."""
        self.socket = socket
        self.session = session
        self.engine = DockerEngine(socket)
        self._holder = f"hermes-bridge-{session}"

    def network_words(self, egress: str) -> str:
        """Return what the containers' network leaves open: docs/docker-engine.md. egress: hermes_egress."""
        with speaking(self.socket, self.settings):
            address = self.engine.published_on()
        words = f"the sidecar's port is published on {address}"
        if address == EVERYWHERE:
            words += ', beyond this machine; "ip": "127.0.0.1" in daemon.json ends that'
        return words if egress == "open" else f"hermes_egress holds TCP, not UDP; {words}"

    def hold_bridge(self, image: str) -> bool:
        """Have Podman's bridge exist: it comes and goes with containers, but workerd waits on its address for theirs.

        image: any with a `sleep`. Returns whether nothing held it before.
        """
        with speaking(self.socket, self.settings):
            return self.engine.is_podman() and self.engine.keep_running(
                self._holder, image, ["sleep", "2147483647"]
            )

    def remove_all(self) -> None:
        """Remove containers, sidecars, snapshots and, unless another deployment uses it, the image."""
        with speaking(self.socket, self.settings):
            for container in [*self.engine.containers(self.session), self._holder]:
                self.engine.remove_container(container)
            self._remove_snapshots()
        self.prune(keep=None)

    def _remove_snapshots(self) -> None:
        for image in self.engine.images(SNAPSHOTS):
            if (image.get("Labels") or {}).get(SESSION_LABEL) == self.session:
                for name in image["RepoTags"]:
                    self.engine.remove_image(name)

    def prune(self, keep: str | None) -> None:
        """Give up this deployment's claims on images but the one on `keep`, and remove those that nobody claims.

        A claim is a further tag of the image, DIGEST-SESSION: deployments of other state folders, and of other users
        of the engine, are seen by theirs.
        """
        kept = f"{keep}-{self.session}" if keep else None
        with speaking(self.socket, self.settings):
            touched = set()
            for image, names in self._named():
                for name in names:
                    if name.endswith(f"-{self.session}") and name != kept:
                        self.engine.remove_image(name)
                        touched.add(image)
            # Looked at again: of deployments that give up at the same time, the last one has to see that it is.
            for image, names in self._named():
                if image in touched and not any("-" in _tag(name) for name in names):
                    for name in names:
                        self.engine.remove_image(name)

    def _named(self) -> list[tuple[str, list[str]]]:
        """Return the images of Hermes, by id, with their names; those of other repositories are not ours to remove."""
        return [
            (image["Id"], [name for name in image["RepoTags"] if name.startswith(f"{REPOSITORY}:")])
            for image in self.engine.images(REPOSITORY)
        ]


class ContainerImage(Containers):
    """The image that a deployment runs Hermes from, and its sidecar's."""

    settings: Settings
    runs_here = True
    """Whether the engine that builds it runs it, too."""

    def __init__(
        self, settings: Settings, sources: Sources, runtime: Path, progress: installer.Progress
    ) -> None:
        """runtime: folder for what the build needs for its time; progress: shows one line."""
        super().__init__(settings.docker_socket, session_of(settings))
        self.settings = settings
        self.sources = sources
        self.runtime = runtime
        self.progress = progress
        self.digest = sources.container_image(settings.base_image)
        self.name = f"{REPOSITORY}:{self.digest}"
        self.claim = f"{self.name}-{self.session}"
        self.upstream = settings.source.get("image", "")
        self.base = self.upstream or settings.base_image or default_base(sources.container)

    def has_image(self) -> bool:
        """Tell whether the image is there and claimed, and the sidecar's is there."""
        with speaking(self.socket, self.settings):
            there = (self.engine.image(self.claim), self.engine.image(self.settings.sidecar_image))
        return None not in there

    def missing(self) -> list[tuple[str, str]]:
        """Return what would have to be pulled: (inventory variable, name of the image)."""
        with speaking(self.socket, self.settings):
            needed = []
            if self.engine.image(self.name) is None:
                variable = "hermes_source" if self.upstream else "hermes_base_image"
                needed.append((variable, self.base))
            needed.append(("hermes_sidecar_image", self.settings.sidecar_image))
            return [entry for entry in needed if self.engine.image(entry[1]) is None]

    def has_other(self) -> bool:
        """Tell whether an image for other sources is there."""
        with speaking(self.socket, self.settings):
            return bool(self.engine.images(REPOSITORY))

    def install(self) -> None:
        """Pull what is missing, build the image unless another deployment did, and claim it. Raises a Card."""
        self.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        for variable, name in self.missing():
            with speaking(self.socket, self.settings):
                pull(self.engine, variable, name, self.progress)
        folder = self.runtime / f"context-{self.digest}"
        label = f"the image of Hermes {self.sources.hermes_version}"
        with (
            installer.installing(folder, label, self.progress),
            speaking(self.socket, self.settings),
        ):
            try:
                if self.engine.image(self.name) is None:
                    self._build(folder, label)
                self.engine.tag(self.name, REPOSITORY, _tag(self.claim))
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _build(self, folder: Path, label: str) -> None:
        release = self.sources.release
        of_upstream = release is not None and bool(release.image)
        python = release.python if release and of_upstream else self._python()
        self.prove_network()
        uv = installer.find_uv()
        if uv is None:
            raise Card.of(
                "uv",
                "not found; it brings the packages of Hermes into the image.",
                "install it (pip install uv) beside Ansible or on the PATH, then run it again.",
                "tools",
            )
        done = installer.timed(self.progress, f"installing Hermes {self.sources.hermes_version}")
        container = self.sources.container
        try:
            if of_upstream:
                upstream_layer.prepare(container, folder, python, [uv])
            else:
                build_context.prepare(
                    container,
                    folder,
                    python,
                    [uv],
                    self.sources.lock_text,
                    self.sources.features,
                    release.wheels if release else None,
                    release.debian if release else None,
                )
        except build_context.BuildContextError as error:
            if error.overwritten:
                raise installer.overwritten("Hermes", error.overwritten, [*error.detail]) from error
            raise installer.installer_card(
                "Hermes", error.tool, 1, "\n".join(error.detail) or str(error)
            ) from error
        done()
        done = installer.timed(self.progress, f"building {label}")
        arguments = {
            "BASE_IMAGE": self.base,
            "HERMES_VERSION": self.sources.hermes_version,
            "SOURCE_DIGEST": self.digest,
        }
        printed: list[str] = []
        try:
            self.engine.build(folder, self.name, arguments, printed.append)
        except DockerError as error:
            raise Card.of(
                label,
                f"the container engine could not build it: {error}",
                "read the lines above, mend their cause and run it again.",
                "image",
                detail=[line[:200] for line in printed[-8:]],
            ) from error
        finally:
            self._drop_layers(printed)
        self._conforms()
        done()

    def _conforms(self) -> None:
        """See that another Hermes than the pinned one is what is assumed of one. Raises a Card."""
        if self.sources.release is None:
            return
        root = upstream_layer.SANDBOX if self.sources.release.image else "/opt/hermes"
        try:
            suite = [f"{root}/bin/python3", "-P", f"{root}/{conformance.SUITE}"]
            told = self.engine.run(self.name, suite)
            conformance.judge(self.sources.release, told, self.progress)
        except (Card, DockerError):
            self.engine.remove_image(self.name)
            raise

    def prove_network(self) -> None:
        """Have a container call this machine, as workerd's sidecar will for all that Hermes asks for. Raises a Card."""
        new = self.hold_bridge(self.settings.sidecar_image)
        if why := network.why_unreachable(self.engine, self.base):
            if new:
                self.engine.remove_container(self._holder)
            raise Card.of(
                "hermes_engine",
                f"docker needs containers that can call this machine, and those of unix:{self.socket} cannot: {why}.",
                "let a firewall pass what comes from the engine's bridge; a rootless engine, or a Podman before 4.7, "
                f"needs what the docs say{_or_processes(self.settings)}.",
                "docker",
            )

    def _python(self) -> str:
        """Return the base's Python as "3.12": the packages have to fit it."""
        try:
            found = self.engine.run(self.base, ASK_PYTHON).strip()
        except DockerError as error:
            if error.status and not NO_COMMAND.search(str(error)):
                raise  # no container starts at all
            found = " ".join(str(error).split())[:200]
        if found in PYTHONS:
            return found
        raise Card.of(
            "hermes_base_image",
            f"{self.base} has no Python that Hermes runs on ({found}).",
            f"set hermes_base_image to an image with Python {', '.join(PYTHONS)}, or leave it out.",
            "image",
        )

    def _drop_layers(self, printed: list[str]) -> None:
        """Remove what the classic builder kept of the steps before the last layer: as large as the image itself."""
        found = [match[1] for match in map(LAYER.match, printed) if match]
        for layer in reversed(list(dict.fromkeys(found))):
            image = self.engine.image(layer)
            if self.upstream and image and image.get("RepoDigests"):
                continue  # upstream's own, should the build have failed
            if image is not None and not image.get("RepoTags"):
                self.engine.remove_image(layer)


def pull(engine: DockerEngine, variable: str, name: str, progress: installer.Progress) -> None:
    """Pull an image. variable: that named it. Raises a Card, and what an engine that does not answer makes."""
    said = [0.0]

    def tell(line: str) -> None:
        if time.monotonic() - said[0] > QUIET_SECONDS:
            said[0] = time.monotonic()
            progress(f"pulling {name}: {line}")

    done = installer.timed(progress, f"pulling {name}")
    try:
        engine.pull(name, tell)
    except DockerError as error:
        raise Card([pull_problem(variable, name, str(error))]) from error
    done()


def default_base(container: Path) -> str:
    """Return the base that the Dockerfile names."""
    text = (container / "Dockerfile").read_text(encoding="utf-8")
    return str(re.findall(r"^ARG BASE_IMAGE=(\S+)", text, re.MULTILINE)[0])


def pull_problem(variable: str, name: str, why: str) -> Problem:
    """Return the problem of an image that is not there and cannot be had."""
    return Card.of(
        variable,
        f"{name} is not in the container engine and cannot be pulled: {' '.join(why.split())[:300]}.",
        f"check the engine's network, pull or load the image by hand, or set {variable} to one that it has.",
        "image",
    ).problems[0]


@contextmanager
def speaking(socket: str, settings: Settings | None = None) -> Iterator[None]:
    """Turn the failures of an engine that does not answer, or refuses, into a Card.

    settings: of what is to be deployed, which could do without an engine.
    """
    try:
        yield
    except OSError as error:
        # A file's error names the file; a socket's does not.
        if error.filename is not None:
            raise
        if isinstance(error, PermissionError):
            raise _engine_card(
                settings,
                f"you may not open unix:{socket}.",
                "have yourself added to its group (Docker's is `docker`), or name an engine of your own",
            ) from error
        raise _engine_card(
            settings,
            f"none answers at unix:{socket} ({error.strerror or error}).",
            "start Docker, or Podman's service (systemctl start podman.socket), or name the one you have",
        ) from error
    except DockerError as error:
        raise _engine_card(
            settings,
            f"the one at unix:{socket} refuses: {error}.",
            "mend that, or name another engine",
        ) from error


def _engine_card(settings: Settings | None, sentence: str, remedy: str) -> Card:
    subject, need = "hermes_engine", "docker needs a Docker engine"
    if settings and settings.platform == "cloudflare":
        subject, need = (
            "hermes_platform",
            "cloudflare needs a Docker engine here to build the image",
        )
    return Card.of(
        subject,
        f"{need}, and {sentence}",
        f"{remedy} by hermes_docker_socket (unix:/path){_or_processes(settings)}.",
        "docker",
    )


def _or_processes(settings: Settings | None) -> str:
    """Return the way without an engine, where nothing else that was set refuses it."""
    return "; hermes_engine: process needs none" if settings and settings.may_be_processes else ""


def _tag(name: str) -> str:
    return name.rsplit(":", 1)[1]

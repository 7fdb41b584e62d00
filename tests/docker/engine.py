# SPDX-License-Identifier: Apache-2.0
"""A Docker engine of the tests' own, and the images that they run in it."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.standins.base_image import build as base_image

ROOT = Path(__file__).resolve().parents[2]
CONTAINER = ROOT / "container"
SIDECAR = ROOT / "tests" / "standins" / "sidecar"
BASE = "hermes-tests/base:debian"
KEPT = "hermes-tests/kept"
"""Repository of images that outlive the deployment that built them: whoever destroys the last one removes the image."""
NO_FORWARDING = "WARNING: IPv4 forwarding is disabled"
# Any file below these is a cache; tests work without.
CACHE = Path(os.environ.get("HERMES_TEST_CACHE") or ROOT / ".cache")


def without(reason: str) -> NoReturn:
    """Skip for want of something; where no skip is allowed, fail."""
    if os.environ.get("HERMES_TESTS_NO_SKIPS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """Return the first true value of `condition`; fail when there is none in time."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)
    return value


@dataclass
class Docker:
    """One Docker engine. `gateway` is this machine's address as containers see it."""

    socket: Path
    gateway: str

    def __call__(self, *words: str, check: bool = True, text: str | None = None) -> str:
        """Run the docker command and return what it printed, both streams."""
        done = subprocess.run(
            ["docker", "--host", f"unix://{self.socket}", *words],
            # The classic builder is everywhere; BuildKit needs a plugin that Debian 12 lacks.
            env={**os.environ, "DOCKER_BUILDKIT": "0", "DOCKER_CLI_HINTS": "false"},
            input=text or "",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"exit code {done.returncode}: {done.stdout}"
        # Said of every container where the machine forwards nothing; none of ours needs that.
        kept = (line for line in done.stdout.splitlines() if not line.startswith(NO_FORWARDING))
        return "\n".join(kept).strip()

    def answers(self) -> bool:
        """Whether the engine serves its API: what the command prints says "Version" without an engine too."""
        words = ["docker", "--host", f"unix://{self.socket}", "info"]
        return subprocess.run(words, capture_output=True).returncode == 0

    def inspect(self, name: str) -> dict[str, Any]:
        return dict(json.loads(self("inspect", name))[0])

    def build(self, folder: Path, name: str, *words: str, **arguments: str) -> str:
        for key, value in arguments.items():
            words += ("--build-arg", f"{key}={value}")
        self("build", "--quiet", "--tag", name, *words, str(folder))
        return name


@dataclass
class Image:
    """An image of Hermes and the build folder that it was made from."""

    name: str
    folder: Path
    digest: str
    layers: list[str]


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """The engine of this run."""
    with running_engine(tmp_path_factory.mktemp("docker")) as engine:
        yield engine


@contextmanager
def running_engine(folder: Path) -> Iterator[Docker]:
    """The engine that HERMES_TEST_DOCKER_SOCKET names, else one of our own with its data in `folder`."""
    given = os.environ.get("HERMES_TEST_DOCKER_SOCKET")
    if not shutil.which("docker"):
        without("the docker command is not installed")
    if given:
        engine = Docker(Path(given), "")
        bridge = engine.inspect("bridge")["IPAM"]["Config"][0]
        engine.gateway = bridge.get("Gateway") or without(f"the bridge of {given} has no gateway")
        yield engine
        return
    with Daemon(folder) as daemon:
        yield daemon.engine


class Daemon:
    """An engine beside any other: own folders, own bridge, no firewall rules. It can be stopped and started again."""

    def __init__(self, folder: Path, data: Path | None = None) -> None:
        """folder: for all of its files; data: for images and containers, where that is to be elsewhere."""
        for tool in ("dockerd", "ip"):
            if not shutil.which(tool, path=system_path()):
                without(f"{tool} is not installed")
        if os.geteuid() != 0:
            without(
                "only root can start a Docker engine; HERMES_TEST_DOCKER_SOCKET names a running one"
            )
        self.folder = folder
        self.data = data or folder / "data"
        self.bridge, gateway = _bridge()
        self.engine = Docker(folder / "socket", gateway)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Daemon:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if left := self.engine("ps", "--all", "--quiet").split():
                self.engine("rm", "--force", "--volumes", *left)
        finally:
            self.close()

    def start(self) -> None:
        """Start it and wait until it answers."""
        folder, log = self.folder, self.folder / "log"
        command = [
            *("dockerd", "--host", f"unix://{folder}/socket", "--pidfile", f"{folder}/pid"),
            *("--data-root", str(self.data), "--exec-root", f"{folder}/exec"),
            *("--bridge", self.bridge, "--iptables=false", "--ip6tables=false"),
            "--ip-forward=false",
        ]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "PATH": system_path()},
                start_new_session=True,
            )
        end = time.monotonic() + 60
        while not self.engine.answers():
            if self.process.poll() is not None or time.monotonic() > end:
                without("dockerd does not start: " + log.read_text()[-1500:])
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop it, and its containers with it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=60)
            self.process = None

    @contextmanager
    def back_afterwards(self) -> Iterator[None]:
        """Whatever comes of a stop meanwhile, what follows finds it running."""
        try:
            yield
        finally:
            if self.process is None:
                self.start()

    def close(self) -> None:
        """Stop it and take its bridge away."""
        try:
            self.stop()
        finally:
            _ip("link", "delete", self.bridge)


def _bridge() -> tuple[str, str]:
    """Make a bridge on a free range; return its name and address."""
    network = free_range()
    gateway = str(network[1])
    name = f"hermes{os.getpid() % 100000}x{gateway.split('.')[2]}"
    _ip("link", "add", name, "type", "bridge")
    _ip("address", "add", f"{gateway}/24", "dev", name)
    _ip("link", "set", name, "up")
    return name, gateway


def free_range() -> ipaddress.IPv4Network:
    """Return a range of addresses that this machine has no route to."""
    for third in range(256):
        network = ipaddress.IPv4Network(f"172.30.{third}.0/24")
        if not any(network.overlaps(taken) for taken in _routes()):
            return network
    without("there is no free address range for a bridge")


def _routes() -> Iterator[ipaddress.IPv4Network]:
    for line in Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]:
        words = line.split()
        address, mask = (
            socket.inet_ntoa(struct.pack("=I", int(words[index], 16))) for index in (1, 7)
        )
        if mask != "0.0.0.0":
            yield ipaddress.IPv4Network(f"{address}/{mask}")


def _ip(*words: str) -> None:
    environment = {**os.environ, "PATH": system_path()}
    subprocess.run(["ip", *words], check=True, env=environment)


def system_path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


@pytest.fixture(scope="session")
def base(docker: Docker) -> str:
    """The base image: the one that HERMES_TEST_BASE_IMAGE names, else one of Debian's packages."""
    return load_base(docker)


def load_base(docker: Docker) -> str:
    """Bring the base image into an engine; return its name."""
    if given := os.environ.get("HERMES_TEST_BASE_IMAGE"):
        return given
    if not shutil.which("debootstrap", path=system_path()):
        without("debootstrap is not installed")
    docker("load", "--input", str(base_image.archive(CACHE / "base-image", BASE)))
    return BASE


@pytest.fixture(scope="session")
def sidecar(docker: Docker, base: str) -> str:
    """The stand-in for workerd's network sidecar."""
    return build_sidecar(docker, base)


def build_sidecar(docker: Docker, base: str) -> str:
    """Build the stand-in for workerd's network sidecar in an engine; return its name."""
    return docker.build(SIDECAR, "hermes-tests/sidecar:stand-in", BASE_IMAGE=base)


@pytest.fixture(scope="session")
def build_hermes(
    docker: Docker, base: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Image]:
    """Build an image of Hermes from a `container` folder, without any cache of the engine."""
    # pytest-ansible makes collections importable after this file was read.
    from ansible_collections.hermes.workers.plugins.plugin_utils.build import build_context

    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uv is None:
        without("uv is not installed")
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = docker("run", "--rm", "--entrypoint", "python3", base, "-c", ask)

    def build(container: Path, tag: str, features: Sequence[str] = ()) -> Image:
        folder = tmp_path_factory.mktemp("build") / "context"
        lock = build_context.lock_text(container, features)
        digest = build_context.prepare(container, folder, version, [uv], lock, features)
        name = docker.build(
            folder,
            f"hermes-tests/hermes:{tag}",
            "--no-cache",
            BASE_IMAGE=base,
            HERMES_VERSION=build_context.hermes_version(container),
            SOURCE_DIGEST=digest,
        )
        return Image(name, folder, digest, docker.inspect(name)["RootFS"]["Layers"])

    return build


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout's `container` folder as it is now: edits during the run change no build."""
    folder = tmp_path_factory.mktemp("sources") / "container"
    return Path(shutil.copytree(CONTAINER, folder))


@pytest.fixture(scope="session")
def image(docker: Docker, base: str, build_hermes: Callable[..., Image], sources: Path) -> Image:
    """The image of Hermes, as a deploy builds it; deployments of later modules take it."""
    from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources

    built = build_hermes(sources, "checkout")
    docker("tag", built.name, f"{KEPT}:{Sources().container_image(base)}")
    return built

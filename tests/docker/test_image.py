# SPDX-License-Identifier: Apache-2.0
"""The image of Hermes: what is in it, what is not, and how it lives as a container."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.docker.engine import Docker, Image, until
from tests.standins.provider import Provider

LARGEST = 450_000_000
CANARY = "canary-5be1f0c2-not-in-any-image"
GATEWAY_KEY = "gateway-key-0123456789abcdef"
DASHBOARD_TOKEN = "dashboard-token-0123456789abcdef"
_numbers = itertools.count()


@dataclass
class Sandbox:
    """A container of the image, started as workerd starts it; `boot` is its boot id."""

    docker: Docker
    name: str
    boot: str

    def sandbox(self, command: str, *words: str, text: str | None = None) -> str:
        """Run one of the sandbox's own commands in the container."""
        words = (*self.bare, "sandbox", command, "--boot", self.boot, *words)
        return self.docker("exec", "--interactive", self.name, *words, text=text)

    @property
    def bare(self) -> tuple[str, ...]:
        """What runs a command as Cloudflare does: of the image's environment, and of the start's, it has PATH alone."""
        environ = self.docker.inspect(self.name)["Config"]["Env"]
        (path,) = (entry for entry in environ if entry.startswith("PATH="))
        return ("env", "-i", path)

    def sh(self, script: str, *, check: bool = True) -> str:
        return self.docker("exec", self.name, "sh", "-c", script, check=check)

    @property
    def state(self) -> dict[str, Any]:
        return dict(self.docker.inspect(self.name)["State"])

    def answers(self) -> bool:
        """Tell whether its first process takes orders."""
        command = (*self.bare, "sandbox", "status", "--boot", self.boot)
        return self.docker("exec", self.name, *command, check=False).startswith("{")

    @property
    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.sandbox("status")))

    def go(self, provider_url: str, provider_key: str) -> None:
        """Let Hermes start with an empty state, and wait until it is up."""
        model = {
            "provider": "custom",
            "default": "stand-in",
            "base_url": f"{provider_url}/v1",
            "api_key": provider_key,
            "context_length": 200_000,
        }
        go = {
            "config": {"model": model, "security": {"tirith_enabled": False}},
            "env": {
                "API_SERVER_KEY": GATEWAY_KEY,
                "API_SERVER_ENABLED": "true",
                "HERMES_DASHBOARD_SESSION_TOKEN": DASHBOARD_TOKEN,
            },
        }
        self.sandbox("restore", "--empty")
        self.sandbox("go", text=json.dumps(go))
        until(lambda: self.status["state"] == "running", "Hermes is running", 60)

    def page(self, path: str, token: str) -> tuple[int, str]:
        """Ask the dashboard from outside the container, as the platform does."""
        address = self.docker.inspect(self.name)["NetworkSettings"]["IPAddress"]
        connection = http.client.HTTPConnection(address, 9119, timeout=60)
        connection.request(
            "GET", path, headers={"Host": "127.0.0.1", "X-Hermes-Session-Token": token}
        )
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def chat(self, text: str) -> dict[str, Any]:
        address = self.docker.inspect(self.name)["NetworkSettings"]["IPAddress"]
        connection = http.client.HTTPConnection(address, 18789, timeout=60)
        body = json.dumps({"messages": [{"role": "user", "content": text}]})
        headers = {"Authorization": f"Bearer {GATEWAY_KEY}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", body, headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        return dict(json.loads(answer.read()))


@pytest.fixture
def start(docker: Docker, image: Image) -> Iterator[Callable[..., Sandbox]]:
    """Start containers; they are gone after the test."""
    names: list[str] = []

    def run(*options: str) -> Sandbox:
        # No id of the sandboxes outside containers: each kills what carries its own, in a container too.
        boot = f"container-{next(_numbers)}"
        names.append(boot)
        environment = ("--env", f"HERMES_BOOT_ID={boot}")
        docker("run", "--detach", "--name", boot, *environment, *options, image.name)
        sandbox = Sandbox(docker, boot, boot)
        until(sandbox.answers, "PID 1 takes orders")
        return sandbox

    yield run
    for name in names:
        docker("rm", "--force", "--volumes", name)


@pytest.fixture
def provider(docker: Docker) -> Iterator[Provider]:
    """A model provider that containers reach at the bridge's address."""
    with Provider("provider-key-0123456789", host=docker.gateway) as running:
        yield running


def test_it_is_small(docker: Docker, image: Image) -> None:
    assert docker.inspect(image.name)["Size"] <= LARGEST


def test_it_says_what_it_is(docker: Docker, image: Image) -> None:
    config = docker.inspect(image.name)["Config"]
    assert config["Entrypoint"] == ["sandbox", "init"]
    assert config["Labels"]["org.opencontainers.image.version"] == "0.19.0"
    assert config["Labels"]["workers.hermes.source-digest"] == image.digest


def test_it_can_neither_install_nor_compile(start: Callable[..., Sandbox]) -> None:
    sandbox = start()
    found = sandbox.sh("command -v pip pip3 uv gcc cc make ld npm; true")
    assert found == ""
    for module in ("pip", "ensurepip", "setuptools"):
        for python in ("python3", "/opt/hermes/bin/python3"):
            imported = sandbox.sh(f"{python} -c 'import {module}'", check=False)
            assert "No module named" in imported, f"{python} has {module}"


def test_nothing_is_compiled_at_run_time(start: Callable[..., Sandbox], provider: Provider) -> None:
    sandbox = start()
    sandbox.go(provider.url, provider.key)
    sandbox.chat("Hello")
    added = [line for line in sandbox.docker("diff", sandbox.name).splitlines() if ".pyc" in line]
    assert added == []


def test_equal_sources_make_an_equal_layer(
    docker: Docker,
    image: Image,
    build_hermes: Callable[..., Image],
    sources: Path,
    tmp_path: Path,
) -> None:
    """A Windows clone with its owner's secrets beside it gives the same bytes as the checkout."""
    clone = tmp_path / "container"
    shutil.copytree(sources, clone)
    for path in clone.rglob("*"):
        if path.suffix in (".py", ".sh", ".lock") or path.name == "Dockerfile":
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
            path.chmod(0o600)
    for name in (".env", "api_token", "sandbox/.env", "sandbox/notes.txt"):
        (clone / name).write_text(CANARY)

    again = build_hermes(clone, "clone")

    assert again.digest == image.digest
    assert again.layers == image.layers
    archive = tmp_path / "image.tar"
    docker("save", "--output", str(archive), again.name)
    assert CANARY.encode() not in archive.read_bytes()
    assert b"\r\n" not in _files_of(archive, "opt/hermes/start-hermes.sh")


def _files_of(archive: Path, name: str) -> bytes:
    """Return one file's content from the only layer of a saved image."""
    with tarfile.open(archive) as outer:
        manifest = json.load(outer.extractfile("manifest.json"))
        (layer,) = manifest[0]["Layers"]
        with tarfile.open(fileobj=outer.extractfile(layer)) as inner:
            return inner.extractfile(name).read()


def test_hermes_answers_a_chat(start: Callable[..., Sandbox], provider: Provider) -> None:
    sandbox = start()
    sandbox.go(provider.url, provider.key)
    answer = sandbox.chat("Is anybody there?")
    assert "Is anybody there?" in answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_the_dashboard_is_reached_from_outside_with_its_token_only(
    start: Callable[..., Sandbox], provider: Provider
) -> None:
    sandbox = start()
    sandbox.go(provider.url, provider.key)
    sandbox.chat("Is anybody there?")
    with pytest.raises(ConnectionRefusedError):  # it costs memory: only who wants it gets it
        sandbox.page("/", DASHBOARD_TOKEN)
    sandbox.sandbox("dashboard")
    assert sandbox.page("/", DASHBOARD_TOKEN)[0] == 200
    assert "Is anybody there?" in sandbox.page("/api/sessions", DASHBOARD_TOKEN)[1]
    assert sandbox.page("/", "wrong") == (401, "")
    assert "node: ok" in sandbox.sh("node -e 'console.log(\"node: ok\")'")


def test_keys_are_in_no_snapshot(
    docker: Docker, start: Callable[..., Sandbox], provider: Provider, tmp_path: Path
) -> None:
    """A snapshot is the container's disk; neither key, nor the marker of a restore, lies on it."""
    sandbox = start()
    sandbox.go(provider.url, provider.key)
    sandbox.chat("Remember me")
    disk = tmp_path / "disk.tar"
    docker("export", "--output", str(disk), sandbox.name)
    content = disk.read_bytes()
    assert GATEWAY_KEY.encode() not in content
    assert provider.key.encode() not in content
    with tarfile.open(disk) as tar:
        assert [name for name in tar.getnames() if name.startswith("run/hermes/")] == []


def test_it_reaps_orphans(start: Callable[..., Sandbox]) -> None:
    sandbox = start()
    sandbox.sandbox("status")
    sandbox.sh("for i in 1 2 3 4 5; do (sleep 0.1 &); done")
    processes = "cat /proc/[0-9]*/stat"
    until(lambda: "(sleep)" not in sandbox.sh(processes, check=False), "orphans are reaped", 10)


def test_term_ends_it_cleanly(start: Callable[..., Sandbox], provider: Provider) -> None:
    sandbox = start()
    sandbox.go(provider.url, provider.key)
    sandbox.docker("kill", "--signal", "TERM", sandbox.name)
    until(lambda: not sandbox.state["Running"], "the container has ended", 20)
    assert sandbox.state["ExitCode"] == 0


def test_a_boot_that_died_is_not_started_again(start: Callable[..., Sandbox]) -> None:
    """Docker restarts what workerd made; the second life of a boot must not wait for a go."""
    sandbox = start("--restart", "on-failure")
    sandbox.sandbox("restore", "--empty")
    os.kill(sandbox.state["Pid"], signal.SIGKILL)
    until(lambda: sandbox.state["Status"] == "exited", "Docker gives up on it", 20)
    assert sandbox.state["ExitCode"] == 0
    assert "this boot has ended" in sandbox.docker("logs", sandbox.name)

# SPDX-License-Identifier: Apache-2.0
"""An account at the stand-in for Cloudflare, its deployments, and the traffic that they have during a play."""

from __future__ import annotations

import contextlib
import secrets
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import (
    REPOSITORY,
    Sources,
)
from plays import Deployment, Play, clean_environment, run_play
from runtimes import share_wrangler

from tests.cloudflare import ControlPlane
from tests.cloudflare.accounts import Worker
from tests.standins.provider import Provider

ACCOUNT = "0123456789abcdef0123456789abcdef"
TOKEN = "cf-canary-" + secrets.token_hex(16)
KEY = "sk-ant-canary-" + secrets.token_hex(16)


@dataclass(kw_only=True)
class Clouded(Deployment):
    """One inventory host in the account. hostname: where it is asked, if not at its address of workers.dev."""

    plane: ControlPlane
    hostname: str = ""

    @property
    def url(self) -> str:
        return f"https://{self.hostname or f'{self.name}.acme.workers.dev'}"

    def host(self) -> dict[str, Any]:
        given = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "hermes_state_dir": str(self.home),
            "hermes_account_id": ACCOUNT,
            "cloudflare_api_token": TOKEN,
            **self.variables,
        }
        return {name: value for name, value in given.items() if value is not None}

    def play(self, playbook: str, *arguments: str, env: dict[str, str] | None = None) -> Play:
        env = clean_environment(**self.plane.env, **(env or {}))
        return run_play(playbook, [self], *arguments, env=env)

    def opener(self) -> urllib.request.OpenerDirector:
        context = ssl.create_default_context(cafile=self.plane.env["SSL_CERT_FILE"])
        return urllib.request.build_opener(
            urllib.request.ProxyHandler({"https": self.plane.env["HTTPS_PROXY"]}),
            urllib.request.HTTPSHandler(context=context),
        )

    @property
    def worker(self) -> Worker:
        """What the account holds under its name."""
        return self.plane.state.accounts[ACCOUNT].workers[self.name]

    def supervisor(self) -> psutil.Process:
        """The process that its sandbox descends from."""
        folder = str(self.plane.edge.folder / self.worker.tag)
        guards = [psutil.Process(pid) for pid in self.plane.edge.pids]
        (found,) = (
            one
            for one in guards
            if one.cwd() == folder and "tests.cloudflare.engine_process" in one.cmdline()
        )
        return found


class Cloud:
    """An account at the stand-in, and plays on deployments there."""

    def __init__(self, plane: ControlPlane, home: Path) -> None:
        self.plane = plane
        self.home = home

    def deployment(self, name: str, **variables: Any) -> Clouded:
        """Describe one that rehearses, and has a key along that no model asks for."""
        given = {"hermes_provider": "rehearsal", "anthropic_api_key": KEY, **variables}
        return Clouded(name, self.home, plane=self.plane, variables=given)

    def play(
        self,
        playbook: str,
        name: str,
        *arguments: str,
        env: dict[str, str] | None = None,
        **variables: Any,
    ) -> Play:
        """Run a playbook on one deployment."""
        return self.deployment(name, **variables).play(playbook, *arguments, env=env)

    def deploy(self, name: str, *arguments: str, **variables: Any) -> Play:
        """Deploy, and fail the test when that fails."""
        play = self.play("deploy", name, *arguments, **variables)
        assert play.code == 0, play.output
        return play

    def chat(self, name: str, text: str, stream: bool = False) -> tuple[int, str]:
        """One chat turn through the edge; returns its status, and its answer to the end."""
        answer = self.deployment(name).chat(text, stream=stream)
        return answer.status, answer.text

    def told(self, name: str, path: str = "health") -> dict[str, Any]:
        """What a deployment answers on GET /api/PATH."""
        answer = self.deployment(name).call("GET", f"/api/{path}")
        assert answer.status == 200, answer.text
        return dict(answer.json)

    def worker(self, name: str) -> Any:
        """What the account holds under a Worker's name."""
        return self.plane.state.accounts[ACCOUNT].workers[name]

    def writes(self, start: int) -> list[str]:
        """The calls since then that changed something, as `METHOD path` below the account."""
        prefix = f"/client/v4/accounts/{ACCOUNT}/"
        return [f"{one.method} {one.path.removeprefix(prefix)}" for one in self.plane.writes(start)]


def open_account(plane: ControlPlane) -> None:
    """Have the account, with the image of these sources in its registry, as if somebody had pushed it."""
    plane.add_account(ACCOUNT, TOKEN, zones=["example.com"])
    plane.registry.add_image(f"{ACCOUNT}/{REPOSITORY}", Sources().container_image(""))


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("cloudflare")
    with ControlPlane(folder / "plane") as plane:
        open_account(plane)
        share_wrangler(home)
        yield Cloud(plane, home)


@pytest.fixture
def provider(cloud: Cloud) -> Iterator[Provider]:
    """What answers for the whole internet of the Workers: a model's provider that takes the one key."""
    with Provider(KEY) as made:
        cloud.plane.edge.internet = made.url.removeprefix("http://")
        yield made
        cloud.plane.edge.internet = ""


@contextlib.contextmanager
def busy(cloud: Cloud, name: str, provider: Provider) -> Iterator[None]:
    """A long stream, and two clients that never pause, during whatever is done; all have to be answered whole."""
    over = threading.Event()

    def keep_asking(text: str, stream: bool) -> list[tuple[int, bool]]:
        answers = []
        while not over.is_set():
            status, told = cloud.chat(name, text, stream=stream)
            answers.append((status, not stream or told.rstrip().endswith("data: [DONE]")))
        return answers

    with ThreadPoolExecutor() as pool:
        provider.pause = 0.1
        streamed = pool.submit(cloud.chat, name, "word " * 100, stream=True)
        asking = [
            pool.submit(keep_asking, "short", False),
            pool.submit(keep_asking, "word " * 10, True),
        ]
        try:
            yield
        finally:
            over.set()
            provider.pause = 0.0
        status, text = streamed.result()
        answers = [one.result() for one in asking]
    assert status == 200
    assert text.rstrip().endswith("data: [DONE]"), "the stream came to its end"
    assert text.count("word") >= 100, "and nothing of it is missing"
    for of_one in answers:
        assert of_one and {*of_one} == {(200, True)}, "every request was answered, to its end"


def home_of(cloud: Cloud, name: str) -> Path:
    """The folder in which Hermes' state lies while it is awake."""
    workers = cloud.plane.folder / "workers" / cloud.worker(name).tag
    (database,) = (path for path in (workers / "disks").rglob("state.db"))
    return database.parent


def hermes_with(value: str) -> list[int]:
    """The Hermes processes that have a value in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if "gateway" in process.cmdline() and value in process.environ().values():
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def key_used(cloud: Cloud, name: str, provider: Provider) -> str:
    """The key with which the provider is asked for a chat now."""
    start = len(provider.seen)
    assert cloud.chat(name, "Which key?")[0] == 200
    (asked,) = {one.headers["x-api-key"] for one in provider.seen[start:]}
    return asked

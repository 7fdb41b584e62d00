# SPDX-License-Identifier: Apache-2.0
"""An account at the stand-in for Cloudflare, its deployments, and the traffic that they have during a play."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from ansible_collections.hermes.workers.plugins.plugin_utils.build import REPOSITORY, Sources
from plays import PLAYBOOK, ROOT, Play, clean_environment

from tests.cloudflare import ControlPlane
from tests.standins.provider import Provider

ACCOUNT = "0123456789abcdef0123456789abcdef"
TOKEN = "cf-canary-" + secrets.token_hex(16)
KEY = "sk-ant-canary-" + secrets.token_hex(16)


class Cloud:
    """An account at the stand-in, and plays on deployments there."""

    def __init__(self, plane: ControlPlane, home: Path) -> None:
        self.plane = plane
        self.home = home

    def play(
        self,
        playbook: str,
        name: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        **variables: Any,
    ) -> Play:
        """Run a playbook on one deployment."""
        inventory = self.home / f"inventory-{name}.json"
        host = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "hermes_state_dir": str(self.home),
            "hermes_account_id": ACCOUNT,
            "cloudflare_api_token": TOKEN,
            "hermes_provider": "rehearsal",
            # Goes along with the others, although no model asks for it.
            "anthropic_api_key": KEY,
            **variables,
        }
        given = {key: value for key, value in host.items() if value is not None}
        inventory.write_text(json.dumps({"all": {"hosts": {name: given}}}))
        command = [str(PLAYBOOK), f"playbooks/{playbook}.yml", "-i", str(inventory), *arguments]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=clean_environment(**self.plane.env, **(env or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        return Play(done.returncode, done.stdout)

    def deploy(self, name: str, *arguments: str, **variables: Any) -> Play:
        """Deploy, and fail the test when that fails."""
        play = self.play("deploy", name, *arguments, **variables)
        assert play.code == 0, play.output
        return play

    def chat(self, name: str, text: str, stream: bool = False) -> tuple[int, str]:
        """One chat turn through the edge; returns its status, and its answer to the end."""
        token = (self.home / name / "api_token").read_text().strip()
        answer = requests.post(
            f"https://{name}.acme.workers.dev/v1/chat/completions",
            json={
                "model": "hermes",
                "stream": stream,
                "messages": [{"role": "user", "content": text}],
            },
            headers={"Authorization": f"Bearer {token}"},
            proxies={"https": self.plane.env["HTTPS_PROXY"]},
            verify=self.plane.env["SSL_CERT_FILE"],
            timeout=180,
        )
        return answer.status_code, answer.text

    def told(self, name: str, path: str = "health") -> dict[str, Any]:
        """What a deployment answers on GET /api/PATH."""
        token = (self.home / name / "api_token").read_text().strip()
        answer = requests.get(
            f"https://{name}.acme.workers.dev/api/{path}",
            headers={"Authorization": f"Bearer {token}"},
            proxies={"https": self.plane.env["HTTPS_PROXY"]},
            verify=self.plane.env["SSL_CERT_FILE"],
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def worker(self, name: str) -> Any:
        """What the account holds under a Worker's name."""
        return self.plane.state.accounts[ACCOUNT].workers[name]

    def writes(self, start: int) -> list[str]:
        """The calls since then that changed something, as `METHOD path` below the account."""
        prefix = f"/client/v4/accounts/{ACCOUNT}/"
        return [f"{one.method} {one.path.removeprefix(prefix)}" for one in self.plane.writes(start)]


def add_image(plane: ControlPlane) -> str:
    """Have the image of these sources in the registry, as if somebody had pushed it."""
    sources = Sources()
    tag = sources.container_image("")
    return plane.registry.add_image(f"{ACCOUNT}/{REPOSITORY}", tag)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("cloudflare")
    with ControlPlane(folder / "plane", home / "stand-in") as plane:
        plane.add_account(ACCOUNT, TOKEN, zones=["example.com"])
        add_image(plane)
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
    """A long stream, and a client that never pauses, during whatever is done; both have to be answered whole."""
    over = threading.Event()

    def keep_asking() -> list[int]:
        statuses = []
        while not over.is_set():
            statuses.append(cloud.chat(name, "short")[0])
        return statuses

    with ThreadPoolExecutor() as pool:
        provider.pause = 0.1
        streamed = pool.submit(cloud.chat, name, "word " * 100, stream=True)
        asking = pool.submit(keep_asking)
        try:
            yield
        finally:
            over.set()
            provider.pause = 0.0
        status, text = streamed.result()
        statuses = asking.result()
    assert status == 200
    assert text.rstrip().endswith("data: [DONE]"), "the stream came to its end"
    assert text.count("word") >= 100, "and nothing of it is missing"
    assert statuses and set(statuses) == {200}, "every request was answered"


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

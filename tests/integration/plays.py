# SPDX-License-Identifier: Apache-2.0
"""Deployments of a test's own, and the real plays that act on them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.standins.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = ROOT / ".venv" / "bin" / "ansible-playbook"
KEY_VARIABLES = ("ANTHROPIC_API_KEY", "OPENROUTER_API_KEY", "OPENAI_API_KEY", "HERMES_API_TOKEN")


def clean_environment(**more: str) -> dict[str, str]:
    """The environment of the tests without anybody's provider keys, plus `more`; nobody's `make` calls a person's."""
    left_out = {*KEY_VARIABLES, "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"}
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    # What plays print is read by lines; how they are wrapped is another test's.
    wide = {"COLUMNS": "2000"}
    return {**env, **wide, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0", **more}


def copy_checkout(folder: Path) -> None:
    """Copy what is tracked of the checkout into a folder, as it is now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)


@dataclass
class Play:
    """What one run of a playbook printed and how it ended."""

    code: int
    output: str

    def changed(self, host: str) -> int:
        """The number of changed tasks that the recap gives for a host."""
        found = re.search(rf"^{re.escape(host)}\s.*changed=(\d+)", self.output, re.MULTILINE)
        assert found, self.output
        return int(found.group(1))


@dataclass
class Answer:
    """One HTTP answer, read to its end."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def said(self) -> str:
        """The assistant's words in a chat completion."""
        return str(self.json["choices"][0]["message"]["content"])


@dataclass(frozen=True)
class Running:
    """A process as it was when it was looked at."""

    process: psutil.Process
    name: str
    words: list[str]
    environment: dict[str, str]


@dataclass
class Deployment:
    """One inventory host on this machine."""

    name: str
    home: Path
    port: int = field(default_factory=free_port)
    providers_port: int = field(default_factory=free_port)
    dashboard_port: int = field(default_factory=free_port)
    variables: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.home / self.name

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        """The token of the state folder; empty where everybody is let in."""
        file = self.state / "api_token"
        return file.read_text().strip() if file.exists() else ""

    def host(self) -> dict[str, Any]:
        """This deployment as a host of an Ansible inventory."""
        return {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "hermes_platform": "workerd",
            "hermes_state_dir": str(self.home),
            "hermes_port": self.port,
            "hermes_providers_port": self.providers_port,
            "hermes_dashboard_port": self.dashboard_port,
            **self.variables,
        }

    def play(self, playbook: str, *arguments: str, env: dict[str, str] | None = None) -> Play:
        """Run a playbook of the checkout on this deployment alone."""
        return run_play(playbook, [self], *arguments, env=env)

    def deploy(self, *arguments: str) -> Play:
        play = self.play("deploy", *arguments)
        assert play.code == 0, play.output
        return play

    def call(
        self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str
    ) -> Answer:
        """One request with the deployment's token, unless another is given ('' sends none)."""
        with self.open(method, path, body, token, **headers) as response:
            answer_headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, answer_headers, response.read().decode())

    def open(
        self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str
    ) -> HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        token = self.token if token is None else token
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        if data is not None:
            request.add_header("Content-Type", "application/json")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            return self.opener().open(request, timeout=300)
        except urllib.error.HTTPError as error:
            return error

    def opener(self) -> urllib.request.OpenerDirector:
        """What opens its addresses."""
        return urllib.request.build_opener()

    def chat(self, text: str, session: str | None = None, **body: Any) -> Answer:
        """One chat turn; `session` continues a conversation that Hermes holds."""
        headers = {"X_Hermes_Session_Id": session} if session else {}
        messages = [{"role": "user", "content": text}]
        body = {"model": "hermes", "messages": messages, **body}
        return self.call("POST", "/v1/chat/completions", body, **headers)

    def status(self) -> dict[str, Any]:
        return dict(self.call("GET", "/api/instance/status").json)

    def supervisor(self) -> psutil.Process:
        """The one process that all others of this deployment descend from."""
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if "--folder" in command and command[command.index("--folder") + 1] == str(self.state):
                return process
        raise LookupError(f"{self.name} has no supervisor")

    def running(self) -> list[Running]:
        """The processes of this deployment, its supervisor first. One that ends while it is looked at is none."""
        supervisor = self.supervisor()
        found = []
        for process in [supervisor, *supervisor.children(recursive=True)]:
            with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
                told = (process.name(), process.cmdline(), process.environ())
                found.append(Running(process, *told))
        return found

    def gateway(self) -> Running:
        """Hermes' own process, which runs. What it has just forked has its words for a moment, and comes after it."""
        return next(one for one in self.running() if "gateway" in one.words)

    def environment(self) -> dict[str, str]:
        """The environment of Hermes' own process, which runs."""
        return self.gateway().environment

    def hermes_pids(self) -> list[int]:
        """Ids of Hermes' own processes; one that saves its state comes and goes."""
        found = self.call("GET", "/api/instance/logs").json["processes"]
        return [one["pid"] for one in found if one["name"] == "hermes"]

    def logged(self, characters: int = 20_000) -> str:
        """What its Worker logged last."""
        log = self.state / "logs" / "workerd.log"
        return log.read_text(errors="replace")[-characters:] if log.exists() else "nothing"

    def instance_state(self) -> str:
        return str(self.call("GET", "/api/health").json["instance"]["state"])


def play_command(playbook: str, deployments: list[Deployment], *arguments: str) -> list[str]:
    """The words that run a playbook of the checkout on some deployments, with an inventory written for it."""
    folder = deployments[0].home
    inventory = folder / f"inventory-{'-'.join(d.name for d in deployments)[:60]}.json"
    hosts = {deployment.name: deployment.host() for deployment in deployments}
    inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
    return [str(PLAYBOOK), f"playbooks/{playbook}.yml", "-i", str(inventory), *arguments]


@contextmanager
def running_play(
    playbook: str, deployment: Deployment, *arguments: str, **shell: str
) -> Iterator[subprocess.Popen[str]]:
    """A playbook that runs in a process group of its own; yields at once, and waits for its end."""
    with subprocess.Popen(
        play_command(playbook, [deployment], *arguments),
        cwd=ROOT,
        env=clean_environment(**shell),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as play:
        yield play


def run(
    words: Sequence[object],
    cwd: Path = ROOT,
    env: dict[str, str] | None = None,
    seconds: float = 600,
) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell without a terminal does; `stdout` is all that it printed."""
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=clean_environment() if env is None else env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
    )


def run_play(
    playbook: str,
    deployments: list[Deployment],
    *arguments: str,
    env: dict[str, str] | None = None,
) -> Play:
    """Run a playbook of the checkout on some deployments; one that hangs fails the test with all that is known."""
    try:
        done = run(play_command(playbook, deployments, *arguments), env=env)
    except subprocess.TimeoutExpired as late:
        printed = late.output.decode() if isinstance(late.output, bytes) else late.output
        logs = "".join(f"\n{one.name} logged last:\n{one.logged()}" for one in deployments)
        pytest.fail(f"{playbook} hangs after {late.timeout} s, with:\n{printed}{logs}")
    return Play(done.returncode, done.stdout)


def wait_until(
    true: Callable[[], bool], what: str | Callable[[], str], seconds: float = 60
) -> None:
    """Poll until `true()` holds; fail with `what`, or what it says then, after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return
        time.sleep(0.2)
    pytest.fail(f"not within {seconds} s: {what() if callable(what) else what}")

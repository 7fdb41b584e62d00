# SPDX-License-Identifier: Apache-2.0
"""The real Worker in a real workerd, alone: the sandbox behind it is a stand-in (see sandbox.py)."""

from __future__ import annotations

import http.client
import json
import os
import resource
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tests.standins.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
WORKER = ROOT / "worker"
TOKEN = "the-token-of-the-lone-worker"

BARE = """
import { DurableObject } from "cloudflare:workers";
export class Bare extends DurableObject {
  fetch(request) {
    const url = new URL(request.url);
    return this.env.LOOPBACK.fetch("http://127.0.0.1:%d" + url.pathname + url.search, request);
  }
}
export default { fetch: (request, env) => env.BARE.getByName("bare").fetch(request) };
"""

CONFIG = """
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = .gate),
    (name = "bare", worker = .bare),
    (name = "internet", network = (allow = ["public"])),
    (name = "loopback", network = (allow = ["127.0.0.1/32"])),
    (name = "engine", external = (address = "unix:engine.sock", http = ())),
    (name = "storage", disk = (path = "storage", writable = true)),
  ],
  sockets = [
    (name = "http", http = (), service = "main"),
    (name = "dashboard", http = (), service = (name = "main", entrypoint = "Dashboard")),
    (name = "bare", http = (), service = "bare"),
  ],
);
const gate :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed "worker.js")],
  compatibilityDate = "2026-08-15",
  compatibilityFlags = ["enable_request_signal"],
  durableObjectNamespaces = [(className = "HermesInstance", uniqueKey = "gate", enableSql = true)],
  durableObjectStorage = (localDisk = "storage"),
  globalOutbound = "internet",
  bindings = [
    %(bindings)s
    (name = "API_TOKEN", fromEnvironment = "API_TOKEN"),
    (name = "INSTANCE", durableObjectNamespace = "HermesInstance"),
    (name = "ENGINE", service = "engine"),
    (name = "LOOPBACK", service = "loopback"),
  ],
);
const bare :Workerd.Worker = (
  modules = [(name = "bare.js", esModule = embed "bare.js")],
  compatibilityDate = "2026-08-15",
  durableObjectNamespaces = [(className = "Bare", uniqueKey = "bare", enableSql = true)],
  durableObjectStorage = (localDisk = "storage"),
  bindings = [
    (name = "BARE", durableObjectNamespace = "Bare"),
    (name = "LOOPBACK", service = "loopback"),
  ],
);
"""

VARIABLES = {
    "HERMES_NAME": "lone",
    "WORKER_VERSION": "1",
    "HERMES_VERSION": "0",
    "HERMES_IMAGE": "stand-in",
    "HERMES_PLATFORM": "workerd",
    "HERMES_ENGINE": "process",
    "HERMES_DEFAULT_MODEL": "rehearsal/rehearsal",
    "HERMES_DASHBOARD": "on",
    "PROVIDERS_ADDRESS": "http://127.0.0.1:1",
}


class LoneWorker:
    """Runs the Worker, a bare pass-through Worker beside it, and the stand-in behind both."""

    def __init__(self, **variables: str) -> None:
        """variables: text variables of the Worker, in addition to VARIABLES."""
        self.variables = {**VARIABLES, **variables}
        self.port, self.dashboard_port, self.bare_port = free_port(), free_port(), free_port()

    def __enter__(self) -> LoneWorker:
        self._folder = tempfile.TemporaryDirectory(prefix="lone-")
        self.folder = Path(self._folder.name)
        (self.folder / "storage").mkdir()
        api_port = free_port()
        (self.folder / "bare.js").write_text(BARE % api_port)
        bindings = "\n    ".join(
            f"(name = {json.dumps(name)}, text = {json.dumps(value)}),"
            for name, value in self.variables.items()
        )
        (self.folder / "config.capnp").write_text(CONFIG % {"bindings": bindings})
        self._bundle()
        self._sandbox = self._start(
            "sandbox",
            [sys.executable, "-m", "tests.standins.sandbox", *self._places(api_port)],
            cwd=ROOT,
        )
        wait_for((self.folder / "engine.sock").exists)
        addresses = {"http": self.port, "dashboard": self.dashboard_port, "bare": self.bare_port}
        self._workerd = self._start(
            "workerd",
            [str(next(WORKER.glob("node_modules/@cloudflare/workerd-*/bin/workerd")))]
            + ["serve", "config.capnp"]
            + [f"--socket-addr={name}=127.0.0.1:{port}" for name, port in addresses.items()],
            cwd=self.folder,
            env={**os.environ, "API_TOKEN": TOKEN},
            preexec_fn=as_many_sockets_as_supervised,
        )
        self.workerd = psutil.Process(self._workerd.pid)
        wait_for(lambda: is_open(self.bare_port) and is_open(self.port))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in (self._workerd, self._sandbox):
            process.kill()
            process.wait()
        self._folder.cleanup()

    def memory(self) -> float:
        """Memory of workerd in MB."""
        return float(self.workerd.memory_info().rss / 1e6)

    def log(self) -> str:
        """What workerd printed."""
        return (self.folder / "workerd.log").read_text()

    def seen(self) -> dict[str, Any]:
        """What arrived at the stand-in."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.folder / "engine.sock"))
        connection.request("GET", "/seen")
        seen: dict[str, Any] = json.load(connection.getresponse())
        connection.close()
        return seen

    def call(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request with the token; returns status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Authorization": f"Bearer {TOKEN}", **headers})
        answer = connection.getresponse()
        told = {name.lower(): value for name, value in answer.getheaders()}
        result = answer.status, told, answer.read()
        connection.close()
        return result

    def _places(self, api_port: int) -> list[str]:
        return [str(self.folder / "engine.sock"), str(api_port), str(free_port())]

    def _bundle(self) -> None:
        scripts = json.loads((WORKER / "package.json").read_text())["scripts"]
        words = [word for word in shlex.split(scripts["bundle"])[1:] if "--outfile" not in word]
        esbuild = next(WORKER.glob("node_modules/@esbuild/*/bin/esbuild"))
        output = f"--outfile={self.folder / 'worker.js'}"
        subprocess.run([str(esbuild), *words, output], cwd=WORKER, check=True)

    def _start(self, name: str, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, **options)


def as_many_sockets_as_supervised() -> None:
    """Raise the limit of open files, as the supervisor does for workerd."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def is_open(port: int) -> bool:
    """Tell whether somebody listens on a loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(holds: Any, seconds: float = 20) -> None:
    """Wait until a condition holds; raises TimeoutError."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError("it never came true")
        time.sleep(0.02)

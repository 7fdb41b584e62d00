# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts, restarts and stops the processes of a deployment on this machine."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...module_utils.cards import Card
from ...module_utils.settings.catalogue import (
    DASHBOARD_PORT_OFFSET,
    PORT_VARIABLES,
    PROVIDERS_PORT_OFFSET,
)
from ...module_utils.worker_client import Answer, WorkerClient
from ..display.logs import tail
from ..proof.health import health
from ..state.folder import StateFolder

CHANGED_BY_HAND = "workerd runs from files that were changed by hand"
START_SECONDS = 30.0
STOP_SECONDS = 120.0
TAKEN = re.compile(r"\bport (\d+): .*in use")
"""How the supervisor names a port that it could not have."""
# What the engine and Hermes may know of the caller's environment; anything else, keys above all, stays out.
PASSED = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
PASSED_TO_WORKERD = ("SSL_CERT_FILE", "SSL_CERT_DIR", "TZ")


def passed(names: tuple[str, ...]) -> dict[str, str]:
    """Return the named variables of this process's environment that are set."""
    return {name: os.environ[name] for name in names if os.environ.get(name)}


class Processes:
    """The supervisor of one deployment, seen from a play."""

    def __init__(self, deployment: StateFolder, host_digest: str) -> None:
        """host_digest: names the installed runtime that supervisor and engine run from."""
        self.deployment = deployment
        self.host_digest = host_digest
        self.host = deployment.runtime / f"host-{host_digest}"

    def engine_command(self, ports: str) -> list[str]:
        """Return the engine's command; ports: comma-separated ports inside the sandbox."""
        images = os.path.relpath(self.deployment.runtime / "images", self.deployment.folder)
        command = [
            str(self._python(self.host)),
            "-m",
            "engine",
            "--socket",
            "run/engine.sock",
            "--images",
            images,
        ]
        return [
            *command,
            "--disks",
            "engine/disks",
            "--snapshots",
            "engine/snapshots",
            "--ports",
            ports,
        ]

    def cleaner_command(self, socket: str, session: str) -> list[str]:
        """Return the command of what removes outdated snapshots from a container engine."""
        return [str(self._python(self.host)), str(self.host / "cleaner.py"), socket, session]

    def start(
        self,
        kind: str,
        workerd: list[str],
        ports: dict[str, int],
        drain: int,
        secrets: dict[str, str],
        helpers: dict[str, list[str]],
        after_reboot: str,
    ) -> None:
        """Start the supervisor and with it everything; raises a Card with the reason when it does not come up."""
        settings = {
            "name": self.deployment.name,
            "host": self.host_digest,
            "kind": kind,
            "ports": ports,
            "workerd": workerd,
            "helpers": helpers,
            "drain": drain,
            "environment": passed(PASSED),
            "workerd_environment": passed(PASSED_TO_WORKERD),
            "secrets": secrets,
            "after_reboot": after_reboot,
        }
        self._supervisor(self.host, ["run"], settings)

    def restart_workerd(self, changes: dict[str, Any]) -> None:
        """Stop workerd (it drains), apply the changes, start it; clients that connect meanwhile wait."""
        self._control("restart", changes)

    def set_secrets(self, secrets: dict[str, str]) -> None:
        """Give workerd other secrets; it drains and starts again."""
        self._control("set-secrets", secrets)

    def change_secrets(self, changes: dict[str, str]) -> None:
        """Give workerd other values of some secrets; what was before is remembered until it is settled."""
        self._control("change-secrets", changes)

    def undo_secrets(self) -> None:
        """Give workerd the secrets of before the changes that nobody settled."""
        self._control("undo-secrets", None)

    def settle_secrets(self) -> None:
        """Forget the secrets of before."""
        self._control("settle-secrets", None)

    def stop(self) -> bool:
        """Stop supervisor and processes; returns whether any was running. Raises a Card when they stay."""
        record = self.deployment.supervisor()
        if record is None:
            return self._stop_orphans()
        os.kill(record["pid"], signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while self.deployment.supervisor() is not None:
            if time.monotonic() > deadline:
                raise Card.of(
                    self.deployment.name,
                    f"its supervisor (process {record['pid']}) did not stop within {STOP_SECONDS:.0f} s.",
                    f"read {self._log('supervisor')}; `kill -9 {record['pid']}` ends it.",
                    "processes",
                )
            time.sleep(0.05)
        return True

    def _stop_orphans(self) -> bool:
        """End processes whose supervisor was killed, recognised by the supervisor's own start-up."""
        if not self.deployment.orphans():
            return False
        script = "import sys; sys.path.insert(0, sys.argv[1]); import supervisor; supervisor.end_orphans()"
        host = self._recorded_host()
        self._run(
            [str(self._python(host)), "-c", script, str(host)], None, cwd=self.deployment.folder
        )
        return True

    def _control(self, action: str, content: Any) -> str:
        return self._supervisor(self._recorded_host(), ["ctl", action], content)

    def _recorded_host(self) -> Path:
        """Return the runtime that the running supervisor was started from: the two sides must speak alike."""
        record = self.deployment.supervisor() or {}
        return self.deployment.runtime / f"host-{record.get('host', self.host_digest)}"

    def _supervisor(self, host: Path, words: list[str], content: Any) -> str:
        command = [str(self._python(host)), str(host / "supervisor.py"), *words]
        return self._run([*command, "--folder", str(self.deployment.folder)], content)

    def _run(self, command: list[str], content: Any, cwd: Path | None = None) -> str:
        """Run one of our programs with JSON on its standard input and a small environment."""
        done = subprocess.run(
            command,
            input=None if content is None else json.dumps(content),
            stdin=subprocess.DEVNULL if content is None else None,
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
            env=passed(PASSED),
            start_new_session=True,
        )
        if done.returncode != 0:
            sentence = (
                " ".join(done.stderr.strip().splitlines()[-1:]) or f"exit code {done.returncode}"
            )
            taken = TAKEN.search(sentence)
            if taken and isinstance(content, dict):
                raise self._port_card(int(taken[1]), content.get("ports", {}))
            raise Card.of(
                self.deployment.name,
                f"the processes could not be managed: {sentence}.",
                f"read {self._log('supervisor')}, then run it again.",
                "processes",
                detail=self.log_tail("supervisor", 4),
            )
        return done.stdout

    def _port_card(self, port: int, ports: Mapping[str, int]) -> Card:
        """Return the card for a port that was free when it was looked at. ports: of the sockets, by their names."""
        of = (PORT_VARIABLES.get(name, name) for name, one in ports.items() if one == port)
        variable = next(of, self.deployment.name)
        return Card.of(
            variable,
            f"{port} was taken by another program after it was found free.",
            f"run it again; where it stays taken, set {variable} to another port.",
            "port",
        )

    @staticmethod
    def _python(host: Path) -> Path:
        return host / "venv" / "bin" / "python"

    def _log(self, name: str) -> str:
        return self.deployment.shown(self.deployment.folder / "logs" / f"{name}.log")

    def log_tail(self, name: str, lines: int) -> list[str]:
        """Return the last lines of a process's log."""
        return tail(self.deployment.folder / "logs" / f"{name}.log", lines)

    def wait_until_served(
        self, client: WorkerClient, version: str | None, seconds: float = START_SECONDS
    ) -> Answer:
        """Wait for /api/health to answer, with the wanted version if one is given; raises a Card with workerd's log."""
        deadline = time.monotonic() + seconds
        while True:
            answer = health(client, timeout=5.0)
            running = answer.json() if answer is not None and answer.status == 200 else None
            if answer and running and version in (None, running.get("worker", {}).get("version")):
                return answer
            if time.monotonic() > deadline or self.deployment.supervisor() is None:
                raise self.not_served(answer, version)
            time.sleep(0.05)

    def not_served(self, answer: Answer | None, version: str | None) -> Card:
        """Return the card for a Worker that does not answer as it should."""
        remedy = f"read {self._log('workerd')} and {self._log('supervisor')}, then run it again."
        detail = self.log_tail("workerd", 6)
        if answer is None:
            sentence = "workerd does not serve the Worker."
        elif answer.status == 200:
            running = answer.json().get("worker", {}).get("version")
            sentence = f"version {running} is running, and the inventory makes version {version}."
            if running == version:
                sentence = f"{CHANGED_BY_HAND}."
            remedy, detail = "run deploy; it brings one to the other.", []
        else:
            sentence = f"/api/health is answered with {answer.status}: {answer.complaint()}"
            if answer.status == 401:
                remedy, detail = "run deploy; it has the Worker take the token that is kept.", []
        return Card.of(self.deployment.name, sentence, remedy, "processes", detail=detail)


def port_taken(port: int) -> bool:
    """Tell whether a TCP port of the loopback address cannot be listened on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def free_port(start: int) -> int:
    """Return the next free port from start on whose neighbours are free too."""
    offsets = (0, DASHBOARD_PORT_OFFSET, PROVIDERS_PORT_OFFSET)
    for port in range(start, 55535):
        if not any(port_taken(port + offset) for offset in offsets):
            return port
    return start

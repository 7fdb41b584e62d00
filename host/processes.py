# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""The processes that a supervisor keeps up: workerd, its helper, and the guardian of the supervisor itself."""

import contextlib
import hashlib
import json
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from circus.arbiter import Arbiter
from circus.stream import FileStream
from circus.watcher import Watcher
from tornado import gen

from arrivals import let_arrivals_in
from records import keep_for_boot, note_process

SUPERVISOR = Path(__file__).resolve().with_name("supervisor.py")
GUARDIAN = SUPERVISOR.with_name("guardian.py")
BUILD = (Path("build/config.capnp"), Path("build/worker.js"))
CONTENT = Path("build/agent.tar.gz")
"""What the agent is declared to be; where nothing is, it is not there."""
LOG_BYTES = 10_000_000
LOG_FILES = 3
SHORT_LIFE = 5.0
"""A process that lived shorter (seconds) failed to start; the next attempt then waits RETRY_DELAY."""
RETRY_DELAY = 1.0
GUARDIAN_STOP_SECONDS = 1
GUARDIAN_SECONDS = 1.0
"""How long a guardian may take to read a line."""


class Log(FileStream):
    """A file of what a process has to say, which a full disk shortens, and nothing else."""

    def close(self) -> None:
        """Close it; what there is no room for is lost. Circus would end in the middle of stopping the processes."""
        with contextlib.suppress(OSError):
            super().close()


class Process(Watcher):
    """Circus' watcher of one process, which starts a process that keeps failing less often."""

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: dict[str, Any],
        stop_seconds: float,
        **more: object,
    ) -> None:
        self.spawned = self.not_before = 0.0
        self.earlier_env: dict[str, Any] | None = None
        self.build = ""
        log = Log(f"logs/{name}.log", max_bytes=LOG_BYTES, backup_count=LOG_FILES)
        super().__init__(
            name,
            shlex.quote(command[0]),
            args=command[1:],
            working_dir=os.getcwd(),
            env=environment,
            graceful_timeout=stop_seconds,
            stdout_stream={"stream": log},
            stderr_stream={"stream": log},
            hooks={
                "before_spawn": (before_spawn, True),
                "after_spawn": (after_spawn, True),
                "after_reap": (after_reap, True),
            },
            singleton=True,
            **more,
        )

    def replace_env(self, environment: dict[str, Any]) -> None:
        """Set what the next start gets; nothing is left to take back."""
        self.env, self.earlier_env = environment, None

    def change_env(self, changes: dict[str, Any]) -> None:
        """Change single variables. Of several changes that nobody settled, the first one's beginning is kept."""
        if self.earlier_env is None:
            self.earlier_env = self.env
        changed = self.env | changes
        self.env = {name: value for name, value in changed.items() if value is not None}

    def undo_env(self) -> None:
        """Take back all changes that were not settled."""
        self.replace_env(self.env if self.earlier_env is None else self.earlier_env)

    @gen.coroutine
    def manage_processes(self) -> Iterator[Any]:
        """Start the process when it has ended, but not in a tight loop."""
        if self.processes or time.monotonic() >= self.not_before:
            yield super().manage_processes()


class Guardian(Process):
    """The process that starts a supervisor in the place of this one when it was killed."""

    def __init__(self, settings: dict[str, Any], **more: object) -> None:
        self.settings = settings
        # It needs the standard library only.
        command = [sys.executable, "-I", "-S", str(GUARDIAN), str(SUPERVISOR)]
        super().__init__(
            "guardian", command, settings["environment"], GUARDIAN_STOP_SECONDS, **more
        )

    def spawn_process(self, recovery_wid: int | None = None) -> Any:
        """Start it with one end of a new line as its standard input, on which all that it has to know waits already.

        Told later, it would know nothing of a supervisor that is killed at that very moment.
        """
        self.line, self.theirs = socket.socketpair()
        self.line.settimeout(GUARDIAN_SECONDS)
        self.tell()
        started = super().spawn_process(recovery_wid)
        self.theirs.close()
        return started

    def _get_stdin_socket_fd(self) -> int:
        return self.theirs.fileno()

    def tell(self) -> None:
        """Tell it what a supervisor that starts now is to be given. One that has ended is told at its next start."""
        workerd = self.arbiter.get_watcher("workerd")
        current = {
            "workerd": [*shlex.split(workerd.cmd), *workerd.args],
            "drain": workerd.graceful_timeout - 1,
            "secrets": workerd.env,
            "earlier_secrets": workerd.earlier_env,
        }
        current = self.settings | current
        try:
            keep_for_boot(current)
        except OSError:
            logging.exception("what a start after a reboot needs could not be kept")
        with contextlib.suppress(OSError):
            self.line.sendall(json.dumps(current).encode() + b"\n")


def before_spawn(watcher: Process, **_kwargs: object) -> bool:
    """Circus calls this before it starts a process."""
    # Before, not after: of files that are replaced meanwhile, the ones of before are noted, and are not believed.
    watcher.build = build_digest() if watcher.name == "workerd" else ""
    return True


def build_digest() -> str:
    """Return the digest of what workerd is started from; an empty text when that is not there."""
    try:
        archive = CONTENT.read_bytes() if CONTENT.exists() else None
        agent = "" if archive is None else hashlib.sha256(archive).hexdigest()
        parts = [*(path.read_bytes() for path in BUILD), agent.encode()]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()
    except OSError:
        return ""


def after_spawn(watcher: Process, pid: int, arbiter: Arbiter, **_kwargs: object) -> bool:
    """Circus calls this when a process was started."""
    if watcher.name == "workerd":
        let_arrivals_in(arbiter.sockets["http"])
    note_process(watcher.name, pid, watcher.stop_signal, watcher.build)
    watcher.spawned = time.monotonic()
    return True


def after_reap(watcher: Process, exit_code: int | None = None, **_kwargs: object) -> bool:
    """Circus calls this when a process has ended."""
    lived = time.monotonic() - watcher.spawned
    watcher.not_before = time.monotonic() + (RETRY_DELAY if lived < SHORT_LIFE else 0.0)
    if watcher.is_active():
        logging.warning("%s ended with %s after %.1f s", watcher.name, exit_code, lived)
    return True

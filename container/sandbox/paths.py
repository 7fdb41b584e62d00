# SPDX-License-Identifier: Apache-2.0
"""Where things are in this sandbox, read from the environment that the engine or image gives."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator

from sandbox.errors import OTHER_BOOT, TEMPORARY, USAGE, SandboxError

# For type checkers only: see cli.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# In Hermes' home: what of it the inventory declared.
DECLARED = ".declared.json"
# Locked (shared) by those who follow the logs.
FOLLOWERS = "followers.lock"
# Beyond Hermes' own drain: what its shutdown takes at most before PID 1 kills it, in seconds.
SHUTDOWN_MARGIN = 10.0
# How long a command waits for another that must not run beside it, in seconds.
LOCK_PATIENCE = 120.0
# The same of one for a PID 1 that has not written its id yet.
BOOT_PATIENCE = 5.0
_BOOT = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")


class Paths:
    """Paths and ports of this sandbox, and whether anything confines it.

    `run` and what is below it lives in memory where the platform can; `home` is Hermes' state
    and lives on the disk.
    """

    def __init__(self, environ: dict[str, str] | os._Environ[str]) -> None:
        self.run = _required(environ, "SANDBOX_RUN")
        self.home = _required(environ, "HERMES_HOME").rstrip("/")
        self.managed = environ.get("HERMES_MANAGED_DIR") or os.path.join(self.run, "managed")
        self.port = int(environ.get("PORT_18789") or "18789")
        self.dashboard_port = int(environ.get("PORT_9119") or "9119")
        self.confined = environ.get("SANDBOX_CONFINED") == "1"
        self.image = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

    def in_run(self, name: str) -> str:
        """Return the path of a file in the run folder."""
        return os.path.join(self.run, name)

    def beside_home(self, suffix: str) -> str:
        """Return a path next to HERMES_HOME, on the same file system."""
        return f"{self.home}.{suffix}"

    def require_boot(self, boot: str) -> None:
        """Raise unless `boot` is the id that PID 1 wrote; a PID 1 that is new is waited for."""
        end = time.monotonic() + BOOT_PATIENCE
        while (current := read_text(self.in_run("boot"))) is None:
            if time.monotonic() >= end:
                raise SandboxError(TEMPORARY, "PID 1 of this sandbox is not ready yet.")
            time.sleep(0.02)
        if current != boot:
            raise SandboxError(OTHER_BOOT, "This sandbox belongs to another boot.")

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Run alone among those who ask for the same lock.

        Raises SandboxError 75 when another has it for longer than LOCK_PATIENCE.
        """
        with open(self.in_run(name), "w") as lock:
            end = time.monotonic() + LOCK_PATIENCE
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= end:
                        raise SandboxError(
                            TEMPORARY,
                            f"Another command has kept {name} for {LOCK_PATIENCE:.0f} s: not begun.",
                        ) from None
                    time.sleep(0.05)
            yield

    def restored(self) -> bool:
        """Tell whether a restore of this boot was completed."""
        marker = read_text(self.in_run("restored"))
        return marker is not None and marker == read_text(self.in_run("boot"))

    def drain(self) -> float:
        """Return how long Hermes may finish what it is doing, in seconds, as it is configured."""
        try:
            config = json.loads(read_text(os.path.join(self.managed, "config.yaml")) or "{}")
            return float(config.get("agent", {}).get("restart_drain_timeout", 0))
        except (OSError, ValueError, TypeError, AttributeError):
            return 0.0

    def state(self) -> dict[str, Any]:
        """Return what PID 1 last said about itself and Hermes; empty before its first word."""
        said: dict[str, Any] = json.loads(read_text(self.in_run("state.json")) or "{}")
        return said


def valid_boot(boot: str) -> bool:
    """Tell whether `boot` is usable as a boot id."""
    return bool(_BOOT.match(boot))


def read_text(path: str) -> str | None:
    """Return the stripped text of a small file, None when there is no such file."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


def write_private(path: str, text: str) -> None:
    """Replace `path` by a file of mode 0600 in one step, so that no reader sees half of it."""
    partial = f"{path}.{os.getpid()}.new"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def _required(environ: dict[str, str] | os._Environ[str], name: str) -> str:
    value = environ.get(name, "")
    if not os.path.isabs(value):
        raise SandboxError(USAGE, f"{name} must be set to an absolute path.")
    return value

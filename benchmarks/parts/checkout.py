# SPDX-License-Identifier: Apache-2.0
"""A fresh copy of the project to measure in, as a new user would clone it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.standins.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


class Checkout:
    """A copy of the tracked files with one deployment of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.providers_port = free_port()
        self.dashboard_port = free_port()
        self.state = folder / ".hermes" / "hermes"
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target, follow_symlinks=False)

    def supervisor(self) -> psutil.Process:
        """The one process that all others of the deployment descend from."""
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if "--folder" in command and command[command.index("--folder") + 1] == str(self.state):
                return process
        raise LookupError("the deployment has no supervisor")

    def _environment(self) -> dict[str, str]:
        """A fresh machine has no package in a cache, and lets Python keep its bytecode."""
        caches = ("UV_CACHE_DIR", "PIP_CACHE_DIR", "npm_config_cache")
        empty = {name: str(self.folder / ".cache" / name.lower()) for name in caches}
        return {
            **{name: os.environ[name] for name in os.environ if name != "PYTHONDONTWRITEBYTECODE"},
            "ANSIBLE_NOCOLOR": "1",
            **empty,
        }

    def make(self, target: str, *variables: str) -> tuple[float, str]:
        """Run a make target; return the seconds it took and what it printed.

        Raises RuntimeError with the output when it fails.
        """
        ports = (
            f"-e hermes_port={self.port} -e hermes_providers_port={self.providers_port}"
            f" -e hermes_dashboard_port={self.dashboard_port}"
        )
        started = time.monotonic()
        done = subprocess.run(
            ["make", target, f"ARGS={ports}", *variables],
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        seconds = time.monotonic() - started
        if done.returncode:
            raise RuntimeError(f"make {target} failed:\n{done.stdout}")
        return seconds, done.stdout


@contextmanager
def fresh_checkout() -> Iterator[Checkout]:
    """A checkout in an empty folder; what it deployed is destroyed at the end."""
    with tempfile.TemporaryDirectory(prefix="hermes-bench-") as folder:
        checkout = Checkout(Path(folder))
        try:
            yield checkout
        finally:
            checkout.make("destroy", "CONFIRM=yes")

# SPDX-License-Identifier: Apache-2.0
"""What Hermes keeps in files of its own, its configuration and its jobs, read and written by a program of its kind."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys

from sandbox.errors import FAILED, REFUSED, SandboxError
from sandbox.job_records import home_in_use
from sandbox.paths import Paths, write_private

# For type checkers only: see cli.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# For an answer, in seconds: less than whoever asks for a status has.
_PATIENCE = 40.0


class HermesSettings:
    """The program, which is started when it is first asked, and ends with this context."""

    def __init__(self, paths: Paths, environ: dict[str, str], managed: dict[str, Any]) -> None:
        """environ, managed: the environment and the configuration that hold for Hermes."""
        self._paths = paths
        self._environ = environ
        self._managed = managed
        self._folder = paths.in_run("declaring")
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> HermesSettings:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._process.communicate(timeout=5)
            self._process.kill()
            self._process.wait()
            shutil.rmtree(self._folder, ignore_errors=True)

    def look(self, paths: dict[str, list[str]], soul: bool) -> dict[str, Any]:
        """Return the digests of values by the items' names, and whether the soul is Hermes' own."""
        return self._ask({"do": "look", "paths": paths, "soul": soul})

    def lay(self, order: dict[str, Any]) -> dict[str, Any]:
        """Change all that is ordered, or nothing, and return the records of the jobs written.

        Raises SandboxError 77 when Hermes refuses an item.
        """
        jobs: dict[str, Any] = self._ask({"do": "lay", **order})["jobs"]
        return jobs

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        process = self._process = self._process or self._start()
        if process.stdin is None or process.stdout is None:
            raise TypeError
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            if not select.select([process.stdout], [], [], _PATIENCE)[0]:
                process.kill()
            answer = json.loads(process.stdout.readline())
        except (OSError, ValueError) as error:
            last = process.communicate(timeout=5)[1].strip().splitlines()[-1:]
            raise SandboxError(
                FAILED, f"Hermes' settings cannot be written: {' '.join(last) or 'no reason'}"
            ) from error
        if "refused" in answer:
            raise SandboxError(REFUSED, f"{answer['refused']}: {answer['why']}")
        found: dict[str, Any] = answer
        return found

    def _start(self) -> subprocess.Popen[str]:
        # What Hermes will run with, where it reads it; in the run folder, for it holds keys.
        os.makedirs(self._folder, 0o700, exist_ok=True)
        write_private(os.path.join(self._folder, "config.yaml"), json.dumps(self._managed))
        program = os.path.join(self._paths.image, "sandbox", "in_hermes", "lay_settings.py")
        return subprocess.Popen(
            [sys.executable, "-P", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                **self._environ,
                "HERMES_HOME": home_in_use(self._paths.home),
                "HERMES_MANAGED_DIR": self._folder,
                "PYTHONIOENCODING": "utf-8",
            },
        )

# SPDX-License-Identifier: Apache-2.0
"""The documentation as somebody reads it: its commands, typed one by one in a shell of an ordinary user."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from plays import ROOT, clean_environment, run

COLUMNS = 80
PLACEHOLDER = "..."
OURS = re.compile(r"ANSIBLE_|HERMES_|UV_CACHE_DIR|XDG_|CI$|PYTEST_|VIRTUAL_ENV")
"""What the tests' own environment has and a person's has not."""
RAW = re.compile(
    r"Traceback \(most recent|\x1b|^\[(?:ERROR|DEPRECATION)|^ERROR|^fatal:|FAILED! =>",
    re.MULTILINE,
)
"""What a card stands for, and a person should not have to read."""


def commands(page: str) -> list[str]:
    """The commands of a page's blocks for a shell, in their order; one may go over several lines."""
    text = (ROOT / page).read_text()
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in re.split(r"(?<!\\)\n", block) if line.strip()]


@dataclass
class Said:
    """What a command printed, and how it ended."""

    command: str
    code: int
    output: str

    def flaws(self) -> list[str]:
        """What nobody should have to read: lines wider than the terminal, and what is no card."""
        wide = [line for line in self.output.splitlines() if len(line) > COLUMNS]
        return [*wide, *RAW.findall(self.output)]


@dataclass
class Shell:
    """A shell of a person's, in which one command after the other is typed; it keeps folder and environment."""

    folder: Path
    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = {name: value for name, value in clean_environment().items() if not OURS.match(name)}
        own = {"HOME": str(self.home), "TERM": "dumb", "COLUMNS": str(COLUMNS)}
        self.environment = kept | own | self.environment

    def type(self, command: str, **further: str) -> Said:
        """Type a command. further: put before it, as `NAME=value command` is."""
        note = self.home / ".environment"
        script = f'{command}\ncode=$?; {{ pwd; env -0; }} > "{note}"; exit $code'
        as_person = ["setpriv", f"--reuid={uid()}", "--regid=nogroup", "--clear-groups"]
        shell = [*(as_person if os.geteuid() == 0 else []), "sh", "-c", script]
        done = run(shell, self.folder, self.environment | further)
        where, _, listed = note.read_text().partition("\n")
        self.folder = Path(where)
        pairs = (pair.partition("=") for pair in listed.split("\0") if pair)
        self.environment = {name: value for name, _, value in pairs if name not in further}
        return Said(command, done.returncode, done.stdout)

    @property
    def placeholders(self) -> list[str]:
        """The variables that were set as the documentation prints them, without a value of one's own."""
        return [name for name, value in self.environment.items() if value == PLACEHOLDER]


def uid() -> int:
    """Somebody whom this machine knows and who is not root."""
    return os.geteuid() or pwd.getpwnam("daemon").pw_uid


def give(folder: Path) -> None:
    """Make all in a folder the person's."""
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", str(uid()), str(folder)], check=True)


@contextmanager
def home() -> Iterator[Path]:
    """A home for an ordinary user, where that user can reach it."""
    folder = Path(tempfile.mkdtemp(prefix="hermes-person-"))
    folder.chmod(0o755)
    give(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)

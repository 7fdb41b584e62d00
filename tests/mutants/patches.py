# SPDX-License-Identifier: Apache-2.0
"""Kept breakings of the code: a patch for each promise, with the tests that have to notice it."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent


class Malformed(Exception):
    """A patch does not begin with what it breaks and who notices."""


@dataclass(frozen=True)
class NamedTest:
    """One test by its file, from the checkout's root, and its name."""

    file: str
    name: str

    @classmethod
    def of(cls, text: str) -> NamedTest:
        """Read `file::name`; a name of vitest's may be written with `>` between its parts.

        :raises Malformed: when there is no name.
        """
        file, _, name = text.partition("::")
        if name == "":
            raise Malformed(f"{text!r} names no test")
        return cls(file, name.replace(" > ", " "))

    @property
    def is_python(self) -> bool:
        """Whether pytest runs it; all others are vitest's."""
        return self.file.endswith(".py")

    def __str__(self) -> str:
        return f"{self.file}::{self.name}"


@dataclass(frozen=True)
class Mutant:
    """A patch that breaks one promise."""

    path: Path
    claim: str
    tests: tuple[NamedTest, ...]

    @property
    def name(self) -> str:
        """Its file's name without the ending."""
        return self.path.stem

    @property
    def source(self) -> tuple[str, str] | None:
        """The page and the sentence of a claim that is written as `page: "sentence"`."""
        match = re.fullmatch(r'(\S+\.md): "(.+)"', self.claim)
        return None if match is None else (match[1], match[2])


def mutants(pattern: str = "*") -> list[Mutant]:
    """All patches whose name matches.

    :raises Malformed: for one that has no head.
    """
    return [read(path) for path in sorted(FOLDER.glob(f"{pattern}.patch"))]


def read(path: Path) -> Mutant:
    """Read the head of a patch.

    :raises Malformed: when it names no claim or no test.
    """
    head, found, _ = path.read_text().partition("\ndiff --git ")
    claims = re.findall(r"^Claim: *(.+)$", head, re.MULTILINE)
    tests = re.findall(r"^Tests: *(.+)$", head, re.MULTILINE)
    if found == "" or len(claims) != 1 or tests == []:
        raise Malformed(f"{path.name} needs one 'Claim:', a 'Tests:' for each test, and a git diff")
    return Mutant(path, claims[0].strip(), tuple(NamedTest.of(text.strip()) for text in tests))


def apply(mutant: Mutant, folder: Path, *options: str) -> str:
    """Apply a patch below a folder.

    :returns: why it does not apply, or an empty text.
    """
    # A copy below the checkout is not to be taken for a part of it.
    env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    command = ["git", "apply", *options, str(mutant.path)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    return (
        "" if done.returncode == 0 else done.stderr.strip() or f"git ended with {done.returncode}"
    )

# SPDX-License-Identifier: Apache-2.0
"""Lets `make coverage` count what runs as a program of its own: the plays of tests, and the sandbox's programs.

Plays run in an environment without coverage.py, so it is told there where the tests' own is. The sandbox's programs
run on an interpreter that reads neither site-packages nor any variable, so each copy of them that tests lay out
measures itself. What they start has nothing of it in its environment; and where bubblewrap confines, nothing is
measured.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import coverage

FOLDER = Path(__file__).resolve().parents[1] / ".cache" / "coverage"
ONLY_COVERAGE = FOLDER / "python"
"""A folder in which nothing but coverage.py is found."""
MEASURING = "COVERAGE_PROCESS_CONFIG"
"""The variable by which coverage.py tells other processes that it measures, and how."""
LINE = "import os; os.path.isdir({only!r}) and {when} and exec({program!r})\n"
IMPORT = """
import sys
sys.path.append({only!r})
import coverage
sys.path.remove({only!r})
"""
SANDBOX = """
measured = coverage.Coverage(
    {data!r}, data_suffix=True, auto_data=True, branch=True, config_file=False, source=[{source!r}]
)
measured.set_option("run:patch", ["_exit", "fork"])
measured.start()
"""


def measuring() -> dict[str, str]:
    """Return what lets a program of the tests' own Python measure itself in an environment that it is given."""
    return {name: os.environ[name] for name in (MEASURING,) if name in os.environ}


def measure_sandbox(image: Path) -> None:
    """Let the sandbox's programs in an image measure themselves, while coverage is measured."""
    if MEASURING not in os.environ:
        return
    entry = image / "sandbox" / "__main__.py"
    first, rest = entry.read_text(encoding="utf-8").split("\n", 1)
    # In the place of a comment, so that no other line moves.
    assert first.startswith("#")
    program = SANDBOX.format(data=str(FOLDER / "data"), source=str(image / "sandbox"))
    entry.write_text(_line("True", program) + rest, encoding="utf-8")


@contextmanager
def measured_plays(environment: Path) -> Iterator[None]:
    """Let all that runs in a virtual environment measure itself, while coverage is measured.

    What is left behind by a run that was killed does nothing where nothing is measured.
    """
    if MEASURING not in os.environ:
        yield
        return
    # Of its own: another run may measure at the same time.
    entry = next(environment.glob("lib/python3*/site-packages")) / f"measured-{os.getpid()}.pth"
    entry.write_text(_line(f"{MEASURING!r} in os.environ", "coverage.process_startup()"))
    try:
        yield
    finally:
        entry.unlink(missing_ok=True)


def _line(when: str, program: str) -> str:
    """Return a line of Python that runs a program with coverage.py at hand, when a condition holds."""
    ONLY_COVERAGE.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (ONLY_COVERAGE / "coverage").symlink_to(Path(coverage.__file__).parent)
    only = str(ONLY_COVERAGE)
    return LINE.format(only=only, when=when, program=IMPORT.format(only=only) + program)

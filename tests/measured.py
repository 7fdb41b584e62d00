# SPDX-License-Identifier: Apache-2.0
"""Lets `make coverage` count what the sandbox's programs run, in the copies of them that tests lay out.

They run on an interpreter that reads neither site-packages nor any variable, so each copy measures itself. What they
start has nothing of it in its environment; and where bubblewrap confines, nothing is measured.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import coverage

FOLDER = Path(__file__).resolve().parents[1] / ".cache" / "coverage"
ONLY_COVERAGE = FOLDER / "python"
"""A folder in which nothing but coverage.py is found."""
# In the place of a comment, so that no other line moves.
LINE = "import os; os.path.isdir({only!r}) and exec({program!r})\n"
PROGRAM = """
import sys
sys.path.append({only!r})
import coverage
sys.path.remove({only!r})
measured = coverage.Coverage(
    {data!r}, data_suffix=True, auto_data=True, branch=True, config_file=False, source=[{source!r}]
)
measured.set_option("run:patch", ["_exit", "fork"])
measured.start()
"""


def measure_sandbox(image: Path) -> None:
    """Let the sandbox's programs in an image measure themselves, while coverage is measured."""
    if "COVERAGE_PROCESS_CONFIG" not in os.environ:
        return
    ONLY_COVERAGE.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (ONLY_COVERAGE / "coverage").symlink_to(Path(coverage.__file__).parent)
    entry = image / "sandbox" / "__main__.py"
    first, rest = entry.read_text(encoding="utf-8").split("\n", 1)
    assert first.startswith("#")
    places = {"only": str(ONLY_COVERAGE), "data": str(FOLDER / "data")}
    program = PROGRAM.format(**places, source=str(image / "sandbox"))
    entry.write_text(LINE.format(only=str(ONLY_COVERAGE), program=program) + rest, encoding="utf-8")

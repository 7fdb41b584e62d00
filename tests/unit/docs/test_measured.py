# SPDX-License-Identifier: Apache-2.0
"""What `make coverage` counts of programs in an environment without coverage.py, as plays run in."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

import coverage
import pytest

from tests.measured import MEASURING, measured_plays

FORKS = """
import os
def branch(of_child):
    if of_child:
        return "child"
    return "parent"
pid = os.fork()
branch(pid == 0)
if pid == 0:
    os._exit(0)  # as the processes end that Ansible runs tasks in
os.waitpid(pid, 0)
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    venv.create(tmp_path / "environment", with_pip=False)
    return tmp_path / "environment"


def run(environment: Path, program: Path) -> None:
    subprocess.run([environment / "bin" / "python", program], check=True, timeout=60)


def measuring(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What coverage.py tells the processes of a run that it measures."""
    run = coverage.Coverage(folder / "data", source=[str(folder)], config_file=False)
    run.set_option("run:patch", ["fork", "_exit"])
    run.set_option("run:parallel", True)
    monkeypatch.setenv(MEASURING, run.config.serialize())


def counted(folder: Path, program: Path) -> set[int]:
    """The lines of a program that were counted."""
    lines: set[int] = set()
    for path in folder.glob("data.*"):
        data = coverage.CoverageData(str(path))
        data.read()
        lines |= set(data.lines(str(program)) or [])
    return lines


def test_a_play_is_counted_and_the_processes_that_it_forks(
    tmp_path: Path, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    program.write_text(FORKS)
    measuring(tmp_path, monkeypatch)
    with measured_plays(environment):
        run(environment, program)
    ways = [
        FORKS.splitlines().index('        return "child"'),
        FORKS.splitlines().index('    return "parent"'),
    ]
    assert {number + 1 for number in ways} <= counted(tmp_path, program)


def test_nothing_is_counted_afterwards_or_where_nothing_is_measured(
    tmp_path: Path, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    program.write_text("import sys\nassert 'coverage' not in sys.modules\n")
    monkeypatch.delenv(MEASURING, raising=False)
    packages = list(environment.rglob("site-packages/*"))
    with measured_plays(environment):
        assert list(environment.rglob("site-packages/*")) == packages
    measuring(tmp_path, monkeypatch)
    with measured_plays(environment), monkeypatch.context() as shell:
        # Left behind by a run that was killed, it does nothing in a play of somebody's.
        shell.delenv(MEASURING)
        run(environment, program)
    assert list(environment.rglob("site-packages/*")) == packages
    run(environment, program)
    assert not list(tmp_path.glob("data.*"))

# SPDX-License-Identifier: Apache-2.0
"""`make bump` moves the pin of Hermes, or leaves everything as it was."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.bump import CONTAINER, FILES, bump

# Stand for the resolver: one locks what the pin says, the other has begun when it fails.
LOCKS = """
import pathlib, re, sys
folder = pathlib.Path(sys.argv[1])
version = re.search(r"^hermes-agent.*==(\\S+)$", (folder / "requirements.in").read_text(), re.M)[1]
for name in ("requirements.lock", "features.lock"):
    file = folder / name
    file.write_text(re.sub(r"(?m)^hermes-agent==[^\\s;\\\\]+", f"hermes-agent=={version}", file.read_text()))
"""
FAILS = LOCKS + "sys.exit(1)\n"


@pytest.fixture
def container(tmp_path: Path) -> Path:
    for name in FILES:
        shutil.copy(CONTAINER / name, tmp_path / name)
    return tmp_path


def test_it_pins_locks_and_says_what_changed(container: Path) -> None:
    lines = bump(container, "9.9.9", [sys.executable, "-c", LOCKS, str(container)])
    assert [line.split()[0] for line in lines] == ["hermes-agent"]
    assert lines[0].endswith("-> 9.9.9")
    assert "hermes-agent[anthropic]==9.9.9\n" in (container / "requirements.in").read_text()


def test_what_cannot_be_locked_changes_nothing(container: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        bump(container, "9.9.9", [sys.executable, "-c", FAILS, str(container)])
    for name in FILES:
        assert (container / name).read_bytes() == (CONTAINER / name).read_bytes(), name

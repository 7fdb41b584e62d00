# SPDX-License-Identifier: Apache-2.0
"""What stands between a new machine and the tools: another Python, none that has pip, an installer that takes long."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BOOTSTRAP = ROOT / "requirements" / "bootstrap.py"
spec = importlib.util.spec_from_file_location("bootstrap", BOOTSTRAP)
bootstrap = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bootstrap)

ANOTHER = """#!{python}
import runpy, sys
sys.version_info = {version}
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""A Python that takes itself for one of another version."""

WITHOUT_PIP = """#!/bin/sh
# As Debian's Python is without python3-venv.
case "$2" in
  venv) mkdir -p "$4/bin" ;;
  pip) echo "No module named pip" >&2; exit 1 ;;
  *) exit 9 ;;
esac
"""

# It ends when it was told of; by itself only where nothing is ever told.
SLOW = """
for i in $(seq 600); do
  if [ -e told ]; then echo "what it has to say" >&2; exit {code}; fi
  sleep 0.1
done
exit 9
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 10, 14), (3, 14, 0)])
def test_another_python_is_told_and_makes_nothing(tmp_path: Path, version: tuple[int, ...]) -> None:
    text = ANOTHER.format(python=sys.executable, version=version)
    python = program(tmp_path / "bin" / "python", text)
    words = ["sh", BOOTSTRAP.with_suffix(".sh"), python, ".venv", "requirements/deploy.lock"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    found = ".".join(map(str, version))
    first, *others = " ".join(done.stderr.split()).partition(" Nothing was changed. ")
    assert first.startswith(f"python: {found} at ")
    assert first.endswith("cannot run Hermes: it needs 3.11, 3.12 or 3.13.")
    assert "Do: install one of these and name it: make deploy PYTHON=python3.12" in others[1]
    assert done.stdout == ""
    assert not (tmp_path / ".venv").exists()


def test_an_old_python_reads_as_far_as_that() -> None:
    ast.parse(BOOTSTRAP.read_text(), feature_version=(3, 4))
    assert "f'" not in (text := BOOTSTRAP.read_text()) and 'f"' not in text


def test_a_python_without_pip_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = program(tmp_path / "bin" / "python", WITHOUT_PIP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    monkeypatch.setattr(bootstrap, "wheel_of_pip", list)
    assert bootstrap.main(".venv", str(ROOT / "requirements" / "deploy.lock")) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith("python3-venv: not installed, so ")
    assert "Nothing was changed. Do: install it (Debian, Ubuntu: apt install python3-venv)" in told
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("code", [0, 3])
def test_an_installer_that_takes_long_is_told_of_while_it_works(
    tmp_path: Path,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And what it has to say is shown when it failed."""
    told: list[str] = []

    def say(line: str) -> None:
        told.append(line)
        (tmp_path / "told").touch()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bootstrap, "SIGN_OF_LIFE", 0.01)
    monkeypatch.setattr(bootstrap, "say", say)
    assert bootstrap.call("pip", ["sh", "-c", SLOW.format(code=code)], None) == code
    assert told[0].startswith("  pip is still at it after ")
    assert capsys.readouterr().err == ("what it has to say\n" if code else "")


def test_a_sign_of_life_that_cannot_be_shown_ends_nothing() -> None:
    command = "import bootstrap; bootstrap.say('a'); bootstrap.say('b'); print('c')"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", command],
            cwd=BOOTSTRAP.parent,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")

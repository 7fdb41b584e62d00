# SPDX-License-Identifier: Apache-2.0
"""What stands between a new machine and the tools: another Python, none that has pip, an installer that takes long."""

from __future__ import annotations

import ast
import errno
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

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
    ended, said = bootstrap.call("pip", ["sh", "-c", SLOW.format(code=code)], None)
    assert (ended, said) == (code, "what it has to say\n")
    assert told[0].startswith("  pip is still at it after ")
    assert capsys.readouterr().err == ("what it has to say\n" if code else "")


SAYING = """#!/bin/sh
echo "$SAID" >&2
exit 2
"""
"""An installer that fails."""
WHY = {
    "error: failed to write: No space left on device (os error 28)": "disk: no space left while the packages of",
    "Hash mismatch for `ansible-core==2.19.4`": "requirements/deploy.lock: a package is not the one that it pins",
    "Resource temporarily unavailable (os error 11)": "limit: no further process, memory or open file",
    "invalid peer certificate: certificate expired: verification": "clock: it is 20",
    "error: Connection refused "
    + "by somebody " * 20: "registry not reachable, or refused: the packages of",
}


@pytest.mark.parametrize("said", WHY)
def test_why_an_installation_failed_is_told_by_what_the_installer_says(
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", f"{program(tmp_path / 'bin' / 'uv', SAYING).parent}:/usr/bin:/bin")
    monkeypatch.setenv("SAID", said)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(ROOT)
    assert bootstrap.main(str(tmp_path / "venv"), "requirements/deploy.lock") == 1
    told = capsys.readouterr().err
    assert [line for line in told.splitlines() if line.startswith(WHY[said][:40])]
    assert WHY[said] in " ".join(told.split())
    # A path that is wider than the terminal stays whole, in a line of its own: it is to be copied.
    assert [line for line in told.splitlines() if len(line) > 80 and " " in line.strip()] == []
    assert said.rstrip() in " ".join(told.split())
    assert not (tmp_path / "venv").exists()


def test_an_installer_that_the_system_killed_had_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = program(tmp_path / "bin" / "uv", "#!/bin/sh\nkill -9 $$\n")
    monkeypatch.setenv("PATH", f"{killed.parent}:/usr/bin:/bin")
    monkeypatch.chdir(ROOT)
    assert bootstrap.main(str(tmp_path / "venv"), "requirements/deploy.lock") == 1
    assert "\nlimit: no further process, memory" in capsys.readouterr().err


def test_nobody_else_may_change_the_tools_though_the_shell_would_let_them(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "uv", "#!/bin/sh\necho > .venv/made\n")
    (tmp_path / "deploy.lock").write_text("")
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    words = [sys.executable, BOOTSTRAP, ".venv", "deploy.lock"]
    subprocess.run(
        ["sh", "-c", 'umask 0; exec "$@"', "sh", *words], cwd=tmp_path, env=env, check=True
    )
    made = [path for path in (tmp_path / ".venv").rglob("*") if not path.is_symlink()]
    assert tmp_path / ".venv" / "made" in made
    assert [path for path in (*made, tmp_path / ".venv") if path.stat().st_mode & 0o022] == []


def test_what_an_installer_says_needs_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be about the disk for temporary files."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("TemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(bootstrap.tempfile, name, full)
    said = bootstrap.call("uv", ["sh", "-c", "echo out; echo No space left >&2; exit 3"], None)
    assert said == (3, "out\nNo space left\n")


def test_the_fullest_of_the_disks_that_an_installer_writes_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    symptoms = bootstrap.shared("symptoms")
    for name in ("venv", "tmp", "uv", "npm"):
        (tmp_path / name).mkdir()
    full = tmp_path / "venv"
    monkeypatch.setattr(symptoms, "_free", lambda path: 0 if path == full else 10**9)
    monkeypatch.setattr(symptoms.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    env = {"UV_CACHE_DIR": str(tmp_path / "uv"), "npm_config_cache": str(tmp_path / "npm" / "new")}
    found = {}
    for name in ("venv", "tmp", "uv", "npm"):
        full = tmp_path / name
        place, free, found[name] = symptoms.fullest(tmp_path / "venv" / "new" / "folder", env)
        assert (place, free) == (full, 0)
    assert found == {"venv": "", "tmp": "TMPDIR", "uv": "UV_CACHE_DIR", "npm": "npm_config_cache"}


WAITING_UV = """#!/bin/sh
touch begun-$$
while [ ! -e go ]; do sleep 0.05; done
"""


def test_of_two_at_once_one_installs_and_the_other_waits_and_has_it(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "uv", WAITING_UV)
    (tmp_path / "deploy.lock").write_text("")
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    words = [sys.executable, BOOTSTRAP, ".venv", "deploy.lock"]

    def begin() -> subprocess.Popen[str]:
        return subprocess.Popen(words, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)

    first = begin()
    try:
        while not list(tmp_path.glob("begun-*")) and first.poll() is None:
            time.sleep(0.05)
        second = begin()
        assert second.stdout
        told = second.stdout.readline()
    finally:
        (tmp_path / "go").touch()
    assert "done in" in first.communicate(timeout=300)[0]
    assert second.communicate(timeout=300)[0] == ""
    assert told.startswith("Waiting for another run that installs")
    assert (first.returncode, second.returncode) == (0, 0)
    assert len(list(tmp_path.glob("begun-*"))) == 1
    assert (tmp_path / ".venv" / "installed.lock").exists()


def test_who_waits_and_has_enough_leaves_the_others_installation_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(descriptor: int, lock: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bootstrap, "hold", interrupted)
    (tmp_path / "deploy.lock").write_text("")
    (tmp_path / ".venv").mkdir()
    assert bootstrap.main(".venv", "deploy.lock") == 130
    assert capsys.readouterr().err.startswith("interrupted: ")
    assert (tmp_path / ".venv").is_dir()


@pytest.mark.parametrize(
    ("owner", "remedy"),
    [
        (3_000_000_001, "use a checkout of your own, or run it as 3000000001."),
        (0, "sudo chown -R "),
    ],
)
def test_a_folder_of_somebody_else_is_told_with_what_helps(
    owner: int,
    remedy: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Root's is what an earlier run with sudo left; another person's is their checkout."""
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 3_000_000_000)
    monkeypatch.setattr(bootstrap.os, "access", lambda path, mode: False)
    monkeypatch.setattr(bootstrap.os, "stat", lambda path: SimpleNamespace(st_uid=owner))
    assert bootstrap.owned(str(tmp_path)) is False
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith(f"{tmp_path}: belongs to ")
    assert f"Do: {remedy}" in told


def test_of_a_checkout_on_a_disk_that_is_read_only_nobody_becomes_the_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Root mounted it, and no chown changes that."""
    with monkeypatch.context() as patched:
        patched.setattr(bootstrap.os, "geteuid", lambda: 3_000_000_000)
        patched.setattr(bootstrap.os, "access", lambda path, mode: False)
        patched.setattr(bootstrap.os, "stat", lambda path: SimpleNamespace(st_uid=0))
        mounted = SimpleNamespace(f_flag=os.ST_RDONLY)
        patched.setattr(bootstrap.os, "statvfs", lambda path: mounted)
        mine = bootstrap.owned(str(tmp_path))
    assert mine is False
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith(f"{tmp_path}: cannot be written: Read-only file system. Nothing")
    assert f"Do: copy it to where you can write, cp -R {BOOTSTRAP.parents[1]} ~/" in told


def test_a_link_that_another_run_makes_at_the_same_time_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert bootstrap.main(".ansible/hermes/workers", "--link") == 0
        assert (tmp_path / ".ansible/hermes/workers").resolve() == tmp_path.resolve()
    assert [path.name for path in (tmp_path / ".ansible/hermes").iterdir()] == ["workers"]


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

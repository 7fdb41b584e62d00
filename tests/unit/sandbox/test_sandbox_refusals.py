# SPDX-License-Identifier: Apache-2.0
"""What the sandbox's commands refuse and with which code, and what they find on other systems; in this process."""

from __future__ import annotations

import errno
import importlib.machinery
import importlib.util
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sandbox_box import CONTAINER

sys.path.insert(0, str(CONTAINER))

from engine import confine
from engine import processes as engine_processes
from engine.cli import main as engine_main
from engine.errors import EngineError, disk_full
from sandbox import cli, errors, processes
from sandbox.cli import main
from sandbox.commands import hermes
from sandbox.errors import SandboxError
from sandbox.paths import Paths
from sandbox.state import replace_home


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A sandbox whose PID 1 is not there; a time that was given is over at once."""
    clock = iter(range(0, 10**9, 1000))
    for module in ("sandbox.paths", "sandbox.commands.hermes"):
        late = SimpleNamespace(monotonic=lambda: float(next(clock)), sleep=lambda _seconds: None)
        monkeypatch.setattr(sys.modules[module], "time", late)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    for name in ("run", "home"):
        (tmp_path / name).mkdir()
    return Paths({"SANDBOX_RUN": f"{tmp_path}/run", "HERMES_HOME": f"{tmp_path}/home/.hermes"})


def refused(action: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(SandboxError) as caught:
        action()
    return caught.value.code, str(caught.value)


@pytest.mark.parametrize(
    "words", [["status"], ["go", "--boot", ""], ["stop", "--boot"], ["what"], []]
)
def test_a_command_without_its_boot_is_told_how_it_is_used(
    words: list[str],
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SANDBOX_RUN", paths.run)
    monkeypatch.setenv("HERMES_HOME", paths.home)
    assert main(words) == errors.USAGE
    assert cli.USAGE.strip() in capsys.readouterr().err


@pytest.mark.parametrize("value", ["", "run/hermes"])
def test_a_place_that_is_no_whole_path_is_refused(value: str) -> None:
    code, words = refused(lambda: Paths({"SANDBOX_RUN": "/run", "HERMES_HOME": value}))
    assert (code, words) == (errors.USAGE, "HERMES_HOME must be set to an absolute path.")


def test_a_first_process_that_does_not_come_is_not_waited_for_for_ever(paths: Paths) -> None:
    code, words = refused(lambda: paths.require_boot("boot-1"))
    assert code == errors.TEMPORARY and "not ready yet" in words


@pytest.mark.parametrize("left", [False, True], ids=["nothing", "its FIFO"])
def test_an_order_to_a_first_process_that_is_gone_may_be_tried_again(
    paths: Paths, left: bool
) -> None:
    if left:
        os.mkfifo(paths.in_run("control"))
    code, words = refused(lambda: hermes.tell(paths, {"do": "stop"}))
    assert code == errors.TEMPORARY and "is gone" in words


def test_what_is_no_control_at_all_is_the_systems_own_error(paths: Paths) -> None:
    os.mkdir(paths.in_run("control"))
    with pytest.raises(IsADirectoryError):
        hermes.tell(paths, {"do": "stop"})


@pytest.mark.parametrize(
    "command",
    [
        lambda paths: hermes.restart_gateway(paths, io.BytesIO(), None),
        lambda paths: hermes.declare(paths, io.BytesIO(b'{"env": {}, "configuration": "1"}')),
    ],
    ids=["restart", "declare"],
)
def test_before_a_go_there_is_no_hermes_to_change(
    paths: Paths, command: Callable[[Paths], None]
) -> None:
    code, words = refused(lambda: command(paths))
    assert code == errors.NOT_RESTORED and "use go" in words


def test_a_hermes_that_does_not_stop_in_time_is_told(paths: Paths) -> None:
    Path(paths.in_run("state.json")).write_text('{"state": "stopping"}')
    os.mkfifo(paths.in_run("control"))
    reader = os.open(paths.in_run("control"), os.O_RDWR | os.O_NONBLOCK)
    try:
        code, words = refused(lambda: hermes.stop_gateway(paths, 3.0))
        assert code == errors.FAILED and "Hermes is not stopped after 18 s" in words
        assert os.read(reader, 999) == b'{"do": "stop", "drain": 3.0}\n'
    finally:
        os.close(reader)


def test_of_a_first_process_that_is_the_systems_all_processes_are_its_own() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            found = {one["pid"]: one["name"] for one in hermes._processes(1)}
        finally:
            other.kill()
    assert found[other.pid] == "sleep" and os.getpid() not in found
    assert hermes._processes(None) == []


def test_ps_tells_of_processes_what_proc_does() -> None:
    """Where there is no /proc, as on macOS."""
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            by_ps = {one.pid: one for one in processes._table_of_ps()}
            by_proc = {one.pid: one for one in processes._table_of_proc()}
        finally:
            child.kill()
    for table in (by_ps, by_proc):
        found = table[child.pid]
        assert (found.parent, found.name) == (os.getpid(), "sleep") and found.rss > 0
    ended = [one.name for one in by_ps.values() if one.name == "ps" and one.parent == os.getpid()]
    assert ended == [], "the one that was asked"


def test_what_the_engine_left_is_found_by_ps_too(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "  41 sleep 60 HOME=/x SANDBOX_ID=one\n  42 sh SANDBOX_ID=one-more\n  43 <defunct>\n44\n"
    monkeypatch.setattr(engine_processes.sys, "platform", "darwin")
    monkeypatch.setattr(
        engine_processes.subprocess, "run", lambda *_given, **_more: SimpleNamespace(stdout=told)
    )
    ended: list[int] = []

    def kill(pid: int, _number: int) -> None:
        nonlocal told
        ended.append(pid)
        told = "\n".join(line for line in told.splitlines() if str(pid) not in line)
        raise ProcessLookupError  # it was faster

    monkeypatch.setattr(engine_processes.os, "kill", kill)
    engine_processes.kill_marked("one")
    assert ended == [41]


@pytest.fixture
def swap(paths: Paths) -> tuple[Path, Path, Path]:
    """What is beside Hermes' home: the home, the one of before, and a new one."""
    home = Path(paths.home)
    return home, Path(paths.beside_home("old")), Path(paths.beside_home("stage"))


def fill(folder: Path, word: str) -> None:
    folder.mkdir()
    (folder / "word").write_text(word)


def test_a_swap_that_was_cut_is_finished_or_undone(
    paths: Paths, swap: tuple[Path, Path, Path]
) -> None:
    home, old, stage = swap
    replace_home.settle(paths)
    fill(old, "before")
    replace_home.settle(paths)
    assert (home / "word").read_text() == "before" and not old.exists()
    fill(stage, "after")
    replace_home.replace_home(paths, str(stage))
    assert (home / "word").read_text() == "after" and not old.exists()
    old.symlink_to("/etc")
    replace_home.settle(paths)
    assert (home / "word").read_text() == "after" and not old.is_symlink()
    assert Path("/etc/passwd").exists()


def test_a_home_that_cannot_be_replaced_stays(paths: Paths, swap: tuple[Path, Path, Path]) -> None:
    home, old, _stage = swap
    fill(home, "before")
    with pytest.raises(FileNotFoundError):
        replace_home.replace_home(paths, f"{home}.nothing")
    assert (home / "word").read_text() == "before" and not old.exists()


# The engine


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.ENOSPC, "full"), 507),
        (OSError(errno.EDQUOT, "full"), 507),
        (OSError(errno.EACCES, "no"), None),
        (ValueError(), None),
    ],
)
def test_only_a_full_disk_is_told_as_one(error: Exception, status: int | None) -> None:
    found = disk_full(error)
    assert (found and found.status) == status


def test_where_there_is_no_bubblewrap_nothing_claims_to_be_confined(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [confine.decide(mode) for mode in ("auto", "never")] == [False, False]
    with pytest.raises(EngineError) as caught:
        confine.decide("always")
    assert (caught.value.status, caught.value.code) == (503, "not_confined")
    (tmp_path / "bwrap").write_text("#!/nowhere\n")
    (tmp_path / "bwrap").chmod(0o755)
    assert not confine.works()
    words = ["--socket", "s", "--images", "i", "--disks", "d", "--snapshots", "n"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="bubblewrap is not installed or does not work"):
        engine_main([*words, "--confine", "always"])
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("ports", ["0", "80,65536", "web"])
def test_a_port_that_is_none_is_refused(ports: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--socket", "s", "--images", "i", "--disks", "d", "--snapshots", "n"]
    with pytest.raises(SystemExit):
        engine_main([*words, "--ports", ports])
    assert "--ports" in capsys.readouterr().err


# SQLite


def loaded() -> None:
    """What `import sqlite3` does in an image."""
    place = CONTAINER / "sqlite" / "newer_sqlite.py"
    spec: Any = importlib.util.spec_from_file_location("sqlite3", place)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_without_its_library_pythons_own_sqlite_is_used_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "sqlite3", raising=False)
    loaded()
    assert sys.modules.pop("sqlite3").connect(":memory:").execute("SELECT 1").fetchone() == (1,)
    assert capsys.readouterr().err.startswith("sqlite3: ")


def test_a_python_without_sqlite_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.machinery.PathFinder, "find_spec", lambda *_given: None)
    with pytest.raises(ImportError, match="built without sqlite3"):
        loaded()

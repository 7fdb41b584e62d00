# SPDX-License-Identifier: Apache-2.0
"""PID 1's parts in this process, where the system can refuse what it refuses seldom, and time is ours."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sandbox_box import CONTAINER

sys.path.insert(0, str(CONTAINER))

from sandbox import errors, processes
from sandbox.cli import main
from sandbox.commands import dashboard, logs
from sandbox.errors import SandboxError
from sandbox.paths import Paths
from sandbox.pid1 import dashboard_keeper
from sandbox.pid1.dashboard_keeper import DashboardKeeper
from sandbox.pid1.engine_link import EngineLink
from sandbox.pid1.init import Init
from sandbox.pid1.log import LIMIT, Log
from sandbox.state import archive


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """The places of a sandbox in which nothing runs."""
    for name in ("run", "home"):
        (tmp_path / name).mkdir()
    places = {"SANDBOX_RUN": f"{tmp_path}/run", "HERMES_HOME": f"{tmp_path}/home/.hermes"}
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    return Paths(places)


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


# The dashboard's keeper


class Shown:
    """A dashboard that hears signals."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.heard: list[int] = []
        self.buried: int | None = None

    def signal_group(self, number: int) -> None:
        self.heard.append(number)

    def bury(self, code: int) -> None:
        self.buried = code


class Keeping:
    """A keeper with its clock, and what it starts and says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        monkeypatch.setattr(dashboard_keeper, "time", self.clock)
        self.refusal: Exception | None = None
        self.made: list[Shown] = []
        self.said: list[tuple[int | None, str | None]] = []
        self.keeper = DashboardKeeper(self.start, lambda pid, how: self.said.append((pid, how)))

    def start(self, run: int) -> Any:
        if self.refusal is not None:
            raise self.refusal
        self.made.append(Shown(100 + run))
        return self.made[-1]

    def ends(self, code: int = 1) -> float | None:
        """Let it end, and return in how many seconds it is to come back."""
        self.keeper.ended(self.made[-1], code)  # type: ignore[arg-type]
        assert self.made[-1].buried == code
        return self.due()

    def due(self) -> float | None:
        return None if self.keeper.due is None else self.keeper.due - self.clock.now


@pytest.fixture
def keeping(monkeypatch: pytest.MonkeyPatch) -> Keeping:
    return Keeping(monkeypatch)


def test_a_dashboard_that_keeps_ending_waits_ever_longer_until_it_was_in_good_health(
    keeping: Keeping,
) -> None:
    keeping.keeper.want()
    pauses = []
    for _ in range(9):
        pauses.append(keeping.ends())
        keeping.keeper.tick()
        assert keeping.keeper.child is None, "before its time"
        keeping.clock.now += pauses[-1]
        keeping.keeper.tick()
        assert keeping.keeper.child is keeping.made[-1]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    keeping.clock.now += dashboard_keeper.HEALTHY
    assert keeping.ends() == 1
    assert keeping.said[:3] == [(101, None), (None, "ended with code 1"), (102, None)]


def test_a_dashboard_that_does_not_end_when_it_is_asked_is_killed(keeping: Keeping) -> None:
    keeping.keeper.want()
    keeping.keeper.renew()
    assert keeping.made[0].heard == [signal.SIGTERM]
    keeping.keeper.tick()
    assert keeping.made[0].heard == [signal.SIGTERM]
    keeping.clock.now += dashboard_keeper.STOP_TIME
    keeping.keeper.tick()
    assert keeping.made[0].heard == [signal.SIGTERM, signal.SIGKILL]
    assert keeping.keeper.due is None, "once"
    # It comes back at once, for it was not its fault; the next end is.
    assert keeping.ends(137) == 0
    keeping.keeper.tick()
    assert keeping.ends() == 1


def test_a_dashboard_that_is_no_longer_wanted_does_not_come_back(keeping: Keeping) -> None:
    keeping.keeper.stop()
    keeping.keeper.renew()
    assert (keeping.made, keeping.keeper.due) == ([], None)
    keeping.refusal = OSError(errno.EMFILE, "Too many open files")
    keeping.keeper.want()
    assert keeping.said == [(None, "cannot be started: Too many open files")]
    keeping.keeper.want()
    assert len(keeping.said) == 1, "it is due anyway"
    keeping.refusal = None
    keeping.clock.now += 1
    keeping.keeper.tick()
    keeping.keeper.stop()
    assert keeping.ends(0) is None


# The link to the engine


@pytest.fixture
def link() -> Iterator[tuple[EngineLink, socket.socket, list[bool]]]:
    """PID 1's end of a link, the engine's, and whether it was found gone."""
    ours, theirs = socket.socketpair()
    gone: list[bool] = []
    theirs.settimeout(30)
    with ours, theirs:
        yield EngineLink(os.dup(ours.fileno()), lambda: gone.append(True)), theirs, gone


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EMFILE])
def test_what_the_machine_refuses_for_a_moment_is_no_end_of_the_link(
    link: tuple[EngineLink, socket.socket, list[bool]],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    reading, engine, gone = link
    engine.sendall(b'{"pause": false}\n')
    monkeypatch.setattr(processes, "descendants", lambda _root: [])

    def refuse(*_given: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as refused:
        refused.setattr(socket, "recv_fds", refuse)
        with pytest.raises(OSError, match=os.strerror(number)):
            reading.read()
    assert gone == []
    reading.read()
    assert engine.recv(99) == b'{"paused": false}\n'


def test_any_other_error_of_the_link_is_its_end_and_so_is_half_an_order(
    link: tuple[EngineLink, socket.socket, list[bool]],
) -> None:
    reading, engine, gone = link
    engine.sendall(b'{"kill": 7}\n{"signal": ')
    reading.read()
    assert gone == []
    reading._answer({"never": "read"})
    engine.close()  # with something unread, which makes an error of its end
    reading.read()
    assert gone == [True]
    reading._answer({"nobody": "there"})


@pytest.mark.parametrize(
    "order", [b"no json", b"[]", b"7", b'{"cmd": []}', b'{"signal": "x"}', b'{"cmd": ["x"]}']
)
def test_an_order_of_the_engine_that_is_none_ends_nothing(
    link: tuple[EngineLink, socket.socket, list[bool]],
    monkeypatch: pytest.MonkeyPatch,
    order: bytes,
) -> None:
    reading, engine, gone = link
    monkeypatch.setattr(processes, "descendants", lambda _root: [])
    engine.sendall(order + b'\n{"pause": true}\n')
    reading.read()
    assert (engine.recv(99), gone) == (b'{"paused": true}\n', [])


def test_an_order_over_a_pipe_begins_nothing(tmp_path: Path) -> None:
    """A pipe tells only of the engine's end, and brings no descriptors."""
    reader, writer = os.pipe()
    gone: list[bool] = []
    reading = EngineLink(reader, lambda: gone.append(True))
    order = {"id": 1, "cmd": ["touch", str(tmp_path / "x")], "env": {}, "cwd": None}
    os.write(writer, json.dumps(order).encode() + b"\n")
    reading.read()
    assert (reading.execs, gone, list(tmp_path.iterdir())) == ({}, [], [])
    os.close(writer)
    reading.read()
    assert gone == [True]
    os.close(reader)


# PID 1


@pytest.fixture
def init(paths: Paths) -> Iterator[Init]:
    """PID 1, which has not begun."""
    made = Init(paths, "boot-1", [], {})
    yield made
    made.selector.close()


def said(paths: Paths) -> str:
    return Path(paths.in_run("hermes.log")).read_text()


@pytest.mark.parametrize("refusal", [MemoryError(), OSError(errno.EMFILE, "Too many open files")])
def test_what_the_system_refuses_pid_1_is_said_and_ends_nothing(
    init: Init, paths: Paths, refusal: Exception
) -> None:
    def step() -> None:
        raise refusal

    init._try(step)
    assert said(paths).startswith("sandbox: the system refused something: ")
    with pytest.raises(ZeroDivisionError):  # but for a fault of its own
        init._try(lambda: 1 / 0)


@pytest.mark.parametrize("order", ["restart", "stop", "declared", "dashboard", "what"])
def test_before_the_go_an_order_changes_nothing(init: Init, order: str) -> None:
    before = dict(init.state)
    init._obey(order, None)
    assert (init.state, init.gateway, init.dashboard.child, init.exit_code) == (
        before,
        None,
        None,
        None,
    )


def test_a_word_that_cannot_be_written_is_written_later(init: Init, paths: Paths) -> None:
    state = Path(paths.in_run("state.json"))
    state.mkdir()
    init._publish(state="stopped")
    assert "state.json cannot be written: Is a directory" in said(paths)
    assert not [path for path in state.parent.iterdir() if path.name.endswith(".new")]
    assert init.publish_at is not None
    timeout = init._timeout()
    assert timeout is not None and timeout <= 1.0
    state.rmdir()
    init._tick()
    assert not state.exists(), "before its time"
    init.publish_at = 0.0
    init._tick()
    assert json.loads(state.read_text())["state"] == "stopped"
    assert init.publish_at is None and init._timeout() is None


# What it prints


def test_a_log_has_bounds_and_its_last_words(tmp_path: Path, capfdbinary: Any) -> None:
    log = Log(str(tmp_path / "log"))
    for number in range(30):
        log.write(b"%d " % number * (LIMIT // 20))
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(files) == {"log", "log.1"}
    assert all(len(text) < 2 * LIMIT for text in files.values())
    assert files["log"].endswith(b"29 ") and b"28 " in files["log.1"] + files["log"]
    assert capfdbinary.readouterr().out.endswith(b"29 ")


def test_a_log_that_cannot_be_written_stops_nothing_and_is_passed_on(
    tmp_path: Path, capfdbinary: Any
) -> None:
    log = Log(str(tmp_path / "not there" / "log"))
    log.write(b"first\n")
    (tmp_path / "not there").mkdir()
    log.write(b"second\n")
    assert (tmp_path / "not there" / "log").read_bytes() == b"second\n"
    assert capfdbinary.readouterr().out == b"first\nsecond\n"


# Processes


def test_where_there_is_no_proc_nobody_is_found_by_a_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_LINUX", False)
    assert processes.marked("PATH=/") == set()
    processes.adopt_orphans()  # which only Linux can


def test_a_process_without_a_descriptor_left_finds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(processes.os, "listdir", refuse)
    assert processes.marked("PATH=/") == set()


def test_processes_that_survive_a_kill_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    killed: list[set[int]] = []
    monkeypatch.setattr(processes, "time", clock)
    monkeypatch.setattr(processes, "descendants", lambda _root: [SimpleNamespace(pid=7)])
    monkeypatch.setattr(processes, "marked", lambda _mark: {8})
    monkeypatch.setattr(processes, "kill", killed.append)
    assert processes.kill_all_below(1, "X=y") is False
    assert killed[0] == {7, 8} and clock.now >= 1000 + processes.KILL_SECONDS


# The commands


def test_a_dashboard_that_does_not_answer_in_time_is_told(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "time", Clock())
    monkeypatch.setattr(dashboard, "_answers", lambda _port, _token: False)
    Path(paths.in_run("go")).touch()
    Path(paths.in_run("env.json")).write_text(json.dumps({dashboard.TOKEN: "x"}))
    os.mkfifo(paths.in_run("control"))
    reader = os.open(paths.in_run("control"), os.O_RDWR | os.O_NONBLOCK)
    try:
        with pytest.raises(SandboxError, match="not running after 60 s") as caught:
            dashboard.dashboard(paths, host_tools=True)
        assert caught.value.code == errors.FAILED
        assert os.read(reader, 99) == b'{"do": "dashboard"}\n'
    finally:
        os.close(reader)


def test_a_log_that_is_followed_may_grow_be_cut_and_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "log"
    source = logs._Source(str(path), 2)
    assert source.read() == b""
    path.write_bytes(b"1\n2\n3\n")
    assert source.read() == b"1\n2\n3\n", "all of it is new"
    later = logs._Source(str(path), 2)
    assert later.read() == b"2\n3\n"
    with path.open("ab") as file:
        file.write(b"4\nhalf")
    assert (source.read(), later.read()) == (b"4\n", b"4\n")
    with path.open("ab") as file:
        file.write(b" a line\n")
    assert source.read() == b"half a line\n"
    path.write_bytes(b"5\n")
    assert source.read() == b"5\n"
    (tmp_path / "new").write_bytes(b"0\n6\n")
    (tmp_path / "new").rename(path)
    assert source.read() == b"0\n6\n"
    path.unlink()
    assert source.read() == b""
    assert logs._Source(str(tmp_path / "new"), 0).read() == b""


def test_only_what_may_be_a_key_is_hidden_in_a_log(paths: Paths) -> None:
    assert logs._redact(paths, b"a-long-secret") == b"a-long-secret"
    environ = {"THE_TOKEN": "a-long-secret", "SHORT_KEY": "no", "PLACE": "in-the-open"}
    Path(paths.in_run("env.json")).write_text(json.dumps(environ))
    assert logs._redact(paths, b"a-long-secret no in-the-open") == b"*** no in-the-open"


# A state that cannot be read


def saved(paths: Paths, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, bytes]:
    """Save in this process and return the exit code and what was written."""
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=output))
    return main(["save", "--boot", "boot-1", *words]), output.getvalue()


@pytest.fixture
def state(paths: Paths) -> Path:
    """A home with Hermes' memory and a file."""
    import sqlite3

    home = Path(paths.home)
    home.mkdir()
    for name in ("boot", "restored"):
        Path(paths.in_run(name)).write_text("boot-1")
    database = sqlite3.connect(home / "state.db")
    for table in ("sessions", "messages"):
        database.execute(f"CREATE TABLE {table} (id TEXT)")
    database.close()
    (home / "note").write_text("first")
    return home


def test_a_file_that_the_disk_does_not_give_back_ends_the_save_with_nothing(
    state: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = os.open

    def broken(path: Any, *given: Any, **more: Any) -> int:
        if os.fspath(path) == str(state / "note"):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return opened(path, *given, **more)

    with monkeypatch.context() as disk:
        disk.setattr(archive.os, "open", broken)
        assert saved(paths, disk) == (errors.UNFINISHED, b"")
    assert "Input/output error" in capsys.readouterr().err
    assert [path.name for path in state.parent.iterdir()] == [".hermes"]
    assert saved(paths, monkeypatch)[0] == errors.OK


def test_a_state_that_is_as_it_was_again_when_it_is_packed_is_not_sent(
    state: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sandbox.state import save

    digest = json.loads(saved(paths, monkeypatch)[1].split(b"\n", 1)[0])["digest"]
    pack = save._Save._pack
    (state / "note").write_text("other")

    def back(of: Any, file: Any) -> Any:
        (state / "note").write_text("first")
        return pack(of, file)

    with monkeypatch.context() as race:
        race.setattr(save._Save, "_pack", back)
        assert saved(paths, race, "--unless", digest) == (errors.UNCHANGED, b"")
    (state / "note").write_text("other")
    assert saved(paths, monkeypatch, "--unless", digest)[0] == errors.OK


@pytest.mark.parametrize(
    ("bound", "words"), [("MEMBERS", "are more than 1 files"), ("UNPACKED", "are more than 0 MB")]
)
def test_what_no_backup_may_have_is_refused_before_anything_is_copied(
    state: Path,
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bound: str,
    words: str,
) -> None:
    from sandbox.state import databases, save

    monkeypatch.setattr(save, bound, 1)
    monkeypatch.setattr(databases, "copy", lambda *_given, **_more: pytest.fail("it was copied"))
    assert saved(paths, monkeypatch) == (errors.TOO_LARGE, b"")
    told = capsys.readouterr().err
    assert words in told and "state.db: 1 MB" in told


def test_a_disk_that_is_full_when_a_database_of_somebody_else_is_copied_ends_the_save(
    state: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would not be taken along as the file that it is: for that there is no room either."""
    import sqlite3

    from sandbox.state import databases

    other = sqlite3.connect(state / "other.db")
    other.execute("CREATE TABLE t (x)")
    other.close()
    check = databases.check

    def full(path: str, name: str) -> None:
        check(path, name)
        if name == "other.db":
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise databases._explain(error, name)

    monkeypatch.setattr(databases, "check", full)
    assert saved(paths, monkeypatch) == (errors.DISK_FULL, b"")
    assert "The disk is full: other.db could not be copied." in capsys.readouterr().err
    assert [path.name for path in state.parent.iterdir()] == [".hermes"]


def test_a_link_to_a_name_beyond_all_length_stays_behind_and_is_named(
    state: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    (state / "long").symlink_to("./" * 1100 + "note")
    code, written = saved(paths, monkeypatch)
    described = json.loads(written.split(b"\n", 1)[0])
    assert (code, described["leftOut"]) == (0, ["long: its target is longer than 2048 bytes"])

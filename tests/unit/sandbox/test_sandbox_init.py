# SPDX-License-Identifier: Apache-2.0
"""PID 1: one Hermes at a time, restarted where that loses nothing, and no survivor."""

import contextlib
import fcntl
import json
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_box import KEY, Box, carrying, wait_for

from tests.processes import alive

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="looks for survivors in /proc"
)


def hermes(box: Box) -> int:
    """Return Hermes' pid."""
    return box.state()["pid"]


def running_again(box: Box, before: int) -> int:
    """Wait until another Hermes is ready and return its pid."""
    wait_for(lambda: box.state()["state"] == "running" and hermes(box) != before)
    return hermes(box)


def go(box: Box, **settings: object) -> None:
    box.ok("go", stdin=json.dumps({"env": {"API_SERVER_KEY": KEY}, **settings}).encode())


def test_hermes_waits_for_the_go_and_gets_its_settings_from_memory(box: Box) -> None:
    box.start()
    box.ok("restore", "--empty")
    time.sleep(0.3)
    assert json.loads(box.ok("status"))["state"] == "waiting"
    go(box, config={"model": {"default": "m"}})
    wait_for(lambda: box.state()["state"] == "running")
    environ = box.health()["env"]
    assert environ["API_SERVER_KEY"] == KEY
    assert environ["API_SERVER_ENABLED"] == "true"
    assert environ["HERMES_DISABLE_LAZY_INSTALLS"] == "1"
    assert "SANDBOX_PARENT_FD" not in environ
    config = box.run / "managed" / "config.yaml"
    assert json.loads(config.read_text()) == {"model": {"default": "m"}}
    assert (config.stat().st_mode | (box.run / "env.json").stat().st_mode) & 0o077 == 0
    for path in box.home.parent.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    "settings",
    [
        b"",
        b"[]",
        b"no json",
        b'{"config": []}',
        b'{"env": {"A": 1}}',
        b'{"env": {"A B": "1"}}',
        b'{"env": {"HERMES_HOME": "/"}}',
        b'{"env": {"A": "\\u0000"}}',
    ],
)
def test_settings_that_cannot_be_meant_are_refused(box: Box, settings: bytes) -> None:
    box.pretend()
    assert box.command("go", stdin=settings).returncode == 64
    assert not (box.run / "go").exists()


def test_a_killed_hermes_comes_back_with_its_memory_and_its_tools_are_gone(box: Box) -> None:
    init = box.run_hermes().process.pid
    before = hermes(box)
    mark = f"SANDBOX_GATEWAY={box.boot}.1"
    wait_for(lambda: len(carrying(mark)) >= 2)
    tools = carrying(mark)
    os.kill(before, signal.SIGKILL)
    running_again(box, before)
    assert alive(init)
    with sqlite3.connect(box.home / "state.db") as database:
        assert database.execute("SELECT count(*) FROM starts").fetchone() == (2,)
    assert not any(alive(pid) for pid in tools)
    assert json.loads(box.ok("status"))["restarts"] == 1
    assert json.loads(box.ok("status"))["lastExit"] == 137


def configured(number: str) -> bytes:
    return json.dumps({"env": {"NUMBER": number}, "configuration": {"digest": number}}).encode()


def test_hermes_reports_the_configuration_that_it_was_started_with(box: Box) -> None:
    box.start()
    box.ok("restore", "--empty")
    assert json.loads(box.ok("status"))["configuration"] is None
    box.ok("go", stdin=configured("one"))
    wait_for(lambda: json.loads(box.ok("status"))["state"] == "running")
    assert json.loads(box.ok("status"))["configuration"] == {"digest": "one"}
    box.ok("restart-gateway", stdin=configured("two"))
    assert json.loads(box.ok("status"))["configuration"] == {"digest": "two"}
    # Written for a start that has not come: the Hermes that runs still has the other.
    (box.run / "configuration.json").write_text('{"digest": "three"}')
    assert json.loads(box.ok("status"))["configuration"] == {"digest": "two"}


def test_hermes_that_keeps_dying_ends_the_sandbox_with_its_code(box: Box) -> None:
    box.run_hermes()
    for _ in range(3):
        before = hermes(box)
        os.kill(before, signal.SIGKILL)
        running_again(box, before)
    os.kill(hermes(box), signal.SIGKILL)
    assert box.process.wait(5) == 137


def test_hermes_that_dies_before_it_was_ready_ends_the_sandbox_at_once(box: Box) -> None:
    box.start()
    box.ok("restore", "--empty")
    (box.home / "die-at-start").write_text("42")
    go(box)
    assert box.process.wait(30) == 42
    # Once: to start it again would only hide why.
    assert (box.run / "hermes.log").read_bytes().count(b"cannot start: no reason") == 1


def test_a_restart_that_hermes_asks_for_is_granted(box: Box) -> None:
    box.run_hermes()
    before = hermes(box)
    os.kill(before, signal.SIGUSR1)
    running_again(box, before)
    assert box.state()["lastExit"] == 75


def test_restart_gateway_waits_for_work_and_brings_new_settings(box: Box) -> None:
    box.run_hermes()
    before = hermes(box)
    (box.home / "slow-stop").write_text("0.7")
    box.ok("restart-gateway", stdin=b'{"env": {"API_SERVER_KEY": "another-key-0123456789"}}')
    assert b"stopped by SIGUSR1" in (box.run / "hermes.log").read_bytes()
    assert hermes(box) != before
    assert box.health()["env"]["API_SERVER_KEY"] == "another-key-0123456789"
    box.ok("restart-gateway", "--drain", "5")
    assert box.health()["env"]["API_SERVER_KEY"] == "another-key-0123456789"


def test_a_hermes_that_will_not_stop_is_killed(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    box.change("paths.py", "SHUTDOWN_MARGIN = 10.0", "SHUTDOWN_MARGIN = 0.5")
    box.run_hermes()
    before = hermes(box)
    (box.home / "slow-stop").write_text("60")
    began = time.monotonic()
    box.ok("restart-gateway", "--drain", "0.5")
    assert 1.0 <= time.monotonic() - began < 50
    assert hermes(box) != before


def test_stop_gateway_leaves_a_sandbox_that_can_be_saved_and_restarted(box: Box) -> None:
    box.run_hermes()
    before = hermes(box)
    box.ok("stop-gateway")
    assert not alive(before)
    assert json.loads(box.ok("status"))["state"] == "stopped"
    assert box.state()["lastExit"] == 0  # a planned stop
    box.save()
    box.ok("restart-gateway")
    box.health()


def test_term_is_a_planned_stop_and_ends_the_sandbox(box: Box) -> None:
    box.run_hermes()
    box.process.send_signal(signal.SIGTERM)
    assert box.process.wait(5) == 0
    assert b"stopped by SIGINT" in (box.run / "hermes.log").read_bytes()


def test_term_before_the_go_ends_the_sandbox(box: Box) -> None:
    box.start().send_signal(signal.SIGTERM)
    assert box.process.wait(5) == 0


@pytest.mark.parametrize("order", ["restart", "stop", "dashboard"])
def test_what_ends_is_not_begun_again(box: Box, order: str) -> None:
    box.run_hermes()
    (box.home / "slow-stop").write_text("1")
    box.process.send_signal(signal.SIGTERM)
    wait_for(lambda: box.state()["state"] == "stopping")
    tell(box, {"do": order})
    assert box.process.wait(8) == 0
    assert box.state()["generation"] == 1
    assert b"dashboard" not in (box.run / "hermes.log").read_bytes()


def tell(box: Box, order: object) -> None:
    """Give PID 1 an order."""
    with open(box.run / "control", "w") as control:
        control.write(order if isinstance(order, str) else json.dumps(order) + "\n")


@contextlib.contextmanager
def no_room(pid: int) -> Iterator[None]:
    """Let the system refuse a process every further descriptor, and so every further process."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, limits[1]))
    yield
    with contextlib.suppress(ProcessLookupError):  # it has ended
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def said(box: Box, words: bytes) -> bool:
    return words in (box.run / "hermes.log").read_bytes()


def test_a_dashboard_that_cannot_be_started_is_tried_again_and_ends_nothing(box: Box) -> None:
    box.run_hermes()
    with no_room(box.process.pid):
        tell(box, {"do": "dashboard"})
        wait_for(lambda: said(box, b"the dashboard cannot be started: Too many open files"))
    wait_for(lambda: box.state()["dashboardPid"])
    assert box.state()["dashboardEnds"] >= 1
    assert alive(hermes(box))


def test_a_hermes_that_cannot_be_started_again_is_tried_again_and_can_be_saved(box: Box) -> None:
    box.run_hermes()
    before = hermes(box)
    with no_room(box.process.pid):
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: said(box, b"cannot be started: Too many open files"))
        assert box.save()
    running_again(box, before)
    box.process.send_signal(signal.SIGTERM)
    assert box.process.wait(5) == 0


def test_a_stop_is_heard_by_a_process_that_is_refused_everything(box: Box) -> None:
    box.run_hermes()
    below = descendants(box.process.pid)
    with no_room(box.process.pid):
        box.process.send_signal(signal.SIGTERM)
        assert box.process.wait(15) == 0
    # It can read no list of processes then, and leaves those that Hermes has set free.
    for pid in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_orders_that_are_none_end_nothing(box: Box) -> None:
    box.run_hermes()
    before = hermes(box)
    for order in ("\n", "{\n", "[]\n", "7\n", '{"do": 7}\n', '{"do": "restart", "drain": "x"}\n'):
        tell(box, order)
    tell(box, "\xff" * 100 + "\n")
    wait_for(lambda: said(box, b"an order was none"))
    box.ok("restart-gateway")
    assert hermes(box) != before


@contextlib.contextmanager
def engine_of(box: Box) -> Iterator[socket.socket]:
    """Start PID 1 over a link of the engine's, and return the engine's end."""
    ours, theirs = socket.socketpair()
    environ = {**box.environ, "SANDBOX_PARENT_FD": str(theirs.fileno())}
    box.process = subprocess.Popen(
        [str(box.image / "bin" / "sandbox"), "init"],
        env=environ,
        pass_fds=[theirs.fileno()],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    theirs.close()
    with ours:
        yield ours


def execute(
    engine: socket.socket, number: int, *command: str, lent: "tuple[int, ...]" = (0, 1, 2)
) -> None:
    """Order a process."""
    order = {"id": number, "cmd": command, "env": {"PATH": "/nowhere:/usr/bin:/bin"}, "cwd": None}
    socket.send_fds(engine, [json.dumps(order).encode() + b"\n"], lent)


def test_an_order_of_the_engine_without_room_for_its_descriptors_is_refused(box: Box) -> None:
    with engine_of(box) as engine, engine.makefile("rb") as answers:
        for refused in (True, False):
            execute(engine, 1, "true", lent=() if refused else (0, 1, 2))
            assert ("error" in json.loads(answers.readline())) == refused
        assert json.loads(answers.readline()) == {"id": 1, "exit": 0}


@pytest.mark.parametrize("how", ["told to stop", "the engine goes", "in mid-order", "unheard"])
def test_a_command_that_runs_when_the_sandbox_ends_ends_with_it(box: Box, how: str) -> None:
    with engine_of(box) as engine:
        execute(engine, 1, "sh", "-c", "sleep 4323 & sleep 4324")
        pid = json.loads(engine.recv(99))["pid"]
        mine = wait_for(lambda: len(found := [pid, *descendants(pid)]) == 3 and found)
        if how == "told to stop":
            box.process.send_signal(signal.SIGTERM)
            assert box.process.wait(30) == 0
            engine.settimeout(30)
            assert engine.recv(99) == b"", "nobody is told that it ended in an orderly way"
        elif how == "in mid-order":
            engine.sendall(b'{"id": 2, "cmd": ["tou')
        elif how == "unheard":  # an answer that nobody reads makes an error of the end
            engine.sendall(b'{"pause": false}\n')
            wait_for(lambda: engine.recv(1, socket.MSG_PEEK))
    assert box.process.wait(30) == (0 if how == "told to stop" else 137)
    assert not [each for each in mine if alive(each)]


def test_a_reader_of_the_logs_that_does_not_end_holds_no_end_up(box: Box) -> None:
    box.run_hermes()
    with open(box.run / "followers.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        box.process.send_signal(signal.SIGTERM)
        assert box.process.wait(30) == 0
    assert box.state()["ended"] is True


def test_what_cannot_be_killed_holds_no_end_up_and_is_told(box: Box) -> None:
    box.change("processes.py", "KILL_SECONDS = 5.0", "KILL_SECONDS = -1.0")
    box.run_hermes()
    box.process.send_signal(signal.SIGTERM)
    assert box.process.wait(30) == 0
    assert said(box, b"some processes could not be killed")
    assert not (box.run / "env.json").exists()


def test_told_to_stop_it_lets_hermes_go_on_for_as_long_as_there_is_time(box: Box) -> None:
    box.more["SANDBOX_TERM_PATIENCE"] = "600"
    box.run_hermes()
    box.process.send_signal(signal.SIGTERM)
    wait_for(lambda: "Hermes goes on for 600 s" in (box.run / "hermes.log").read_text())
    assert box.state()["state"] == "running"
    assert box.health()
    assert box.save()
    box.process.send_signal(signal.SIGTERM)
    assert box.process.wait(10) == 0


def test_when_that_time_is_over_it_ends(box: Box) -> None:
    box.more["SANDBOX_TERM_PATIENCE"] = "0.2"
    box.run_hermes()
    box.process.send_signal(signal.SIGTERM)
    assert box.process.wait(10) == 0


@pytest.mark.parametrize("how", ["engine dies", "told to stop"])
def test_nothing_survives_and_no_key_is_left(box: Box, how: str) -> None:
    box.run_hermes()
    below = descendants(box.process.pid)
    names = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in below]
    assert any(b"4321" in name for name in names)  # without parent, session and environment
    assert any(b"4322" in name for name in names)
    if how == "engine dies":
        box.close_pipe()
    else:
        box.process.send_signal(signal.SIGTERM)
    box.process.wait(30)
    assert not [pid for pid in below if alive(pid)]
    assert not (box.run / "env.json").exists()
    assert not (box.run / "managed" / "config.yaml").exists()


def descendants(pid: int) -> "list[int]":
    """Return every process below `pid`."""
    found = []
    with contextlib.suppress(OSError):  # it has ended meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def test_orphans_are_reaped(box: Box) -> None:
    box.run_hermes()
    for pid in descendants(box.process.pid):
        if pid != hermes(box):
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: descendants(box.process.pid) == [hermes(box)])


def test_a_command_may_take_hermes_place(box: Box) -> None:
    box.start("--", "sh", "-c", "sleep 0.5; exit 7")
    assert box.process.wait(5) == 7


def test_status_knows_the_processes_and_the_running_jobs(box: Box) -> None:
    box.run_hermes()
    (box.home / "cron").mkdir()
    with sqlite3.connect(box.home / "cron" / "executions.db") as database:
        database.execute("CREATE TABLE executions (status TEXT, pid INTEGER)")
        rows = [("running", hermes(box)), ("claimed", hermes(box)), ("completed", hermes(box))]
        database.executemany("INSERT INTO executions VALUES (?, ?)", [*rows, ("running", 1)])
    status = json.loads(box.ok("status"))
    assert status["cronRunning"] == 2
    assert status["restored"] is True
    processes = {item["pid"]: item for item in status["processes"]}
    assert processes[hermes(box)]["rssBytes"] > 1_000_000
    (box.home / "cron" / "executions.db").write_text("not a database")
    assert json.loads(box.ok("status"))["cronRunning"] == 0


def test_logs_have_the_last_lines_and_no_keys(box: Box) -> None:
    box.run_hermes()
    (box.home / "logs").mkdir()
    lines = [f"line {number}" for number in range(50)]
    (box.home / "logs" / "agent.log").write_text("\n".join(lines) + "\n")
    text = box.ok("logs", "--lines", "3").decode()
    assert "line 47\nline 48\nline 49\n" in text
    assert "line 46" not in text
    assert "key is ***" in text
    assert KEY not in text


def test_followed_logs_end_with_the_reason(box: Box) -> None:
    box.start()
    box.ok("restore", "--empty")
    (box.home / "die-at-start").write_text("3")
    command = [f"{box.image}/bin/sandbox", "logs", "--boot", box.boot, "--follow"]
    with subprocess.Popen(command, env=box.environ, stdout=subprocess.PIPE) as follow:
        wait_for((box.run / "followers.lock").exists)
        go(box)
        assert box.process.wait(5) == 3
        text = follow.communicate(timeout=5)[0]
    assert b"cannot start: no reason" in text
    assert b"ended with code 3" in text


@pytest.mark.parametrize("boot", ["", "../x", "a b", "x" * 129])
def test_an_id_that_cannot_be_one_is_refused(box: Box, boot: str) -> None:
    box.boot = boot
    command = [str(box.image / "bin" / "sandbox"), "init"]
    done = subprocess.run(command, env=box.environ, capture_output=True, timeout=20, check=False)
    assert (done.returncode, b"HERMES_BOOT_ID must be" in done.stderr) == (64, True)
    assert not any(box.run.iterdir())


def test_an_authority_of_the_platform_is_trusted_beside_the_systems(box: Box) -> None:
    system, extra = box.folder / "system.pem", box.folder / "extra.pem"
    system.write_text("SYSTEM\n")
    box.more = {"SANDBOX_EXTRA_CA": str(extra), "SSL_CERT_FILE": str(system)}
    box.start()
    box.ok("restore", "--empty")
    go(box)
    extra.write_text("EXTRA\n")  # it comes a moment after the start
    wait_for(lambda: box.state()["state"] == "running")
    environ = box.health()["env"]
    assert Path(environ["REQUESTS_CA_BUNDLE"]).read_text() == "SYSTEM\nEXTRA\n"
    assert environ["SSL_CERT_FILE"] == environ["NODE_EXTRA_CA_CERTS"]
    assert Path(environ["SSL_CERT_FILE"]).is_relative_to(box.run)


def test_a_first_process_that_nobody_else_looks_after_serves_on_what_another_one_left(
    box: Box,
) -> None:
    """A container has no engine beside it, and may be started twice on the same file system."""
    for name in ("control", "boot", "go"):
        (box.run / name).write_text("of before")
    box.process = subprocess.Popen(
        [str(box.image / "bin" / "sandbox"), "init"],
        env=box.environ,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: (box.run / "boot").exists() and (box.run / "boot").read_text() == box.boot)
    assert (box.run / "control").is_fifo() and not (box.run / "go").exists()
    assert box.state()["state"] == "waiting"
    box.process.send_signal(signal.SIGTERM)
    assert box.process.wait(60) == 0


def test_a_command_that_does_not_end_when_it_is_told_is_left_when_it_is_told_again(
    box: Box,
) -> None:
    up, heard = box.folder / "up", box.folder / "heard"
    box.start(
        "--", "sh", "-c", f'trap "touch {heard}" TERM; touch {up}; while :; do sleep 0.1; done'
    )
    wait_for(up.exists)
    box.process.send_signal(signal.SIGTERM)
    wait_for(heard.exists)
    assert box.process.poll() is None
    box.process.send_signal(signal.SIGTERM)
    assert box.process.wait(60) == 128 + signal.SIGTERM
    assert not carrying(f"SANDBOX_GATEWAY={box.boot}.1")


def test_a_command_that_is_not_there_ends_the_sandbox_as_in_a_shell(box: Box) -> None:
    box.process = subprocess.Popen(
        [str(box.image / "bin" / "sandbox"), "init", "--", "/no/such/command"],
        env=box.environ,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert box.process.wait(60) == 127
    assert said(box, b"/no/such/command cannot be started")

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""The supervisor with real circus: crashes, restarts, sockets and secrets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.proof.secrets import PREVIOUS
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.plan import build_digest
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.processes import TAKEN

from tests.measured import measuring
from tests.processes import alive, wait_for_ends
from tests.standins.ports import free_port

SCRIPT = Path(__file__).parents[3] / "host" / "supervisor.py"
SECRET = "canary-7f1d0a"

# Serves on the socket that it inherits; answers with its process id and the word it was given.
SERVER = """
import http.server, os, signal, socket, sys, threading, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    def do_GET(self):
        if self.path == "/crash":
            os._exit(9)
        while self.path == "/slow" and not os.path.exists("go"):
            time.sleep(0.01)
        body = f"{os.getpid()} {sys.argv[2]} {os.environ.get('API_TOKEN')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        print("served", flush=True)
number = int(sys.argv[1].rpartition("=")[2])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=number)
server.daemon_threads = False  # like workerd, it answers what it accepted before it ends
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(poll_interval=0.01)
server.server_close()
"""
# What root may do without being asked, others may not.
UNPRIVILEGED = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
ENGINE = "import time\nprint('engine up', flush=True)\ntime.sleep(600)"


SOCKETS = shutil.ignore_patterns("*.sock")

# Starts a process and never looks after it.
NEGLECTFUL = """
import subprocess, time
print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
time.sleep(600)
"""


def wait_for(true: Callable[[], Any], seconds: float = 60) -> Any:
    """Poll until the answer is true and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, KeyError, psutil.Error):
            answer = true()
            if answer:
                return answer
        time.sleep(0.05)
    pytest.fail("not within the time")


class Box:
    """A state folder whose "workerd" is a small server and whose "engine" sleeps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("run", "logs", "storage"):
            (folder / name).mkdir(parents=True)
        self.port = free_port()
        self.prefix: list[str] = []
        self.started: list[int] = []

    def workerd(self, word: str = "one") -> list[str]:
        return [sys.executable, "-c", SERVER, "--socket-fd=http=$(circus.sockets.http)", word]

    def run(self, **changes: Any) -> subprocess.CompletedProcess[str]:
        settings = {
            "name": "box",
            "host": "digest",
            "kind": "process",
            "ports": {"http": self.port},
            "workerd": self.workerd(),
            "helpers": {"engine": [sys.executable, "-c", ENGINE]},
            "drain": 2,
            "environment": {"PATH": os.defpath} | measuring(),
            "workerd_environment": {"TZ": "UTC"},
            "secrets": {"API_TOKEN": SECRET},
        } | changes
        done = self._call(["run"], settings)
        if done.returncode == 0:
            self.started.append(self.record()["pid"])
        return done

    def ctl(self, action: str, content: Any = None) -> subprocess.CompletedProcess[str]:
        return self._call(["ctl", action], content)

    def _call(self, words: list[str], content: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.prefix, sys.executable, str(SCRIPT), *words, "--folder", str(self.folder)],
            input=json.dumps(content),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def record(self) -> dict[str, Any]:
        return json.loads((self.folder / "run" / "supervisor.json").read_text())

    def pids(self) -> dict[str, int]:
        found = json.loads((self.folder / "run" / "processes.json").read_text())
        return {name: entry["pid"] for name, entry in found.items()}

    def kill_both(self) -> None:
        """Kill the supervisor and its guardian at once, as a system does that lacks memory."""
        victims = [psutil.Process(self.pids()["guardian"]), psutil.Process(self.record()["pid"])]
        for process in victims:
            process.suspend()
        for process in victims:
            process.kill()
        wait_for_ends(victims)

    def revived(self, times: int) -> bool:
        """Tell whether a supervisor runs that was started in the place of so many killed ones."""
        record = self.record()
        if record["revived"] >= times and alive(record["pid"]):
            self.started.append(record["pid"])
            return True
        return False

    def get(self, path: str = "/") -> list[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=15) as answer:
            return answer.read().decode().split()

    def lets_in(self) -> bool:
        """Tell whether somebody who arrives is let in at once."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=0.3).close()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        for pid in self.started:
            with contextlib.suppress(psutil.NoSuchProcess):
                supervisor = psutil.Process(pid)
                children = supervisor.children(recursive=True)
                supervisor.terminate()
                wait_for_ends([supervisor, *children])
        with contextlib.suppress(FileNotFoundError):
            for pid in self.pids().values():
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(pid).kill()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    # Longer than a unix socket's address may be, with a space in it.
    made = Box(tmp_path / ("a long name " * 12))
    yield made
    made.close()


@pytest.fixture
def running(box: Box) -> Box:
    done = box.run()
    assert done.returncode == 0, done.stderr
    return box


def test_it_serves_and_outlives_its_caller(running: Box) -> None:
    assert running.get()[1:] == ["one", SECRET]
    assert psutil.Process(running.record()["pid"]).ppid() == 1 or alive(running.record()["pid"])
    names = ("engine", "workerd", "guardian")
    assert json.loads(running.ctl("status").stdout) == dict.fromkeys(names, "active")


def test_a_disk_that_is_full_under_a_log_stops_no_stop(box: Box) -> None:
    """What could not be written waits in memory, and closing the file tries once more."""
    for name in ("workerd", "engine"):
        (box.folder / "logs" / f"{name}.log").symlink_to("/dev/full")
    done = box.run()
    assert done.returncode == 0, done.stderr
    started = [box.record()["pid"], *box.pids().values()]
    box.get()
    logged = box.folder / "logs" / "supervisor.log"
    wait_for(lambda: "No space left" in logged.read_text())
    os.kill(started[0], signal.SIGTERM)
    try:
        wait_for(lambda: not any(alive(pid) for pid in started), 30)
    finally:
        for pid in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_it_notes_what_workerd_was_started_from(running: Box) -> None:
    """Not what lies there by now: whoever edited it has to be found out at workerd's next start."""

    def noted() -> str | None:
        return json.loads((running.folder / "run" / "processes.json").read_text())["workerd"].get(
            "build"
        )

    assert noted() is None, "there was nothing"
    build = running.folder / "build"
    build.mkdir()
    for name in ("config.capnp", "worker.js"):
        (build / name).write_text(name)
    running.ctl("restart", {})
    assert noted() == build_digest(build)
    (build / "worker.js").write_text("by hand")
    assert noted() != build_digest(build)
    (build / "agent.tar.gz").write_text("declared")
    psutil.Process(running.pids()["workerd"]).kill()
    wait_for(lambda: noted() == build_digest(build))


def test_only_its_owner_can_speak_to_it(running: Box) -> None:
    for path in (running.folder / "run").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_workerd_may_open_more_files_than_a_shell(box: Box) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        box.run()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    workerd = wait_for(lambda: psutil.Process(box.pids()["workerd"]))
    assert workerd.rlimit(psutil.RLIMIT_NOFILE)[0] == min(hard, 65536)


@pytest.mark.parametrize("victim", ["workerd", "engine"])
def test_a_killed_process_is_started_again(running: Box, victim: str) -> None:
    before = running.pids()[victim]
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: running.pids()[victim] != before)
    assert running.get()[1] == "one"


def test_a_crash_loses_only_the_request_that_it_was_about(running: Box) -> None:
    with pytest.raises(http.client.RemoteDisconnected):
        running.get("/crash")
    assert running.get()[1] == "one"


def test_a_restart_refuses_no_connection_and_brings_the_new_command(running: Box) -> None:
    words: list[str] = []
    failures: list[Exception] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                words.append(running.get()[1])
            except OSError as error:
                failures.append(error)

    client = threading.Thread(target=ask)
    client.start()
    try:
        done = running.ctl("restart", {"workerd": running.workerd("two"), "drain": 1})
        assert done.returncode == 0, done.stderr
        wait_for(lambda: "two" in words)
    finally:
        stop.set()
        client.join()
    assert failures == []
    assert words[0] == "one"


@pytest.mark.parametrize("prefix", [[], UNPRIVILEGED], ids=["as it is", "without privileges"])
def test_what_arrives_while_workerd_ends_is_for_the_next(box: Box, prefix: list[str]) -> None:
    box.prefix = prefix
    assert box.run().returncode == 0
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(box.get, "/slow")
        wait_for(lambda: connected(box.port))
        change = {"workerd": box.workerd("two"), "drain": 30}
        restart = pool.submit(box.ctl, "restart", change)
        wait_for(lambda: not box.lets_in())
        late = pool.submit(box.get)
        (box.folder / "go").touch()
    assert restart.result().returncode == 0, restart.result().stderr
    assert (slow.result()[1], late.result()[1]) == ("one", "two")
    assert box.lets_in()


def connected(port: int) -> bool:
    """Tell whether a client is connected to a port."""
    return any(
        one.laddr.port == port and one.status == psutil.CONN_ESTABLISHED
        for one in psutil.net_connections("tcp4")
    )


def turned_away(port: int) -> bool:
    """Tell whether a client that connects now would have to try again."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.3).close()
    except TimeoutError:
        return True
    return False


def test_a_restart_comes_to_its_end_without_whoever_asked_for_it(running: Box) -> None:
    before = running.pids()["workerd"]
    with socket.create_connection(("127.0.0.1", running.port)) as busy:
        busy.sendall(b"GET / HTTP/1.0\r\n")
        command = [sys.executable, str(SCRIPT), "ctl", "change-secrets"]
        with subprocess.Popen(
            [*command, "--folder", str(running.folder)], stdin=subprocess.PIPE, text=True
        ) as asker:
            json.dump({"API_TOKEN": "second-value"}, asker.stdin)
            asker.stdin.close()
            wait_for(lambda: turned_away(running.port))  # it waits for the busy client now
            asker.kill()
    wait_for(lambda: running.pids()["workerd"] != before)
    assert running.get()[2] == "second-value"


def test_restarts_wait_for_each_other(running: Box) -> None:
    with ThreadPoolExecutor() as pool:
        askers = [
            pool.submit(running.ctl, "change-secrets", {name: "set"}) for name in ("ONE", "TWO")
        ]
    assert [one.result().returncode for one in askers] == [0, 0]
    environment = psutil.Process(running.pids()["workerd"]).environ()
    assert (environment["ONE"], environment["TWO"]) == ("set", "set")


def test_new_secrets_replace_the_old_ones(running: Box) -> None:
    engine = running.pids()["engine"]
    assert running.ctl("set-secrets", {"API_TOKEN": "other"}).returncode == 0
    assert running.get()[2] == "other"
    environment = psutil.Process(running.pids()["workerd"]).environ()
    assert environment["TZ"] == "UTC"
    assert running.pids()["engine"] == engine


def test_secrets_are_with_workerd_alone(running: Box) -> None:
    pids = {**running.pids(), "supervisor": running.record()["pid"]}
    for name, pid in pids.items():
        process = psutil.Process(pid)
        assert SECRET not in " ".join(process.cmdline())
        assert (SECRET in process.environ().values()) == (name == "workerd")
    for path in running.folder.rglob("*"):
        if path.is_file():
            assert SECRET not in path.read_text(), path


def test_changed_secrets_are_taken_back_as_one_until_they_are_settled(running: Box) -> None:
    for value in ("second-value", "third-value"):
        done = running.ctl("change-secrets", {"API_TOKEN": value, "UNKNOWN": None})
        assert done.returncode == 0, done.stderr
        assert running.get()[2] == value
    assert running.ctl("undo-secrets").returncode == 0
    assert running.get()[2] == SECRET

    running.ctl("change-secrets", {"API_TOKEN": None})
    assert running.get()[2] == "None"
    assert running.ctl("settle-secrets").returncode == 0
    refused = running.ctl("undo-secrets")
    assert refused.returncode == 1
    assert "take back" in refused.stderr
    assert running.get()[2] == "None"


def test_the_token_that_a_rotation_replaced_stays_for_as_long_as_the_new_one(
    running: Box,
) -> None:
    def environment() -> dict[str, str]:
        return psutil.Process(running.pids()["workerd"]).environ()

    new = {"API_TOKEN": "second-value"}
    assert running.ctl("change-secrets", new | {PREVIOUS: SECRET}).returncode == 0
    assert running.ctl("restart", {"secrets": new | {"KEY": "brought"}}).returncode == 0
    assert (environment()[PREVIOUS], environment()["KEY"]) == (SECRET, "brought")
    assert running.ctl("set-secrets", {"API_TOKEN": "third-value"}).returncode == 0
    assert PREVIOUS not in environment() and "KEY" not in environment()


def test_a_full_set_of_secrets_leaves_nothing_to_take_back(running: Box) -> None:
    running.ctl("change-secrets", {"API_TOKEN": "second-value"})
    assert running.ctl("set-secrets", {"API_TOKEN": "third-value"}).returncode == 0
    assert running.ctl("undo-secrets").returncode == 1
    assert running.get()[2] == "third-value"


def test_a_second_supervisor_is_refused(running: Box) -> None:
    done = running.run()
    assert done.returncode == 3
    assert "already" in done.stderr
    assert running.get()[1] == "one"


def test_a_taken_port_is_told(box: Box) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", box.port))
        other.listen()
        done = box.run()
    assert done.returncode == 1
    found = TAKEN.search(done.stderr)
    assert found and found[1] == str(box.port), "what the card reads it from"
    assert not (box.folder / "run" / "processes.json").exists()


def test_a_signal_during_a_command_is_not_lost(running: Box) -> None:
    pids = [*running.pids().values(), running.record()["pid"]]
    os.kill(running.pids()["workerd"], signal.SIGKILL)
    os.kill(running.record()["pid"], signal.SIGTERM)
    wait_for(lambda: not any(alive(pid) for pid in pids))


def test_a_process_that_cannot_live_is_not_started_in_a_tight_loop(box: Box) -> None:
    """A busy machine only makes the time between two starts longer."""
    failing = [sys.executable, "-c", "import time; print(time.monotonic(), flush=True)"]
    assert box.run(helpers={"engine": failing}).returncode == 0
    log = box.folder / "logs" / "engine.log"
    wait_for(lambda: log.read_text().count("\n") > 3)
    starts = [float(line.split()[-1]) for line in log.read_text().splitlines()]
    assert starts[3] - starts[0] > 1.5, "of three pauses, a second each"


def test_stopping_leaves_no_process(running: Box) -> None:
    pids = [*running.pids().values(), running.record()["pid"]]
    assert running.ctl("stop").returncode == 0
    wait_for(lambda: not any(alive(pid) for pid in pids))


def test_hangup_does_not_run_two_of_a_kind(running: Box) -> None:
    before = running.pids()
    os.kill(running.record()["pid"], signal.SIGHUP)
    time.sleep(1)
    assert running.pids() == before


def test_what_a_killed_supervisor_left_is_ended(running: Box) -> None:
    before = running.pids()
    running.kill_both()
    done = running.run()
    assert done.returncode == 0, done.stderr
    assert not set(before.values()) & set(running.pids().values())
    wait_for(lambda: not any(alive(pid) for pid in before.values()))
    assert running.get()[1] == "one"


def test_what_was_left_is_ended_also_where_nobody_reaps(box: Box) -> None:
    """As in a container whose first process is no init: of what has ended, its number stays for ever."""
    command = [sys.executable, "-c", NEGLECTFUL]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        try:
            left = psutil.Process(int(parent.stdout.readline()))
            noted = {"pid": left.pid, "created": left.create_time(), "folder": str(box.folder)}
            (box.folder / "run" / "processes.json").write_text(json.dumps({"workerd": noted}))
            done = box.run()
            assert done.returncode == 0, done.stderr
            assert left.status() == psutil.STATUS_ZOMBIE
            assert box.get()[1] == "one"
        finally:
            parent.kill()


def test_a_removed_record_of_processes_is_written_again(running: Box) -> None:
    """Without it, an engine would outlive a killed supervisor and be in the next one's way."""
    before = running.pids()
    (running.folder / "run" / "processes.json").unlink()
    assert wait_for(running.pids) == before


def test_a_copied_folder_leaves_the_other_ones_processes_alone(running: Box) -> None:
    before = running.pids()
    copy = Box(running.folder.with_name("copy"))
    copy.port = free_port()
    shutil.copytree(running.folder / "run", copy.folder / "run", dirs_exist_ok=True, ignore=SOCKETS)
    try:
        assert copy.run().returncode == 0
        assert copy.get()[1] == "one"
    finally:
        copy.close()
    assert running.ctl("status").returncode == 0
    # The same ones: what was ended would have been started again.
    assert running.pids() == before
    assert all(alive(pid) for pid in before.values())


def test_a_killed_supervisor_is_started_again_with_the_secrets_of_that_moment(
    running: Box,
) -> None:
    assert running.ctl("change-secrets", {"API_TOKEN": "second-value"}).returncode == 0
    assert running.ctl("restart", {"workerd": running.workerd("two")}).returncode == 0
    before = running.pids()
    os.kill(running.record()["pid"], signal.SIGKILL)
    wait_for(lambda: running.revived(1))
    assert running.get()[1:] == ["two", "second-value"]
    wait_for(lambda: not any(alive(pid) for pid in before.values()))
    assert running.ctl("undo-secrets").returncode == 0
    assert running.get()[2] == SECRET


def test_each_heals_the_other_again_and_again(running: Box) -> None:
    for times in (1, 2):
        guardian = running.pids()["guardian"]
        os.kill(guardian, signal.SIGKILL)
        wait_for(lambda was=guardian: running.pids()["guardian"] != was)
        os.kill(running.record()["pid"], signal.SIGKILL)
        wait_for(lambda times=times: running.revived(times))
        assert running.get()[1:] == ["one", SECRET]


def test_a_stopped_supervisor_stays_stopped_though_it_is_killed_meanwhile(box: Box) -> None:
    assert box.run(drain=30).returncode == 0
    guardian, supervisor = box.pids()["guardian"], box.record()["pid"]
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(box.get, "/slow")
        wait_for(lambda: connected(box.port))
        os.kill(supervisor, signal.SIGTERM)
        wait_for(lambda: not alive(guardian))
        killed = psutil.Process(supervisor)
        killed.kill()
        wait_for_ends([killed])  # until then, what nobody ends any more counts as its children
        (box.folder / "go").touch()
        with contextlib.suppress(OSError):
            slow.result()
    assert box.record()["pid"] == supervisor
    assert "guardian" not in [name for name, pid in box.pids().items() if alive(pid)]


def test_a_guardian_whose_start_fails_tries_again(running: Box) -> None:
    guardian = psutil.Process(running.pids()["guardian"])
    supervisor = psutil.Process(running.record()["pid"])
    log = running.folder / "logs" / "supervisor.log"
    guardian.suspend()  # it would have the port again before anybody else
    supervisor.suspend()
    for name in ("workerd", "engine"):
        os.kill(running.pids()[name], signal.SIGKILL)
    supervisor.kill()
    wait_for_ends([supervisor])
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wait_for(lambda: other.bind(("127.0.0.1", running.port)) is None)
        other.listen()
        guardian.resume()
        wait_for(lambda: "in use" in log.read_text())
        # Whoever stops the deployment now has to find it.
        assert running.pids() == {"guardian": guardian.pid}
    wait_for(lambda: running.revived(1))


def test_logs_are_kept_apart(running: Box) -> None:
    running.get()
    logs = running.folder / "logs"
    wait_for(lambda: "served" in (logs / "workerd.log").read_text())
    wait_for(lambda: "engine up" in (logs / "engine.log").read_text())


CLINGING = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (open("asked", "w").close(), sys.exit()))
print("up", flush=True)
time.sleep(600)
"""


def test_where_containers_outlive_it_workerd_is_killed_and_never_asked(box: Box) -> None:
    """Asked to end, workerd ends its containers too: by a stop, a restart, or as an orphan."""
    command = [sys.executable, "-c", CLINGING]
    log = box.folder / "logs" / "workerd.log"

    def ups() -> int:
        return log.read_text().count("up") if log.exists() else 0

    assert box.run(kind="docker", workerd=command, drain=60).returncode == 0
    wait_for(lambda: ups() == 1)
    orphan = box.pids()["workerd"]
    box.kill_both()
    assert box.run(kind="docker", workerd=command).returncode == 0
    wait_for(lambda: ups() == 2)
    assert not alive(orphan)
    assert box.ctl("restart", {}).returncode == 0
    wait_for(lambda: ups() == 3)
    assert box.ctl("stop").returncode == 0
    wait_for(lambda: not alive(box.record()["pid"]))
    assert not (box.folder / "asked").exists()

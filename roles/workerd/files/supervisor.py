# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Keeps one deployment's workerd running, and its process engine or the cleaner of its container engine.

A guardian beside it starts it again when it was killed, with the secrets of that moment: guardian.py.

    python supervisor.py run --folder DIR            < settings.json
    python supervisor.py boot --folder DIR           (after a reboot, with what was kept for one)
    python supervisor.py ctl status --folder DIR
    python supervisor.py ctl restart --folder DIR    < changes.json
    python supervisor.py ctl set-secrets --folder DIR < secrets.json
    python supervisor.py ctl change-secrets --folder DIR < changes.json
    python supervisor.py ctl undo-secrets --folder DIR
    python supervisor.py ctl settle-secrets --folder DIR
    python supervisor.py ctl stop --folder DIR

It holds the listening sockets, so that workerd can be stopped and started while clients wait instead of being refused.
Secrets come in on standard input and go into workerd's environment, nowhere else unless the owner said so.

Settings: {"name", "host", "kind": "process" or "docker", "ports": {"http", "providers"}, "workerd": [command],
"helpers": {"engine" or "cleaner": [command]}, "drain": seconds, "environment": {for the helpers},
"workerd_environment": {}, "secrets": {for workerd}, "after_reboot": "stay_down", "start" or "start_with_keys"}. What a
start after a reboot needs is kept in boot.json, where it is to start at all; secrets with "start_with_keys" only, and
else the names of those that such a start lacks. A guardian gives further: "earlier_secrets": {what a change that
nobody settled would be taken back to}, "guardian": its process id, "revived": how often that was necessary.
Changes of restart: any of "workerd", "drain", "secrets", "after_reboot". Changes of change-secrets: {name: value, or
null to remove}; what was there before is remembered, in memory only, until it is settled or taken back.
"""

import argparse
import contextlib
import ctypes
import fcntl
import hashlib
import json
import logging
import logging.handlers
import os
import resource
import shlex
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import psutil
from circus.arbiter import Arbiter
from circus.client import CircusClient
from circus.commands.base import Command
from circus.exc import CallError, ConflictError, MessageError
from circus.sockets import CircusSocket
from circus.stream import FileStream
from circus.util import synchronized
from circus.watcher import Watcher
from tornado import gen

GUARDIAN = Path(__file__).with_name("guardian.py")
RECORD = Path("run/supervisor.json")
PROCESSES = Path("run/processes.json")
BUILD = (Path("build/config.capnp"), Path("build/worker.js"))
BOOT = Path("boot.json")
"""What the start after a reboot is given; there is none where it is to stay down."""
TOKEN = Path("api_token")
CONTROL = "ipc://run/supervisor.sock"
EVENTS = "ipc://run/supervisor-events.sock"
LOG_BYTES = 10_000_000
LOG_FILES = 3
CHECK_SECONDS = 0.25
SHORT_LIFE = 5.0
"""A process that lived shorter (seconds) failed to start; the next attempt then waits RETRY_DELAY."""
RETRY_DELAY = 1.0
ENGINE_STOP_SECONDS = 20
GUARDIAN_STOP_SECONDS = 1
GUARDIAN_SECONDS = 1.0
"""How long a guardian may take to read a line."""
MOST_FILES = 65536
"""Open files for workerd, where the system allows as many: a connection takes two."""
FILES_WITHOUT_LIMIT = 10240
"""The same where the system names no limit but has one: macOS' own constant."""
DEFER_SECONDS = 30
SETTLE_SECONDS = 0.1
"""How long a workerd takes to accept what waits already."""
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)
"""A program of the kernel's packet filter: return 0 bytes of everything."""
IP_MINTTL, MOST_HOPS = 21, 255
BUSY_SECONDS = 300
"""How long a command waits for the one before it, which may have requests to wait for."""
ENDED_IN_TURN = ("guardian", "workerd", "engine", "cleaner")
"""The guardian would start what is being ended; workerd finishes its requests while its engine still runs."""
ALREADY_RUNNING = 3
PREVIOUS = "API_TOKEN_PREVIOUS"


def main(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Supervises one deployment's processes.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run", help="start in the background; settings as JSON on standard input"
    )
    run.add_argument("--folder", required=True, type=Path)
    boot = commands.add_parser("boot", help="start with what was kept for a reboot")
    boot.add_argument("--folder", required=True, type=Path)
    ctl = commands.add_parser("ctl", help="speak to the running supervisor")
    ctl.add_argument("action", choices=["status", *CHANGES, "settle-secrets", "stop"])
    ctl.add_argument("--folder", required=True, type=Path)
    options = parser.parse_args(arguments)
    os.umask(0o077)
    # Every path below is relative: an absolute one may be too long for a unix socket.
    os.chdir(options.folder)
    if options.command == "run":
        return start(json.load(sys.stdin))
    if options.command == "boot":
        return 0 if start(kept_for_boot()) in (0, ALREADY_RUNNING) else 1
    return control(options.action)


def start(settings: dict) -> int:
    """Detach a supervisor and wait until its processes are started; returns 0, or prints why not."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setsid()
        if os.fork():
            os._exit(0)
        detached(settings, writing)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read().decode()
    if answer == "started":
        return 0
    failure = (
        json.loads(answer)
        if answer
        else {"code": 1, "error": "the supervisor ended; see logs/supervisor.log"}
    )
    print(failure["error"], file=sys.stderr)
    return failure["code"]


def detached(settings: dict, writing: int) -> None:
    """Be the background process; never returns."""
    code = 0
    try:
        record = hold_record()
        redirect_output()
        end_orphans(spared=settings.get("guardian"))
        supervise(settings, record, lambda: report(writing, "started"))
    except BlockingIOError:
        code = ALREADY_RUNNING
        report(writing, json.dumps({"code": code, "error": "a supervisor is running already"}))
    except BaseException as error:
        code = 1
        logging.exception("the supervisor failed")
        report(writing, json.dumps({"code": code, "error": str(error) or type(error).__name__}))
    os._exit(code)


def kept_for_boot() -> dict:
    """Return the settings of before the reboot, with the API token, which the folder holds in any case."""
    settings = json.loads(BOOT.read_text(encoding="utf-8"))
    with contextlib.suppress(FileNotFoundError):
        token = TOKEN.read_text(encoding="ascii").strip()
        settings["secrets"] = {"API_TOKEN": token} | settings["secrets"]
    return settings


def keep_for_boot(settings: dict) -> None:
    """Keep what a start after a reboot needs, as far as the owner chose. settings: what a start now would be given."""
    wanted = settings.get("after_reboot", "stay_down")
    if wanted == "stay_down":
        BOOT.unlink(missing_ok=True)
        return
    secrets, own = settings["secrets"], settings["workerd_environment"]
    lacking = [name for name in settings.get("lacks", []) if name not in secrets]
    kept = {name: value for name, value in settings.items() if name not in ("guardian", "revived")}
    kept |= {"lacking": lacking, "lacks": lacking}
    if wanted != "start_with_keys":
        names = secrets.keys() - own.keys() - {"API_TOKEN", PREVIOUS}
        kept |= {"secrets": {}, "earlier_secrets": None, "lacks": sorted({*names, *lacking})}
    temporary = BOOT.with_suffix(".new")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(kept, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(BOOT)


def report(writing: int, text: str) -> None:
    """Tell the waiting parent, once; later calls find the pipe closed."""
    with contextlib.suppress(OSError):
        os.write(writing, text.encode())
        os.close(writing)


def hold_record() -> TextIO:
    """Lock the record for as long as this process lives; raises BlockingIOError when another one does."""
    record = RECORD.open("a+", encoding="utf-8")
    for attempt in range(20):
        try:
            # Somebody who only asks whether we live holds a shared lock for a moment.
            fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return record
        except BlockingIOError:
            if attempt == 19:
                raise
            time.sleep(0.05)
    return record


def redirect_output() -> None:
    """Give up the caller's terminal; log to logs/supervisor.log."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open("logs/supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    handler = logging.handlers.RotatingFileHandler(
        "logs/supervisor.log", maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8"
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def end_orphans(spared: int | None = None) -> None:
    """End what a killed supervisor left running: it holds our ports and our storage.

    spared: the guardian that we are started by, which tries again should we fail.
    """
    processes = read_processes()
    for name, found in sorted(processes.items(), key=lambda one: ENDED_IN_TURN.index(one[0])):
        if found["pid"] == spared:
            continue
        # A copied folder's record names the processes of the one that it is a copy of.
        if found["folder"] != os.getcwd() and os.path.isdir(found["folder"]):
            continue
        try:
            process = psutil.Process(found["pid"])
            if abs(process.create_time() - found["created"]) > 0.01:
                continue
            logging.warning(
                "ending %s (process %d), left by an earlier supervisor", name, process.pid
            )
            process.send_signal(found.get("signal", signal.SIGTERM))
            try:
                process.wait(10)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(10)
        except psutil.NoSuchProcess:
            continue
    noted.update({name: one for name, one in processes.items() if one["pid"] == spared})
    write_processes(noted)


def read_processes() -> dict:
    """Return the recorded processes: name -> {"pid", "created", "signal" that ends it, "folder" it was started in}.

    workerd's has "build" as well, the digest of what it was started from: a deploy sees what was changed by hand.
    """
    try:
        return json.loads(PROCESSES.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


noted: dict[str, dict] = {}
"""What this supervisor started: the record may be removed, and is then written again."""


def note_process(name: str, pid: int, stop_signal: int, build: str) -> None:
    """Record a started process, so that a later supervisor can recognise it. build: what it was started from."""
    with contextlib.suppress(psutil.NoSuchProcess):
        created = psutil.Process(pid).create_time()
        noted[name] = {
            "pid": pid,
            "created": created,
            "signal": int(stop_signal),
            "folder": os.getcwd(),
        }
        if build:
            noted[name]["build"] = build
    write_processes(noted)


def write_processes(found: dict) -> None:
    """Replace the record of processes in one step; there is none of no process."""
    if not found:
        PROCESSES.unlink(missing_ok=True)
        return
    temporary = PROCESSES.with_suffix(".new")
    temporary.write_text(json.dumps(found), encoding="utf-8")
    temporary.replace(PROCESSES)


class Supervisor(Arbiter):
    """circus' arbiter, with an order in which to stop and without giving way to itself."""

    ending = False
    """Whether it was told to stop."""

    @synchronized("restart_workerd")
    @gen.coroutine
    def restart_workerd(self, change: Callable[["Process"], None]):
        """Stop workerd, change it, start it; whoever asked for it may die meanwhile.

        Never circus' own reload: it starts the new workerd before the old one has let go of the storage. The sockets
        stay, so clients that connect meanwhile wait.
        """
        workerd = self.get_watcher("workerd")
        try:
            if workerd.stop_signal != signal.SIGKILL:
                yield self._finish_requests(workerd)
            yield workerd._stop()
            change(workerd)
            self.get_watcher("guardian").tell()
        finally:
            # The engine too: it is stopped only if it could not be started before.
            yield self._start_watchers()
            let_arrivals_in(self.sockets["http"])

    @gen.coroutine
    def _finish_requests(self, workerd: "Process"):
        """Let workerd answer what is under way; what arrives meanwhile tries again, soon after.

        A workerd that is told to end accepts nothing more, from Hermes neither: a request that has yet to ask its
        provider would never end. So it is told only when none is under way. A connection that stays busy is not waited
        for longer than the drain time.
        """
        if not sys.platform.startswith("linux"):
            return
        deadline = time.monotonic() + max(0.0, workerd.graceful_timeout - 1)
        listener = self.sockets["http"]
        turn_arrivals_away(listener)
        yield gen.sleep(SETTLE_SECONDS)
        while not self.ending and time.monotonic() < deadline and serves(workerd, listener.port):
            yield gen.sleep(0.05)

    def manage_watchers(self):
        """Start what has ended, unless a command is under way: that one finishes first."""
        if not PROCESSES.exists():
            with contextlib.suppress(OSError):
                write_processes(noted)
        return None if self._exclusive_running_command else super().manage_watchers()

    @gen.coroutine
    def _stop_watchers(self, close_output_streams=False, watcher_iter_func=None):
        # One after the other: workerd finishes its requests while its engine still runs.
        for watcher in self.iter_watchers(reverse=False):
            yield watcher._stop(close_output_streams)

    def stop_soon(self) -> None:
        """Stop as soon as no other command is under way; circus alone would drop the signal."""
        self.ending = True
        try:
            self.stop()
        except ConflictError:
            self.loop.call_later(CHECK_SECONDS, self.stop_soon)


class Process(Watcher):
    """circus' watcher of one process, which starts a process that keeps failing less often."""

    def __init__(
        self, name: str, command: list[str], environment: dict, stop_seconds: float, **more
    ):
        self.spawned = self.not_before = 0.0
        self.earlier_env: dict | None = None
        self.build = ""
        log = FileStream(f"logs/{name}.log", max_bytes=LOG_BYTES, backup_count=LOG_FILES)
        super().__init__(
            name,
            shlex.quote(command[0]),
            args=command[1:],
            working_dir=os.getcwd(),
            env=environment,
            graceful_timeout=stop_seconds,
            stdout_stream={"stream": log},
            stderr_stream={"stream": log},
            hooks={
                "before_spawn": (before_spawn, True),
                "after_spawn": (after_spawn, True),
                "after_reap": (after_reap, True),
            },
            singleton=True,
            **more,
        )

    def replace_env(self, environment: dict) -> None:
        """Set what the next start gets; nothing is left to take back."""
        self.env, self.earlier_env = environment, None

    def change_env(self, changes: dict) -> None:
        """Change single variables. Of several changes that nobody settled, the first one's beginning is kept."""
        if self.earlier_env is None:
            self.earlier_env = self.env
        changed = self.env | changes
        self.env = {name: value for name, value in changed.items() if value is not None}

    def undo_env(self) -> None:
        """Take back all changes that were not settled."""
        self.replace_env(self.env if self.earlier_env is None else self.earlier_env)

    @gen.coroutine
    def manage_processes(self):
        """Start the process when it has ended, but not in a tight loop."""
        if self.processes or time.monotonic() >= self.not_before:
            yield super().manage_processes()


class Guardian(Process):
    """The process that starts a supervisor in the place of this one when it was killed."""

    def __init__(self, settings: dict, **more) -> None:
        self.settings = settings
        self.line: socket.socket | None = None
        self.theirs: socket.socket | None = None
        # It needs the standard library only.
        command = [sys.executable, "-I", "-S", str(GUARDIAN), str(Path(__file__).resolve())]
        super().__init__(
            "guardian", command, settings["environment"], GUARDIAN_STOP_SECONDS, **more
        )

    def spawn_process(self, recovery_wid=None):
        """Start it with one end of a new line as its standard input, on which all that it has to know waits already.

        Told later, it would know nothing of a supervisor that is killed at that very moment.
        """
        self.line, self.theirs = socket.socketpair()
        self.line.settimeout(GUARDIAN_SECONDS)
        self.tell()
        started = super().spawn_process(recovery_wid)
        self.theirs.close()
        return started

    def _get_stdin_socket_fd(self):
        return self.theirs.fileno()

    def tell(self) -> None:
        """Tell it what a supervisor that starts now is to be given. One that has ended is told at its next start."""
        workerd = self.arbiter.get_watcher("workerd")
        current = {
            "workerd": [*shlex.split(workerd.cmd), *workerd.args],
            "drain": workerd.graceful_timeout - 1,
            "secrets": workerd.env,
            "earlier_secrets": workerd.earlier_env,
        }
        current = self.settings | current
        try:
            keep_for_boot(current)
        except OSError:
            logging.exception("what a start after a reboot needs could not be kept")
        with contextlib.suppress(OSError):
            self.line.sendall(json.dumps(current).encode() + b"\n")


class Restart(Command):
    """\
    Stop workerd, change it, start it
    """

    name = "restart-workerd"

    def execute(self, arbiter: Supervisor, props: dict):
        """Carry out one of CHANGES, of what it needs to know."""
        action, content = props["action"], props["content"]
        if action == "undo-secrets" and arbiter.get_watcher("workerd").earlier_env is None:
            raise MessageError("there is no change of secrets to take back")
        return arbiter.restart_workerd(lambda workerd: CHANGES[action](workerd, content))


class Settle(Command):
    """\
    Forget the secrets of before
    """

    name = "settle-secrets"

    def execute(self, arbiter: Supervisor, _props: dict) -> None:
        """Leave nothing that could be taken back."""
        arbiter.get_watcher("workerd").earlier_env = None
        arbiter.get_watcher("guardian").tell()


def set_up(workerd: Process, changes: dict) -> None:
    """Apply what a restart changes."""
    if "drain" in changes:
        workerd.graceful_timeout = float(changes["drain"]) + 1
    if "workerd" in changes:
        command, *workerd.args = changes["workerd"]
        workerd.cmd = shlex.quote(command)
    if "after_reboot" in changes:
        workerd.arbiter.get_watcher("guardian").settings["after_reboot"] = changes["after_reboot"]
    if "secrets" in changes:
        set_secrets(workerd, changes["secrets"])


def set_secrets(workerd: Process, secrets: dict) -> None:
    """Replace all secrets."""
    own = json.loads(RECORD.read_text(encoding="utf-8"))["workerd_environment"]
    # These are all: what a start after a reboot lacked is brought by them, or is not wanted any more.
    workerd.arbiter.get_watcher("guardian").settings.pop("lacks", None)
    workerd.replace_env(own | with_previous(workerd.env, secrets))


def with_previous(before: dict, secrets: dict) -> dict:
    """Keep the API token that a rotation replaced for as long as the one that replaced it."""
    if PREVIOUS in before and before.get("API_TOKEN") == secrets.get("API_TOKEN"):
        return {PREVIOUS: before[PREVIOUS]} | secrets
    return secrets


CHANGES: dict[str, Callable[[Process, dict | None], None]] = {
    "restart": set_up,
    "set-secrets": set_secrets,
    "change-secrets": Process.change_env,
    "undo-secrets": lambda workerd, _nothing: workerd.undo_env(),
}
"""What becomes of workerd between its end and its start."""


def before_spawn(watcher: Process, **_kwargs) -> bool:
    """circus calls this before it starts a process."""
    # Before, not after: of files that are replaced meanwhile, the ones of before are noted, and are not believed.
    watcher.build = build_digest() if watcher.name == "workerd" else ""
    return True


def build_digest() -> str:
    """Return the digest of what workerd is started from; an empty text when that is not there."""
    try:
        return hashlib.sha256(b"\0".join(path.read_bytes() for path in BUILD)).hexdigest()
    except OSError:
        return ""


def after_spawn(watcher: Process, pid: int, arbiter: Arbiter, **_kwargs) -> bool:
    """circus calls this when a process was started."""
    if watcher.name == "workerd":
        let_arrivals_in(arbiter.sockets["http"])
    note_process(watcher.name, pid, watcher.stop_signal, watcher.build)
    watcher.spawned = time.monotonic()
    return True


def after_reap(watcher: Process, exit_code: int | None = None, **_kwargs) -> bool:
    """circus calls this when a process has ended."""
    lived = time.monotonic() - watcher.spawned
    watcher.not_before = time.monotonic() + (RETRY_DELAY if lived < SHORT_LIFE else 0.0)
    if watcher.is_active():
        logging.warning("%s ended with %s after %.1f s", watcher.name, exit_code, lived)
    return True


def supervise(settings: dict, record: TextIO, started: Callable[[], None]) -> None:
    """Run until told to stop; raises OSError when a port is taken."""
    workerd_environment = settings["workerd_environment"] | settings["secrets"]
    # The engine is started first, stopped last, and gets no secret.
    helpers = [
        Process(name, command, settings["environment"], ENGINE_STOP_SECONDS, priority=2)
        for name, command in settings["helpers"].items()
    ]
    workerd = Process(
        "workerd",
        settings["workerd"],
        workerd_environment,
        float(settings["drain"]) + 1,
        priority=1,
        use_sockets=True,
        rlimits={"nofile": open_files()},
        # Asked to end, workerd ends its containers too, unsaved; killed, it finds them again at its next start.
        stop_signal=signal.SIGKILL if settings["kind"] == "docker" else signal.SIGTERM,
    )
    workerd.earlier_env = settings.get("earlier_secrets")
    sockets = [
        CircusSocket(name=name, host="127.0.0.1", port=port, backlog=1024, blocking=False)
        for name, port in settings["ports"].items()
    ]
    for one in sockets:
        only_with_data(one)
    supervisor = Supervisor(
        # The guardian is stopped first: what is told to stop should not be started again.
        [*helpers, workerd, Guardian(settings, priority=0)],
        CONTROL,
        EVENTS,
        check_delay=CHECK_SECONDS,
        sockets=sockets,
        umask=0o077,
        proc_name="hermes-supervisor",
    )
    # circus would answer SIGHUP with a reload that runs two workerd on one storage for a moment.
    signal.signal(signal.SIGHUP, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(
            number, lambda *_: supervisor.loop.add_callback_from_signal(supervisor.stop_soon)
        )

    def running(future) -> None:
        future.result()
        for endpoint in (CONTROL, EVENTS):
            os.chmod(endpoint.removeprefix("ipc://"), 0o600)
        write_record(record, settings)
        started()

    try:
        # Blocks until told to stop; a failure before that is in the answer only.
        supervisor.start(cb=running).result()
        noted.clear()
        write_processes(noted)
    finally:
        for name in (CONTROL.removeprefix("ipc://"), EVENTS.removeprefix("ipc://")):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)


def open_files() -> int:
    """Return how many files workerd may open: with the usual 1024, 500 idle connections would keep the owner out."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return FILES_WITHOUT_LIMIT if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)


def only_with_data(listener: socket.socket) -> None:
    """Have connections wait in the kernel until their request begins to arrive, where the kernel can.

    A workerd that ends closes those it has accepted and read nothing from, and their clients would see that.
    """
    if hasattr(socket, "TCP_DEFER_ACCEPT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_SECONDS)


def turn_arrivals_away(listener: socket.socket) -> None:
    """Have the kernel drop what arrives for a listening socket; clients send it again, after a second at most.

    Where only administrators may attach a filter, packets have to come with more hops left than any client gives them:
    that drops new connections alike, but not the first data of one that was opened before.
    """
    code = ctypes.create_string_buffer(DROP_ALL)
    program = struct.pack("HP", 1, ctypes.addressof(code))
    try:
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    except PermissionError:
        listener.setsockopt(socket.IPPROTO_IP, IP_MINTTL, MOST_HOPS)


def let_arrivals_in(listener: socket.socket) -> None:
    """Undo turn_arrivals_away()."""
    if not sys.platform.startswith("linux"):
        return
    listener.setsockopt(socket.IPPROTO_IP, IP_MINTTL, 0)
    with contextlib.suppress(OSError):  # there is no filter
        listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def serves(workerd: "Process", port: int) -> bool:
    """Tell whether a client of workerd's is connected to a port."""
    with contextlib.suppress(psutil.Error):
        return any(
            one.laddr.port == port and one.status == psutil.CONN_ESTABLISHED
            for pid in workerd.processes
            for one in psutil.Process(pid).net_connections("tcp4")
        )
    return False


def write_record(record: TextIO, settings: dict) -> None:
    """Write down for others what runs here; no secret is in it."""
    kept = {name: settings[name] for name in ("host", "kind", "ports", "workerd_environment")}
    kept["revived"] = settings.get("revived", 0)
    record.seek(0)
    record.truncate()
    json.dump(kept | {"pid": os.getpid(), "folder": os.getcwd()}, record)
    record.flush()


def control(action: str) -> int:
    """Carry out one ctl command; prints JSON; returns the exit code."""
    client = CircusClient(endpoint=CONTROL, timeout=900)
    try:
        if action == "status":
            print(json.dumps(call(client, "status")["statuses"]))
        elif action == "stop":
            call(client, "quit", waiting=False)
        elif action == "settle-secrets":
            call(client, action)
        else:
            content = None if action == "undo-secrets" else json.load(sys.stdin)
            call(client, "restart-workerd", action=action, content=content, waiting=True)
    except CallError as error:
        print(f"the supervisor did not carry out {action}: {error}", file=sys.stderr)
        return 1
    finally:
        client.stop()
    return 0


def call(client, command: str, **properties) -> dict:
    """Send one command to the supervisor; raises CallError when it is refused."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        answer = client.send_message(command, **properties)
        if answer.get("status") != "error":
            return answer
        reason = answer.get("reason", "refused")
        if "already running" not in reason or time.monotonic() > deadline:
            raise CallError(reason)
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

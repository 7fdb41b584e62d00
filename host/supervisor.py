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
import json
import logging
import logging.handlers
import os
import resource
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

from circus.arbiter import Arbiter
from circus.commands.base import Command
from circus.exc import ConflictError, MessageError
from circus.sockets import CircusSocket
from circus.util import synchronized
from tornado import gen
from tornado.concurrent import Future

from arrivals import let_arrivals_in, only_with_data, serves, turn_arrivals_away
from control import CONTROL, EVENTS, control
from guardian import ALREADY_RUNNING
from processes import LOG_BYTES, LOG_FILES, Guardian, Process
from records import (
    PREVIOUS,
    PROCESSES,
    RECORD,
    end_orphans,
    hold_record,
    kept_for_boot,
    noted,
    write_processes,
    write_record,
)

CHECK_SECONDS = 0.25
ENGINE_STOP_SECONDS = 20
MOST_FILES = 65536
"""Open files for workerd, where the system allows as many: a connection takes two."""
FILES_WITHOUT_LIMIT = 10240
"""The same where the system names no limit but has one: macOS' own constant."""
SETTLE_SECONDS = 0.1
"""How long a workerd takes to accept what waits already."""


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


def start(settings: dict[str, Any]) -> int:
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
    failure: dict[str, Any] = (
        json.loads(answer)
        if answer
        else {"code": 1, "error": "the supervisor ended; see logs/supervisor.log"}
    )
    print(failure["error"], file=sys.stderr)
    return int(failure["code"])


def detached(settings: dict[str, Any], writing: int) -> NoReturn:
    """Be the background process."""
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


def report(writing: int, text: str) -> None:
    """Tell the waiting parent, once; later calls find the pipe closed."""
    with contextlib.suppress(OSError):
        os.write(writing, text.encode())
        os.close(writing)


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


class Listener(CircusSocket):
    """A socket of 127.0.0.1 that says which port it could not have."""

    def bind_and_listen(self) -> None:
        """Take the port. Raises OSError that names it."""
        try:
            super().bind_and_listen()
        except OSError as error:
            raise OSError(error.errno, f"port {self.port}: {error.strerror}") from error


class Supervisor(Arbiter):
    """circus' arbiter, with an order in which to stop and without giving way to itself."""

    ending = False
    """Whether it was told to stop."""

    @synchronized("restart_workerd")
    @gen.coroutine
    def restart_workerd(self, change: Callable[[Process], None]) -> Iterator[Any]:
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
    def _finish_requests(self, workerd: Process) -> Iterator[Any]:
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
        while (
            not self.ending
            and time.monotonic() < deadline
            and serves(workerd.processes, listener.port)
        ):
            yield gen.sleep(0.05)

    def manage_watchers(self) -> Any:
        """Start what has ended, unless a command is under way: that one finishes first."""
        if not PROCESSES.exists():
            with contextlib.suppress(OSError):
                write_processes(noted)
        return None if self._exclusive_running_command else super().manage_watchers()

    @gen.coroutine
    def _stop_watchers(
        self, close_output_streams: bool = False, watcher_iter_func: object = None
    ) -> Iterator[Any]:
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


class Restart(Command):
    """Stop workerd, change it, start it."""

    name = "restart-workerd"

    def execute(self, arbiter: Supervisor, props: dict[str, Any]) -> Any:
        """Carry out one of CHANGES, of what it needs to know."""
        action, content = props["action"], props["content"]
        if action == "undo-secrets" and arbiter.get_watcher("workerd").earlier_env is None:
            raise MessageError("there is no change of secrets to take back")
        return arbiter.restart_workerd(lambda workerd: CHANGES[action](workerd, content))


class Settle(Command):
    """Forget the secrets of before."""

    name = "settle-secrets"

    def execute(self, arbiter: Supervisor, _props: dict[str, Any]) -> None:
        """Leave nothing that could be taken back."""
        arbiter.get_watcher("workerd").earlier_env = None
        arbiter.get_watcher("guardian").tell()


def set_up(workerd: Process, changes: dict[str, Any]) -> None:
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


def set_secrets(workerd: Process, secrets: dict[str, Any]) -> None:
    """Replace all secrets."""
    own = json.loads(RECORD.read_text(encoding="utf-8"))["workerd_environment"]
    # These are all: what a start after a reboot lacked is brought by them, or is not wanted any more.
    workerd.arbiter.get_watcher("guardian").settings.pop("lacks", None)
    workerd.replace_env(own | with_previous(workerd.env, secrets))


def with_previous(before: dict[str, Any], secrets: dict[str, Any]) -> dict[str, Any]:
    """Keep the API token that a rotation replaced for as long as the one that replaced it."""
    if PREVIOUS in before and before.get("API_TOKEN") == secrets.get("API_TOKEN"):
        return {PREVIOUS: before[PREVIOUS]} | secrets
    return secrets


CHANGES: dict[str, Callable[[Process, Any], None]] = {
    "restart": set_up,
    "set-secrets": set_secrets,
    "change-secrets": Process.change_env,
    "undo-secrets": lambda workerd, _nothing: workerd.undo_env(),
}
"""What becomes of workerd between its end and its start."""


def supervise(settings: dict[str, Any], record: TextIO, started: Callable[[], None]) -> None:
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
        Listener(name=name, host="127.0.0.1", port=port, backlog=1024, blocking=False)
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

    def running(future: "Future[None]") -> None:
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

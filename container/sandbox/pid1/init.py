# SPDX-License-Identifier: Apache-2.0
"""PID 1 of a sandbox: waits for the go, runs Hermes, restarts it, reaps, and ends with it.

Hermes' dashboard is a second process, which comes and goes without touching the first.

One thread and one `select`: signals, the control FIFO, Hermes' output and, where an engine
started this process, its link to the engine (`engine_link.py`). With PID 1 everything ends, unsaved, so
what the system refuses it is noted and, where it matters, tried again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable

from sandbox import processes
from sandbox.errors import USAGE, SandboxError, why
from sandbox.paths import (
    FOLLOWERS,
    SHUTDOWN_MARGIN,
    Paths,
    read_text,
    valid_boot,
    write_private,
)
from sandbox.pid1.child import Child
from sandbox.pid1.dashboard_keeper import DashboardKeeper
from sandbox.pid1.log import Log
from sandbox.state.replace_home import settle

# For type checkers only: see cli.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What Hermes ends with when it wants to be started again.
RESTART_ME = 75
RESTARTS = 3
WINDOW = 60.0
PROBE_EVERY = 0.1
FOLLOWERS_TIME = 1.0
# Before what the system refused is tried again, in seconds.
AGAIN = 1.0
LONGEST_PAUSE = 30.0


def init(paths: Paths, entrypoint: list[str], environ: os._Environ[str]) -> int:
    """Be PID 1 until Hermes ends and return the exit code.

    With an `entrypoint` that command is run at once in Hermes' place and never restarted.
    Raises SandboxError 64 when HERMES_BOOT_ID is missing or not usable.
    """
    boot = environ.get("HERMES_BOOT_ID", "")
    if not valid_boot(boot):
        raise SandboxError(USAGE, "HERMES_BOOT_ID must be 1-128 letters, digits, '.', '_', '-'.")
    return Init(paths, boot, entrypoint, dict(environ)).run()


class Init:
    """The state of PID 1. `wanted` is what shall become of Hermes: run, restart, stop or end."""

    def __init__(
        self, paths: Paths, boot: str, entrypoint: list[str], environ: dict[str, str]
    ) -> None:
        self.paths = paths
        self.boot = boot
        self.entrypoint = entrypoint
        self.parent_descriptor = int(environ.pop("SANDBOX_PARENT_FD", "-1"))
        self.environ = environ
        self.selector = selectors.DefaultSelector()
        self.log = Log(paths.in_run("hermes.log"))
        self.gateway: Child | None = None
        self.dashboard = DashboardKeeper(self._start_dashboard, self._note_dashboard)
        self.wanted = "run"
        self.kill_at: float | None = None
        # When Hermes, and the word about it, are tried again.
        self.start_at: float | None = None
        self.pause = AGAIN
        # Whoever asks to stop may leave time for what Hermes is at to end, and to be saved.
        self.term_patience = float(environ.get("SANDBOX_TERM_PATIENCE") or "0")
        self.end_at: float | None = None
        self.publish_at: float | None = None
        self.crashes: list[float] = []
        self.exit_code: int | None = None
        self.orphaned = False
        self.state: dict[str, Any] = {
            "state": "waiting",
            "pid": None,
            "generation": 0,
            "restarts": 0,
            "lastExit": None,
            "everReady": False,
            "dashboardPid": None,
            "dashboardEnds": 0,
            "initPid": os.getpid(),
            "configuration": None,
        }

    def run(self) -> int:
        """Serve until the exit code is known, then leave no process and no secret behind."""
        self._prepare()
        try:
            if self.entrypoint:
                self._start()
            while self.exit_code is None:
                for key, _events in self.selector.select(self._timeout()):
                    self._try(key.data)
                self._try(self._tick)
        finally:
            self._end()
        return self.exit_code

    def _try(self, step: Callable[[], object]) -> None:
        """Do something of which nothing that the system refuses may end PID 1."""
        try:
            step()
        except (OSError, MemoryError) as error:
            self._say(f"the system refused something: {why(error)}")
            time.sleep(0.05)  # what is still due comes again at once

    # Set-up

    def _prepare(self) -> None:
        processes.adopt_orphans()
        os.umask(0o077)
        for folder in (self.paths.run, self.paths.managed, os.path.dirname(self.paths.home)):
            os.makedirs(folder, 0o700, exist_ok=True)
        self._forget()  # a container engine may start the same file system twice
        settle(self.paths)
        self._listen_to_signals()
        self._listen_to_control()
        if self.parent_descriptor >= 0:
            from sandbox.pid1.engine_link import EngineLink

            self.link = EngineLink(self.parent_descriptor, self._engine_gone)
            self.execs = self.link.execs
            self.selector.register(self.link, selectors.EVENT_READ, self.link.read)
        else:
            self.execs = {}
        self._publish(state="waiting")
        # Last: whoever finds the boot id may rely on all of the above.
        write_private(self.paths.in_run("boot"), self.boot)

    def _listen_to_signals(self) -> None:
        self.wakeup, writer = socket.socketpair()
        self.wakeup.setblocking(False)
        writer.setblocking(False)
        self._wakeup_writer = writer  # kept open for as long as signals may come
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self.selector.register(self.wakeup, selectors.EVENT_READ, self._on_signal)

    def _listen_to_control(self) -> None:
        path = self.paths.in_run("control")
        if os.path.lexists(path):
            os.unlink(path)
        os.mkfifo(path, 0o600)
        # Open for writing too, so that it never reaches its end.
        self.control = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.selector.register(self.control, selectors.EVENT_READ, self._on_control)

    # Events

    def _on_signal(self) -> None:
        numbers = self.wakeup.recv(4096)
        if signal.SIGCHLD in numbers:
            self._try(self._reap)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._terminate()

    def _on_control(self) -> None:
        # Lines are shorter than PIPE_BUF, so that each write arrives whole.
        for line in os.read(self.control, 65536).splitlines():
            try:
                message = json.loads(line)
                do, drain = message["do"], message.get("drain")
                drain = None if drain is None else float(drain)
            except (ValueError, TypeError, KeyError, AttributeError):
                self._say("an order was none")  # of a tool of Hermes', which may write here as well
                continue
            if self.wanted != "end":  # what ends is not begun again
                self._obey(do, drain)

    def _obey(self, do: object, drain: float | None) -> None:
        if do == "go" and self.state["state"] == "waiting":
            self._start()
        elif do == "restart":
            self._restart(drain)
        elif do == "stop":
            self.dashboard.stop()
            self._stop("stop", drain)
        elif do == "declared" and self.state["state"] != "waiting":
            self._publish(configuration=self._configuration())
        elif do == "dashboard" and self.state["state"] != "waiting":
            self.dashboard.want()

    def _engine_gone(self) -> None:
        """End at once: whoever started this sandbox is dead or wants it destroyed."""
        self.selector.unregister(self.link)
        self._say("the engine is gone")
        self.orphaned = True
        self.exit_code = 128 + signal.SIGKILL

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            code = code if code >= 0 else 128 - code
            dashboard = self.dashboard.child
            if self.gateway is not None and pid == self.gateway.pid:
                self._gateway_ended(self.gateway, code)
            elif dashboard is not None and pid == dashboard.pid:
                self.dashboard.ended(dashboard, code)
            elif pid in self.execs:
                self.execs.pop(pid)(code)

    # Hermes

    def _start(self) -> None:
        generation = self.state["generation"] + 1
        script = os.path.join(self.paths.image, "start-hermes.sh")
        command = self.entrypoint or ["/bin/sh", script]
        self.start_at = None
        try:
            # Read first: a Hermes that has more than it says is started once more, one that has less would never be.
            configuration = self._configuration()
            environ = self._settings()
            environ.pop("HERMES_DASHBOARD_SESSION_TOKEN", None)
            os.makedirs(environ.get("HOME") or self.paths.home, 0o700, exist_ok=True)
            mark = ("SANDBOX_GATEWAY", f"{self.boot}.{generation}")
            self.gateway = Child(command, environ, mark, self.selector, self.log)
        except (OSError, MemoryError) as error:
            self._not_started(f"{command[0]} cannot be started: {why(error)}")
            return
        self.wanted = "run"
        self.kill_at = None
        self.pause = AGAIN
        self._publish(
            state="starting",
            pid=self.gateway.pid,
            generation=generation,
            configuration=configuration,
        )

    def _not_started(self, message: str) -> None:
        """Give up a boot that has nothing to lose yet, else try again: there is a state to save."""
        self._say(message)
        if not self.state["everReady"]:
            self.exit_code = 127
            return
        self._publish(state="stopped", pid=None)
        self.start_at = time.monotonic() + self.pause
        self.pause = min(2 * self.pause, LONGEST_PAUSE)

    def _configuration(self) -> object:
        """Return the label of what Hermes runs with, or is about to."""
        return json.loads(read_text(self.paths.in_run("configuration.json")) or "null")

    def _settings(self) -> dict[str, str]:
        """Return the environment of this boot, with what `go` brought."""
        return {**self.environ, **json.loads(read_text(self.paths.in_run("env.json")) or "{}")}

    def _restart(self, drain: float | None) -> None:
        if self.state["state"] == "waiting":
            return
        self.dashboard.renew()
        if self.gateway is None:
            self._start()
            return
        # SIGUSR1 asks Hermes for exit 75; before it listens for that, the signal just ends it.
        self._ask_to_end(self.gateway, "restart", signal.SIGUSR1, drain)

    def _stop(self, wanted: str, drain: float | None) -> None:
        self.start_at = None
        if self.gateway is None:
            if wanted == "end":
                self.exit_code = 0
            return
        # SIGINT is a planned stop for Hermes, SIGTERM an accident that it reports as failure.
        self._ask_to_end(self.gateway, wanted, signal.SIGINT, drain)

    def _ask_to_end(self, gateway: Child, wanted: str, number: int, drain: float | None) -> None:
        drain = self.paths.drain() if drain is None else drain
        self.wanted = wanted
        self.kill_at = time.monotonic() + drain + SHUTDOWN_MARGIN
        self._publish(state="stopping")
        gateway.signal(number)

    def _terminate(self) -> None:
        if self.wanted == "end":  # told twice
            self.exit_code = 128 + signal.SIGTERM
            return
        if self.entrypoint and self.gateway is not None:
            self.wanted = "end"
            self.gateway.signal_group(signal.SIGTERM)
            return
        if self.term_patience and self.gateway is not None and self.end_at is None:
            self._say(f"asked to stop; Hermes goes on for {self.term_patience:g} s")
            self.end_at = time.monotonic() + self.term_patience
            return
        self._say("asked to stop")
        self._end_hermes()

    def _end_hermes(self) -> None:
        self.end_at = None
        self._stop("end", None)

    def _gateway_ended(self, gateway: Child, code: int) -> None:
        gateway.bury(code)
        was_ready = self.state["state"] in ("running", "stopping")
        wanted, self.gateway, self.kill_at = self.wanted, None, None
        self._say(f"{'command' if self.entrypoint else 'Hermes'} ended with code {code}")
        self._publish(state="stopped", pid=None, lastExit=code)
        if self.entrypoint or wanted == "end":
            self.exit_code = code
        elif wanted == "stop":
            return
        elif wanted == "restart" or (code == RESTART_ME and was_ready) or self._may_restart():
            self.state["restarts"] += 1
            self._start()
        else:
            self.exit_code = code or 1

    def _may_restart(self) -> bool:
        """Count an end that nobody asked for; one before Hermes was ever ready is final."""
        now = time.monotonic()
        self.crashes = [at for at in self.crashes if at > now - WINDOW] + [now]
        return bool(self.state["everReady"]) and len(self.crashes) <= RESTARTS

    # The dashboard

    def _start_dashboard(self, run: int) -> Child:
        """Start it for the time number `run`. Raises OSError or MemoryError when that fails."""
        script = os.path.join(self.paths.image, "start-hermes.sh")
        mark = ("SANDBOX_DASHBOARD", f"{self.boot}.{run}")
        command = ["/bin/sh", script, "dashboard"]
        return Child(command, self._settings(), mark, self.selector, self.log)

    def _note_dashboard(self, pid: int | None, over: str | None) -> None:
        """Publish that the dashboard was started, or how it is `over`."""
        if over is not None:
            self._say(f"the dashboard {over}")
            self.state["dashboardEnds"] += 1
        self._publish(dashboardPid=pid)

    # Time

    def _timeout(self) -> float | None:
        if self.state["state"] == "starting" and not self.entrypoint:
            return PROBE_EVERY
        times = (self.kill_at, self.start_at, self.publish_at, self.end_at, self.dashboard.due)
        due = [at for at in times if at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _tick(self) -> None:
        late = self.kill_at is not None and time.monotonic() >= self.kill_at
        if late and self.gateway is not None:
            self._say("Hermes did not end in time and is killed")
            self.kill_at = None
            self.gateway.signal_group(signal.SIGKILL)
        if self.end_at is not None and time.monotonic() >= self.end_at:
            self._end_hermes()
        if self.start_at is not None and time.monotonic() >= self.start_at:
            self._start()
        if self.publish_at is not None and time.monotonic() >= self.publish_at:
            self._publish()
        self.dashboard.tick()
        if self.state["state"] == "starting" and not self.entrypoint and self._answers():
            self._publish(state="running", everReady=True)

    def _answers(self) -> bool:
        """Ask Hermes' own /health; it answers before it has opened all of its channels."""
        try:
            with socket.create_connection(("127.0.0.1", self.paths.port), 0.5) as connection:
                connection.sendall(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
                with connection.makefile("rb") as answer:  # to its end: a reset would be logged
                    return answer.read().split(b" ")[1:2] == [b"200"]
        except OSError:
            return False

    # What others see

    def _publish(self, **changes: object) -> None:
        self.state.update(changes)
        try:
            write_private(self.paths.in_run("state.json"), json.dumps(self.state))
            self.publish_at = None
        except OSError as error:
            self._say(f"state.json cannot be written: {why(error)}")
            self.publish_at = time.monotonic() + AGAIN

    def _say(self, message: str) -> None:
        self.log.write(f"sandbox: {message}\n".encode())

    def _end(self) -> None:
        if self.exit_code is not None and not self.orphaned:
            self._publish(state="stopped", pid=None, ended=True)
            with contextlib.suppress(OSError):
                self._wait_for_followers()
        self._try(self._kill_all)
        self._forget()

    def _kill_all(self) -> None:
        if not processes.kill_all_below(os.getpid(), f"HERMES_BOOT_ID={self.boot}"):
            self._say("some processes could not be killed")

    def _wait_for_followers(self) -> None:
        """Let those who follow the logs read the end of them: it says why."""
        end = time.monotonic() + FOLLOWERS_TIME
        with open(self.paths.in_run(FOLLOWERS), "w") as lock:
            while time.monotonic() < end:
                self._reap()
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    time.sleep(0.01)
                    continue
                if not self.execs:
                    return
                end = min(end, time.monotonic() + 0.1)  # the follower has read, now it exits
                time.sleep(0.01)

    def _forget(self) -> None:
        """Remove the keys and marks of a boot."""
        config = os.path.join(self.paths.managed, "config.yaml")
        for path in (
            config,
            *map(self.paths.in_run, ("boot", "env.json", "configuration.json", "restored", "go")),
        ):
            if os.path.exists(path):
                os.unlink(path)

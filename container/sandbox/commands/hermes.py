# SPDX-License-Identifier: Apache-2.0
"""The commands that steer Hermes: go, restart-gateway, stop-gateway, status."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from sandbox import processes
from sandbox.commands.cron_jobs import CronJobs
from sandbox.errors import (
    FAILED,
    NOT_RESTORED,
    REFUSED,
    TEMPORARY,
    TOO_LATE,
    USAGE,
    SandboxError,
)
from sandbox.job_records import home_in_use
from sandbox.paths import DECLARED, SHUTDOWN_MARGIN, Paths, read_text, write_private

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# Where things are is for the engine or the image to say.
_FIXED = ("SANDBOX_", "HERMES_HOME", "HERMES_MANAGED_DIR", "HERMES_BOOT_ID", "PORT_")
# The declared agent is the most of it, and is not small in base64.
_INPUT_LIMIT = 8 << 20
_START_TIME = 60.0
# Until PID 1 has read an order, in seconds.
_ORDER_TIME = 10.0


def go(paths: Paths, source: BinaryIO) -> None:
    """Let Hermes start with the configuration and environment in `source`, a JSON object.

    Raises SandboxError: 64 for input that is not usable, 66 when it was started before, 67 when
    no restore of this boot was completed.
    """
    settings = _settings(source.read(_INPUT_LIMIT + 1))
    with paths.locked("restore.lock"):
        if not paths.restored():
            raise SandboxError(NOT_RESTORED, "Nothing was restored in this boot: not started.")
        if os.path.exists(paths.in_run("go")):
            raise SandboxError(TOO_LATE, "Hermes has been started; use restart-gateway.")
        _lay(paths, settings)
        _write_settings(paths, settings)
        write_private(paths.in_run("go"), "")
        tell(paths, {"do": "go"})


def restart_gateway(paths: Paths, source: BinaryIO, drain: float | None) -> None:
    """Restart Hermes, with new settings when `source` has any, and wait until it is ready.

    `drain`: seconds that it may take to finish what it is doing; None: as it is configured.
    Raises SandboxError: 67 before `go`, 1 when Hermes does not come back.
    """
    text = b"" if sys.stdin.isatty() else source.read(_INPUT_LIMIT + 1)
    if not os.path.exists(paths.in_run("go")):
        raise SandboxError(NOT_RESTORED, "Hermes was not started in this boot: use go.")
    if text.strip():
        settings = _settings(text)
        _lay(paths, settings)
        _write_settings(paths, settings)
    before = paths.state()["generation"]
    tell(paths, {"do": "restart", "drain": drain})
    _await(
        paths,
        _drain_limit(paths, drain) + _START_TIME,
        "running",
        lambda state: state["generation"] > before and state["state"] == "running",
    )


def declare(paths: Paths, source: BinaryIO) -> None:
    """Lay the declared agent in `source`, which is that of `go`, beside the Hermes that runs.

    Raises SandboxError: 67 before `go`, 77 when Hermes needs a restart for it, and as a laying does.
    """
    settings = _settings(source.read(_INPUT_LIMIT + 1))
    if not os.path.exists(paths.in_run("go")):
        raise SandboxError(NOT_RESTORED, "Hermes was not started in this boot: use go.")
    _lay(paths, settings, running=True)
    _write_configuration(paths, settings)
    tell(paths, {"do": "declared"})
    _await(
        paths,
        _ORDER_TIME,
        "told what was declared",
        lambda state: state["configuration"] == settings["configuration"],
    )


def stop_gateway(paths: Paths, drain: float | None) -> None:
    """Stop Hermes, leave the sandbox running, and wait until it has stopped.

    Raises SandboxError 1 when it does not stop.
    """
    tell(paths, {"do": "stop", "drain": drain})
    _await(
        paths,
        _drain_limit(paths, drain),
        "stopped",
        lambda state: state["state"] in ("stopped", "waiting"),
    )


def status(paths: Paths) -> str:
    """Return what is known about this sandbox as one line of JSON."""
    state = paths.state()
    jobs = CronJobs(paths.home)
    return json.dumps(
        {
            "state": state.get("state", "waiting"),
            "pid": state.get("pid"),
            "restarts": state.get("restarts", 0),
            "lastExit": state.get("lastExit"),
            "configuration": state.get("configuration"),
            "sqlite": read_text(paths.in_run("sqlite")),
            "restored": paths.restored(),
            "nextCron": jobs.next_run(),
            "cronRunning": jobs.running(state.get("pid")),
            "jobError": jobs.failed(),
            "processes": _processes(state.get("initPid")),
            "agent": _agent(paths),
            "version": read_text(paths.in_run("version")),
        }
    )


def _settings(text: bytes) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise SandboxError(USAGE, "stdin is not JSON.") from error
    if len(text) > _INPUT_LIMIT or not isinstance(settings, dict):
        raise SandboxError(USAGE, f"stdin is not a JSON object of at most {_INPUT_LIMIT >> 20} MB.")
    config, environ = settings.get("config", {}), settings.get("env", {})
    if not isinstance(config, dict) or not isinstance(environ, dict):
        raise SandboxError(USAGE, "config and env must be objects.")
    for name, value in environ.items():
        if not _NAME.match(name) or name.startswith(_FIXED):
            raise SandboxError(USAGE, f"env may not have the name {name!r}.")
        if not isinstance(value, str) or "\0" in value:
            raise SandboxError(USAGE, f"env {name} must be text without a NUL.")
    agent = settings.get("agent")
    if agent is not None and not (
        isinstance(agent, dict)
        and all(isinstance(agent.get(name), str) for name in ("archive", "content"))
    ):
        raise SandboxError(USAGE, "agent must have an archive and its content.")
    return {
        "config": config,
        "env": environ,
        "configuration": settings.get("configuration"),
        "agent": agent if agent and agent["content"] else None,
    }


def _lay(paths: Paths, settings: dict[str, Any], running: bool = False) -> None:
    """Put what is declared of the agent into Hermes' home, and what is pinned under our own settings.

    running: look at each item, be it that the same declaration is laid already, and only if what
    Hermes runs with stays the same.
    """
    if not settings["agent"] and not _was_declared(paths):
        if running:
            _require_same(paths, settings)
        return
    from sandbox.agent.declared import merged, read
    from sandbox.agent.record import Record

    declared = read(settings["agent"])
    settings["config"] = merged(declared.pinned, settings["config"])
    if running:
        _require_same(paths, settings)
    elif not declared.take_over and Record(home_in_use(paths.home)).has(declared.digest):
        return
    from sandbox.agent.lay import lay

    lay(paths, declared, settings["env"], settings["config"])


def _require_same(paths: Paths, settings: dict[str, Any]) -> None:
    """Refuse what only a restart of Hermes would bring."""
    files = {"config": os.path.join(paths.managed, "config.yaml"), "env": paths.in_run("env.json")}
    for name, path in files.items():
        if settings[name] != json.loads(read_text(path) or "{}"):
            raise SandboxError(REFUSED, f"Hermes runs with another {name}: restart-gateway.")


def _was_declared(paths: Paths) -> bool:
    return os.path.lexists(os.path.join(home_in_use(paths.home), DECLARED))


def _agent(paths: Paths) -> dict[str, Any]:
    if not _was_declared(paths):
        return {"archive": "", "laid": [], "kept": []}
    from sandbox.agent.drift import told

    return told(paths)


def _write_settings(paths: Paths, settings: dict[str, Any]) -> None:
    # JSON is YAML. The files are in the run folder: they hold keys.
    write_private(os.path.join(paths.managed, "config.yaml"), json.dumps(settings["config"]))
    write_private(paths.in_run("env.json"), json.dumps(settings["env"]))
    _write_configuration(paths, settings)


def _write_configuration(paths: Paths, settings: dict[str, Any]) -> None:
    # Last, so that a Hermes that is started between two of these never claims what it does not have.
    write_private(paths.in_run("configuration.json"), json.dumps(settings["configuration"]))


def tell(paths: Paths, message: dict[str, Any]) -> None:
    """Give PID 1 an order. Raises SandboxError 75 when it is gone."""
    try:
        control = os.open(paths.in_run("control"), os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            raise SandboxError(TEMPORARY, "PID 1 of this sandbox is gone.") from error
        raise
    try:
        os.write(control, json.dumps(message).encode() + b"\n")
    finally:
        os.close(control)


def _drain_limit(paths: Paths, drain: float | None) -> float:
    return (paths.drain() if drain is None else drain) + SHUTDOWN_MARGIN + 5.0


def _await(
    paths: Paths, seconds: float, goal: str, reached: Callable[[dict[str, Any]], bool]
) -> None:
    end = time.monotonic() + seconds
    while not reached(paths.state()):
        if time.monotonic() > end:
            raise SandboxError(FAILED, f"Hermes is not {goal} after {seconds:.0f} s.")
        time.sleep(0.05)


def _processes(init: int | None) -> list[dict[str, Any]]:
    if init is None:
        return []
    everyone = processes.table()
    if init == 1:  # all that there is; what a container engine put in descends from nobody here
        found = list(everyone.values())
    else:
        found = [everyone[init]] if init in everyone else []
        found += processes.descendants(init)
    found = [item for item in found if item.pid != os.getpid()]
    return [{"pid": item.pid, "name": item.name, "rssBytes": item.rss} for item in found]

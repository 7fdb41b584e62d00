# SPDX-License-Identifier: Apache-2.0
"""Command line of the sandbox: parses, calls one function, turns failures into exit codes."""

from __future__ import annotations

import os
import sys

from sandbox import errors
from sandbox.errors import SandboxError
from sandbox.paths import Paths

# What type checkers know by this name; PID 1 has no need of `typing` in its memory for ever.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

USAGE = """usage: sandbox init [-- COMMAND...]
       sandbox restore --boot ID [--empty | --keep]        archive on stdin
       sandbox check --boot ID                             archive on stdin
       sandbox restore-sign-ins --boot ID                  archive on stdin
       sandbox go --boot ID                                JSON on stdin
       sandbox declare --boot ID                           JSON on stdin
       sandbox save --boot ID [--unless DIGEST]            archive on stdout
       sandbox save-sign-ins --boot ID [--unless DIGEST]   archive on stdout
       sandbox restart-gateway --boot ID [--drain SECONDS] JSON on stdin, or nothing
       sandbox stop-gateway --boot ID [--drain SECONDS]
       sandbox dashboard --boot ID [--host-tools]
       sandbox status --boot ID
       sandbox logs --boot ID [--lines N] [--follow]
This is not a command of the sandbox."""

_FLAGS: dict[str, dict[str, Any]] = {
    "restore": {"--empty": False, "--keep": False},
    "restore-sign-ins": {},
    "check": {},
    "go": {},
    "declare": {},
    "save": {"--unless": ""},
    "save-sign-ins": {"--unless": ""},
    "restart-gateway": {"--drain": ""},
    "stop-gateway": {"--drain": ""},
    "dashboard": {"--host-tools": False},
    "status": {},
    "logs": {"--lines": "100", "--follow": False},
}


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code; the last line of stderr says what went wrong."""
    try:
        return _run(arguments)
    except SandboxError as error:
        return _fail(error.code, str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter complains at exit
        return _fail(errors.FAILED, "The reader of the output went away.")
    except OSError as error:
        if errors.disk_full(error):
            return _fail(errors.DISK_FULL, f"The disk is full ({error.strerror}).")
        return _fail(errors.UNFINISHED, f"{error.strerror}: {error.filename or 'system call'}.")
    except MemoryError:
        return _fail(errors.UNFINISHED, "There is not enough memory in the sandbox.")


def _run(arguments: list[str]) -> int:
    command = arguments[0] if arguments else ""
    if command == "init":
        from sandbox.pid1.init import init

        return init(Paths(os.environ), _entrypoint(arguments[1:]), os.environ)
    if command not in _FLAGS:
        raise SandboxError(errors.USAGE, USAGE)
    options = _parse(arguments[1:], {"--boot": "", **_FLAGS[command]})
    paths = Paths(os.environ)
    paths.require_boot(options["--boot"])
    return _dispatch(command, paths, options)


def _dispatch(command: str, paths: Paths, options: dict[str, Any]) -> int:
    if command in ("save", "save-sign-ins"):
        return _save(command, paths, options)
    if command in ("restore", "restore-sign-ins", "check"):
        return _restore(command, paths, options)
    if command == "logs":
        from sandbox.commands.logs import logs

        logs(paths, int(_seconds(options["--lines"] or "100") or 0), options["--follow"])
        return errors.OK
    if command == "dashboard":
        from sandbox.commands.dashboard import dashboard

        dashboard(paths, options["--host-tools"])
        return errors.OK
    from sandbox.commands import hermes

    if command == "go":
        hermes.go(paths, sys.stdin.buffer)
    elif command == "declare":
        hermes.declare(paths, sys.stdin.buffer)
    elif command == "status":
        print(hermes.status(paths))
    else:
        drain = _seconds(options["--drain"])
        if command == "restart-gateway":
            hermes.restart_gateway(paths, sys.stdin.buffer, drain)
        else:
            hermes.stop_gateway(paths, drain)
    return errors.OK


def _save(command: str, paths: Paths, options: dict[str, Any]) -> int:
    from sandbox.state import save

    write = save.save if command == "save" else save.save_sign_ins
    return write(paths, options["--unless"], sys.stdout.buffer)


def _restore(command: str, paths: Paths, options: dict[str, Any]) -> int:
    from sandbox.state import restore

    if command == "check":
        restore.check(paths, sys.stdin.buffer)
    elif command == "restore-sign-ins":
        restore.restore_sign_ins(paths, sys.stdin.buffer)
    elif options["--empty"]:
        restore.begin_empty(paths)
    elif options["--keep"]:
        restore.keep(paths)
    else:
        restore.restore(paths, sys.stdin.buffer)
    return errors.OK


def _entrypoint(rest: list[str]) -> list[str]:
    if not rest:
        return []
    if rest[0] != "--" or len(rest) < 2:
        raise SandboxError(errors.USAGE, USAGE)
    return rest[1:]


def _parse(words: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """Read `--flag` and `--name VALUE` words into a copy of `options`; --boot is required."""
    parsed, queue = dict(options), list(words)
    while queue:
        word = queue.pop(0)
        if word not in parsed or (parsed[word] is not False and not queue):
            raise SandboxError(errors.USAGE, USAGE)
        parsed[word] = True if parsed[word] is False else queue.pop(0)
    if not parsed["--boot"]:
        raise SandboxError(errors.USAGE, USAGE)
    return parsed


def _seconds(text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86400:
        raise SandboxError(errors.USAGE, f"{text} is not a number from 0 to 86400.")
    return value


def _fail(code: int, message: str) -> int:
    print(message, file=sys.stderr)
    return code

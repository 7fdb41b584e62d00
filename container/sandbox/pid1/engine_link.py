# SPDX-License-Identifier: Apache-2.0
"""The link to the engine that started this sandbox: a pipe, or a socket that takes orders.

Its end means that the engine is gone. Over a socket the engine starts processes inside the
sandbox, whatever confines it: one JSON object a line, the process's stdin, stdout and stderr as
three descriptors beside it.

    {"id": 1, "cmd": [...], "env": {...}, "cwd": null}  ->  {"id": 1, "pid": 17}, later
                                                            {"id": 1, "exit": 0}
                                                        or  {"id": 1, "error": "..."}
    {"kill": 1}         kills that process and its group
    {"signal": 15}      signals PID 1
    {"pause": true}     stops (false: continues) everything but PID 1  ->  {"paused": true}
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import stat
import subprocess

from sandbox import processes
from sandbox.errors import why

# For type checkers only: see cli.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_PASSING = (errno.ENOMEM, errno.ENOBUFS, errno.EMFILE, errno.ENFILE)


class EngineLink:
    """Reads orders and answers them; `execs` maps a pid to what is to be called at its end."""

    def __init__(self, descriptor: int, gone: Callable[[], None]) -> None:
        """gone: called once, when the engine has let go of its end."""
        os.set_inheritable(descriptor, False)
        self._gone = gone
        self._descriptor = descriptor
        self._socket: socket.socket | None = None
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            self._socket = socket.socket(fileno=descriptor)
        self._text = b""
        self._received: list[int] = []
        self._running: dict[int, int] = {}
        self.execs: dict[int, Callable[[int], None]] = {}

    def fileno(self) -> int:
        """Return the descriptor, for `select`."""
        return self._descriptor

    def read(self) -> None:
        """Read what is there and act on each complete line."""
        try:
            text = self._receive()
        except OSError as error:
            if error.errno in _PASSING:  # of this machine, not of the link
                raise
            text = b""
        if not text:
            self._gone()
            return
        self._text += text
        while b"\n" in self._text:
            line, self._text = self._text.split(b"\n", 1)
            # With PID 1 everything would end, unsaved: no order is worth that.
            with contextlib.suppress(ValueError, TypeError, LookupError, AttributeError):
                self._obey(json.loads(line))

    def _receive(self) -> bytes:
        if self._socket is None:
            return os.read(self._descriptor, 4096)
        text, descriptors, _flags, _address = socket.recv_fds(self._socket, 65536, 16)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._received += descriptors
        return text

    def _obey(self, order: dict[str, Any]) -> None:
        if "cmd" in order:
            self._execute(order)
        elif "kill" in order and order["kill"] in self._running:
            processes.kill_group(self._running[order["kill"]], signal.SIGKILL)
        elif "signal" in order:
            os.kill(os.getpid(), order["signal"])
        elif "pause" in order:
            number = signal.SIGSTOP if order["pause"] else signal.SIGCONT
            processes.kill({item.pid for item in processes.descendants(os.getpid())}, number)
            self._answer({"paused": order["pause"]})

    def _execute(self, order: dict[str, Any]) -> None:
        descriptors, self._received = self._received[:3], self._received[3:]
        environ = order["env"]  # nothing of PID 1's own: no platform hands that on
        program = _find(order["cmd"][0], environ.get("PATH", os.defpath))
        try:
            if len(descriptors) < 3:  # the system had no room for them
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            if program is None:
                raise FileNotFoundError(2, "No such file or directory")
            started = subprocess.Popen(
                [program, *order["cmd"][1:]],
                env=environ,
                cwd=order["cwd"],
                stdin=descriptors[0],
                stdout=descriptors[1],
                stderr=descriptors[2],
                start_new_session=True,
            )
        except (OSError, MemoryError, ValueError) as error:
            self._answer({"id": order["id"], "error": f"{order['cmd'][0]}: {why(error)}"})
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._running[order["id"]] = started.pid

        def ended(code: int) -> None:
            started.returncode = code  # reaped by PID 1, not by subprocess
            del self._running[order["id"]]
            self._answer({"id": order["id"], "exit": code})

        self.execs[started.pid] = ended
        self._answer({"id": order["id"], "pid": started.pid})

    def _answer(self, message: dict[str, Any]) -> None:
        if self._socket is None:  # a pipe brings orders, and takes no answers
            return
        with contextlib.suppress(OSError):  # the engine is going; the next read says so
            self._socket.sendall(json.dumps(message).encode() + b"\n")


def _find(command: str, path: str) -> str | None:
    """Return the program that a shell would run; `shutil.which` would cost PID 1 a megabyte."""
    folders = [""] if "/" in command else path.split(":")
    for folder in folders:
        program = os.path.join(folder, command)
        if os.path.isfile(program) and os.access(program, os.X_OK):
            return program
    return None

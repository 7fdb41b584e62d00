# SPDX-License-Identifier: Apache-2.0
"""The engine's end of the link to PID 1 of a sandbox (the other: `sandbox/pid1/engine_link.py`).

When the engine dies, however it dies, the system closes this end, and PID 1 ends the sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
from typing import Any

from engine.errors import EngineError

ORDER_LIMIT = 128 * 1024
PAUSE_TIME = 10.0


class SandboxLink:
    """Sends orders to PID 1 and hands its answers to whoever waits for them."""

    def __init__(self) -> None:
        self._ours, self.theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * ORDER_LIMIT)
        self._numbers = itertools.count(1)
        self._started: dict[int, asyncio.Future[int]] = {}
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._paused: asyncio.Future[bool] | None = None
        self._sending = asyncio.Lock()
        self._text = b""
        self._open = True

    def listen(self) -> None:
        """Begin to read, once PID 1 has the other end."""
        self.theirs.close()
        asyncio.get_running_loop().add_reader(self._ours, self._read)

    async def execute(
        self, order: dict[str, Any], descriptors: list[int]
    ) -> tuple[int, int, asyncio.Future[int]]:
        """Start a process with three descriptors, which are closed here.

        Returns the order's number, the pid and a future exit code, which is cancelled when the
        sandbox ends first. Raises EngineError 404 when there is no such command, 409 when the
        sandbox is not running.
        """
        loop = asyncio.get_running_loop()
        number = next(self._numbers)
        started = self._started[number] = loop.create_future()
        ended = self._ended[number] = loop.create_future()
        try:
            try:
                await self._send({"id": number, **order}, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            return number, await started, ended
        except BaseException as error:
            self._started.pop(number, None)
            self._ended.pop(number, None)
            self.kill(number)
            if isinstance(error, asyncio.CancelledError) and not self._open:
                raise EngineError(409, "not_running", "The sandbox has ended.") from error
            raise

    def kill(self, number: int) -> None:
        """Kill a process that `execute` started, and its group; it may have ended."""
        self._post({"kill": number})

    def signal(self, number: int) -> None:
        """Send a signal to PID 1."""
        self._post({"signal": number})

    async def pause(self, paused: bool) -> bool:
        """Stop or continue everything in the sandbox but PID 1; no harm once it has ended.

        Returns False when PID 1 did not say within PAUSE_TIME that it did so.
        """
        if not self._open:
            return True
        self._paused = asyncio.get_running_loop().create_future()
        self._post({"pause": paused})
        done, _pending = await asyncio.wait([self._paused], timeout=PAUSE_TIME)
        return bool(done)

    def close(self) -> None:
        """Let PID 1 see the end; everybody who waits learns that the sandbox is gone."""
        if not self._open:
            return
        self._open = False
        asyncio.get_running_loop().remove_reader(self._ours)
        self._ours.close()
        for future in (*self._started.values(), *self._ended.values(), self._paused):
            if future is not None and not future.done():
                future.cancel()

    async def _send(self, message: dict[str, Any], descriptors: list[int]) -> None:
        text = json.dumps(message).encode() + b"\n"
        if len(text) > ORDER_LIMIT:
            raise EngineError(413, "too_large", f"A command has at most {ORDER_LIMIT} bytes.")
        loop = asyncio.get_running_loop()
        async with self._sending:
            if not self._open:
                raise EngineError(409, "not_running", "The sandbox has ended.")
            try:
                sent = socket.send_fds(self._ours, [text], descriptors)
                await loop.sock_sendall(self._ours, text[sent:])
            except (BlockingIOError, ConnectionError) as error:
                raise EngineError(409, "not_running", "The sandbox does not listen.") from error

    def _post(self, message: dict[str, Any]) -> None:
        async def post() -> None:
            with contextlib.suppress(EngineError):  # it has ended: nothing to kill or signal
                await self._send(message, [])

        if self._open:
            task = asyncio.ensure_future(post())
            _posting.add(task)
            task.add_done_callback(_posting.discard)

    def _read(self) -> None:
        try:
            text = self._ours.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            text = b""
        if not text:
            self.close()
            return
        self._text += text
        while b"\n" in self._text:
            line, self._text = self._text.split(b"\n", 1)
            self._deliver(json.loads(line))

    def _deliver(self, message: dict[str, Any]) -> None:
        if "paused" in message:
            _settle(self._paused, message["paused"])
        elif "pid" in message:
            _settle(self._started.pop(message["id"], None), message["pid"])
        elif "exit" in message:
            _settle(self._ended.pop(message["id"], None), message["exit"])
        elif "error" in message:
            self._ended.pop(message["id"], None)
            future = self._started.pop(message["id"], None)
            if future is not None and not future.done():
                future.set_exception(EngineError(404, "command_not_found", message["error"]))


# The loop keeps only weak references to tasks.
_posting: set[asyncio.Task[None]] = set()


def _settle(future: asyncio.Future[Any] | None, value: object) -> None:
    if future is not None and not future.done():
        future.set_result(value)

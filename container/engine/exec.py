# SPDX-License-Identifier: Apache-2.0
"""`POST /exec`: a process of the sandbox as a two-way stream.

The body is one line of JSON, then stdin. The answer is a sequence of frames: a byte that says
what it is, four bytes of length (big-endian), the payload. Nothing is buffered whole: a slow
reader slows the process down, a slow process the sender.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from aiohttp import web

from engine.errors import EngineError
from engine.sandbox_link import SandboxLink

PID, STDOUT, STDERR, EXIT = range(4)
CHUNK = 65536
# How long after a process's end its children may hold its output open without writing to it.
QUIET = 1.0


async def execute(
    request: web.Request, link: SandboxLink, constants: dict[str, str]
) -> web.StreamResponse:
    """Run the command that the body names, with its `env` over `constants`, and stream it until it ends.

    Raises EngineError: 400, 404 (no such command), 409 (the sandbox has ended), 413. A client
    that goes away kills the process.
    """
    order = await _order(request)
    order["env"] = {**constants, **order["env"]}
    pipes = _Pipes(order.pop("stdout"), order.pop("stderr"))
    number = None
    try:
        number, pid, ended = await link.execute(order, pipes.theirs())
        answer = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        await answer.prepare(request)
        await _frame(answer, PID, str(pid).encode())
        code = await _stream(request, answer, pipes, ended)
        number = None
        if code is not None:
            await _frame(answer, EXIT, str(code).encode())
            await answer.write_eof()
        elif request.transport is not None:
            request.transport.close()  # no last frame: the client must not take it for success
        return answer
    finally:
        if number is not None:
            link.kill(number)
        pipes.close()


async def _stream(
    request: web.Request,
    answer: web.StreamResponse,
    pipes: _Pipes,
    ended: asyncio.Future[int],
) -> int | None:
    """Pump all three streams and return the exit code, None when the sandbox ended first."""
    progress = _Progress()
    stdin = asyncio.ensure_future(_pump_in(request, pipes.stdin))
    outputs = [
        asyncio.ensure_future(_pump_out(answer, kind, reader, progress))
        for kind, reader in pipes.outputs
    ]
    try:
        while not ended.done():
            running = [task for task in outputs if not task.done()]
            waited: list[asyncio.Future[Any]] = [ended, *running]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for task in outputs:
                if task.done():
                    task.result()  # the client went away: stop here
        await progress.drained(outputs)
        return None if ended.cancelled() else ended.result()
    finally:
        for task in (stdin, *outputs):
            task.cancel()
        await asyncio.gather(stdin, *outputs, return_exceptions=True)


class _Progress:
    """Tells a reader that is slow from an output that is silent."""

    def __init__(self) -> None:
        self.at = time.monotonic()
        self.writing = 0

    async def drained(self, tasks: list[asyncio.Task[None]]) -> None:
        """Wait for the end of each output, or until it is silent for QUIET seconds."""
        while pending := [task for task in tasks if not task.done()]:
            await asyncio.wait(pending, timeout=QUIET / 4)
            if not self.writing and time.monotonic() - self.at > QUIET:
                return


async def _pump_in(request: web.Request, pipe: BinaryIO) -> None:
    loop = asyncio.get_running_loop()
    try:
        async for chunk in request.content.iter_any():
            left = memoryview(chunk)
            while left:
                try:
                    left = left[os.write(pipe.fileno(), left) :]
                except BlockingIOError:
                    await _ready(pipe, loop.add_writer, loop.remove_writer)
    except BrokenPipeError:  # it does not read on: its right
        pass
    finally:
        pipe.close()


async def _pump_out(
    answer: web.StreamResponse, kind: int, pipe: BinaryIO, progress: _Progress
) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = os.read(pipe.fileno(), CHUNK)
        except BlockingIOError:
            await _ready(pipe, loop.add_reader, loop.remove_reader)
            continue
        if not data:
            return
        progress.writing += 1
        try:
            await _frame(answer, kind, data)
        finally:
            progress.writing -= 1
            progress.at = time.monotonic()


async def _ready(
    pipe: BinaryIO, add: Callable[..., None], remove: Callable[[BinaryIO], bool]
) -> None:
    ready = asyncio.get_running_loop().create_future()

    def come() -> None:
        if not ready.done():
            ready.set_result(None)

    add(pipe, come)
    try:
        await ready
    finally:
        remove(pipe)


async def _frame(answer: web.StreamResponse, kind: int, payload: bytes) -> None:
    await answer.write(struct.pack(">BI", kind, len(payload)) + payload)


class _Pipes:
    """The process's three streams: `stdin` to write, `outputs` to read with their frame type."""

    def __init__(self, stdout: str, stderr: str) -> None:
        self.outputs: list[tuple[int, BinaryIO]] = []
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        self.stdin: BinaryIO = os.fdopen(writer, "wb", 0)
        self._theirs = [reader]
        try:
            for kind, mode in ((STDOUT, stdout), (STDERR, stderr)):
                self._theirs.append(self._output(kind, mode))
        except OSError:
            self.close()
            raise

    def theirs(self) -> list[int]:
        """Hand over the process's ends; whoever gets them closes them."""
        theirs, self._theirs = self._theirs, []
        return theirs

    def close(self) -> None:
        """Close our ends, and the process's where nobody took them."""
        for pipe in (self.stdin, *(pipe for _number, pipe in self.outputs)):
            pipe.close()
        for descriptor in self.theirs():
            os.close(descriptor)

    def _output(self, kind: int, mode: str) -> int:
        if mode == "ignore":
            return os.open(os.devnull, os.O_WRONLY)
        if mode == "combined":
            return os.dup(self._theirs[1])
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        self.outputs.append((kind, os.fdopen(reader, "rb", 0)))
        return writer


async def _order(request: web.Request) -> dict[str, Any]:
    try:
        order = json.loads(await request.content.readline())
    except ValueError as error:  # also: no line end within the limit
        raise EngineError(400, "invalid", "The first line must be a JSON object.") from error
    if not isinstance(order, dict):
        raise EngineError(400, "invalid", "The first line must be a JSON object.")
    command, environ, folder = order.get("cmd"), order.get("env") or {}, order.get("cwd")
    if not isinstance(command, list) or not command or not all(map(_is_text, command)):
        raise EngineError(400, "invalid", "cmd must be a list of texts.")
    if not isinstance(environ, dict) or not all(map(_is_text, environ.values())):
        raise EngineError(400, "invalid", "env must be an object of texts.")
    if folder is not None and not _is_text(folder):
        raise EngineError(400, "invalid", "cwd must be text.")
    stdout, stderr = order.get("stdout", "pipe"), order.get("stderr", "pipe")
    if stdout not in ("pipe", "ignore") or stderr not in ("pipe", "ignore", "combined"):
        raise EngineError(400, "invalid", "stdout and stderr: pipe or ignore; stderr: combined.")
    return {"cmd": command, "env": environ, "cwd": folder, "stdout": stdout, "stderr": stderr}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value

# SPDX-License-Identifier: Apache-2.0
"""A client of the engine for the tests."""

import json
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp


@dataclass
class Done:
    """What a finished exec left; `code` is None when the stream ended without one."""

    pid: int | None = None
    out: bytes = b""
    err: bytes = b""
    code: int | None = None


class Client:
    """Speaks to an engine's socket; use as `async with`."""

    def __init__(self, socket: str) -> None:
        self._socket = socket

    async def __aenter__(self) -> "Client":
        self.session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(self._socket, limit=0),
            timeout=aiohttp.ClientTimeout(total=180),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def get(self, path: str = "/") -> tuple[int, dict]:
        async with self.session.get(f"http://engine{path}") as answer:
            return answer.status, await answer.json()

    async def post(self, path: str, body: dict | None = None) -> tuple[int, dict]:
        async with self.session.post(f"http://engine{path}", json=body or {}) as answer:
            return answer.status, await answer.json()

    def open_exec(
        self, *command: str, stdin: "bytes | AsyncIterator[bytes]" = b"", **order: object
    ):
        """Return the request context of an exec; its answer streams frames."""
        first = json.dumps({"cmd": list(command), **order}).encode() + b"\n"

        async def body() -> AsyncIterator[bytes]:
            yield first
            if isinstance(stdin, bytes):
                if stdin:
                    yield stdin
            else:
                async for chunk in stdin:
                    yield chunk

        return self.session.post("http://engine/exec", data=body())

    async def exec(
        self, *command: str, stdin: "bytes | AsyncIterator[bytes]" = b"", **order: object
    ):
        """Run a command to its end. Returns Done, or (status, body) when it was refused."""
        async with self.open_exec(*command, stdin=stdin, **order) as answer:
            if answer.status != 200:
                return answer.status, await answer.json()
            done = Done()
            try:
                while True:
                    kind, payload = await read_frame(answer)
                    if kind == 0:
                        done.pid = int(payload)
                    elif kind == 1:
                        done.out += payload
                    elif kind == 2:
                        done.err += payload
                    else:
                        done.code = int(payload)
                        return done
            except (aiohttp.ClientError, EOFError):
                return done


async def read_frame(answer: aiohttp.ClientResponse) -> tuple[int, bytes]:
    """Read one frame. Raises EOFError at the end of the stream."""
    try:
        kind, length = struct.unpack(">BI", await answer.content.readexactly(5))
        return kind, await answer.content.readexactly(length)
    except EOFError:
        raise

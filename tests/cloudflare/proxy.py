# SPDX-License-Identifier: Apache-2.0
"""The way in: an HTTPS proxy for Cloudflare's hosts, and one port on which the registry speaks TLS and plain HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

TLS_HANDSHAKE = 0x16
HEAD_BYTES = 16 * 1024
CHUNK = 64 * 1024


class Proxy:
    """Answers CONNECT for hosts that exist, and hands the bytes to whoever ends TLS for them."""

    def __init__(
        self, port_of: Callable[[str], int | None], passing: Callable[[str], bool]
    ) -> None:
        """port_of: where TLS is ended for a hostname, None when it does not resolve; passing: hosts let through."""
        self.port_of = port_of
        self.passing = passing
        self.refused: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(
            OSError, asyncio.CancelledError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, *_ = head.decode("latin-1").split(" ")
            host, _, port = target.rpartition(":")
            inside = self.port_of(host) if method == "CONNECT" and port == "443" else None
            if inside:
                await self._accept(reader, writer, "127.0.0.1", inside)
            elif method == "CONNECT" and self.passing(host):
                await self._accept(reader, writer, host, int(port))
            else:
                self.refused.append(f"{method} {target}")
                writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        writer.close()

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int
    ) -> None:
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await join(reader, writer, host, port)


class TlsOrPlain:
    """One port for both: clients that trust the authority speak TLS, an engine may speak plain HTTP to loopback."""

    def __init__(self, tls_port: int, plain_port: int) -> None:
        self.tls_port = tls_port
        self.plain_port = plain_port

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection; its first byte tells which it is."""
        with contextlib.suppress(OSError, asyncio.CancelledError):
            first = await reader.read(1)
            port = self.tls_port if first[:1] == bytes([TLS_HANDSHAKE]) else self.plain_port
            if first:
                await join(reader, writer, "127.0.0.1", port, first)
        writer.close()


async def join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    host: str,
    port: int,
    first: bytes = b"",
) -> None:
    """Connect a client with a server until one side ends."""
    there_reader, there_writer = await asyncio.open_connection(host, port)
    there_writer.write(first)
    ways = [
        asyncio.create_task(_pump(reader, there_writer)),
        asyncio.create_task(_pump(there_reader, writer)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        # What the server sent last is still under way when the client has said all it had to say.
        if ways[0].done() and not ways[1].done():
            await ways[1]
    finally:
        for way in ways:
            way.cancel()
        there_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

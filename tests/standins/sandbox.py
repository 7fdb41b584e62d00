# SPDX-License-Identifier: Apache-2.0
"""STAND-IN for the process engine and the Hermes in it, so small that what remains to be measured is the Worker.

    python -m tests.standins.sandbox SOCKET API_PORT DASHBOARD_PORT

It speaks the engine's protocol on the unix socket SOCKET and HTTP/1.1 on the two ports. A chat that is asked for
`"stream": true` is a stream of `chunks` events, one in `every` seconds, each with the time it was sent; asked for
`"flood": bytes` it is as many bytes as anybody takes, and asked to `"think": seconds` it takes that long unless who
asked goes away. The dashboard takes WebSockets, on which it never stops to say what time it is; so does a followed log.
GET /seen on the engine's socket tells what arrived.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import struct
import sys
import time
from typing import Any

COUNTS = [
    "starts",
    "requests",
    "dashboard",
    "streams",
    "cut",
    "thinking",
    "left",
    "finished",
    "flooded",
    "sockets",
    "closed",
]
SEEN: dict[str, Any] = {**dict.fromkeys(COUNTS, 0), "paths": [], "frames": []}
PORTS: dict[str, int] = {}
BOOT: dict[str, object] = {"running": False, "labels": None}


def frame(kind: int, payload: bytes) -> bytes:
    """One frame of an exec's output."""
    return bytes([kind]) + struct.pack(">I", len(payload)) + payload


def exec_answer(command: list[str]) -> bytes:
    """What a `sandbox` command prints; `save` says that nothing changed."""
    out = b""
    if command[1] == "status":
        out = b'{"state": "running", "nextCron": null, "cronRunning": 0}'
    code = b"3" if command[1] == "save" else b"0"
    return frame(0, b"1") + (frame(1, out) if out else b"") + frame(3, code)


async def read_request(
    reader: asyncio.StreamReader,
) -> tuple[str, str, dict[str, str], bytes] | None:
    """Read one request; None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _version = first.split(" ")
    headers = {}
    for line in filter(None, lines):
        name, _colon, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        return method, path, headers, await read_chunked(reader)
    return method, path, headers, await reader.readexactly(int(headers.get("content-length", 0)))


async def read_chunked(reader: asyncio.StreamReader) -> bytes:
    """Read a chunked body."""
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return body


def answer(body: bytes, kind: str = "application/json", status: str = "200 OK") -> bytes:
    """A whole answer."""
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection to the engine."""
    while request := await read_request(reader):
        method, path, _headers, body = request
        if path == "/monitor":
            await reader.read()
            break
        if path == "/seen":
            out = json.dumps(SEEN).encode()
        elif path == "/start":
            SEEN["starts"] += 1
            BOOT.update(running=True, labels=json.loads(body)["labels"])
            out = json.dumps({"ports": PORTS}).encode()
        elif path == "/exec":
            command = json.loads(body.split(b"\n", 1)[0])["cmd"]
            if "--lines" in command and "--follow" in command:
                await follow(writer)
                break
            out = exec_answer(command)
        elif path == "/destroy":
            BOOT.update(running=False, labels=None)
            out = b"{}"
        elif method == "GET":
            ports = PORTS if BOOT["running"] else None
            out = json.dumps(
                {**BOOT, "image": "stand-in", "confined": True, "ports": ports}
            ).encode()
        else:
            out = b"{}"
        writer.write(answer(out))
        await writer.drain()
    writer.close()


async def follow(writer: asyncio.StreamWriter) -> None:
    """Send a log that grows, a line with the time of day in each chunk."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    piece = frame(0, b"1")
    while True:
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
        piece = frame(1, b"%d\n" % time.monotonic_ns())
        await asyncio.sleep(0.02)


async def hermes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection to Hermes' API."""
    while request := await read_request(reader):
        _method, path, headers, body = request
        SEEN["requests"] += 1
        SEEN["paths"] = [*SEEN["paths"][-200:], path]
        asked = json.loads(body) if body and "completions" in path else {}
        if asked.get("stream"):
            await stream(writer, asked.get("chunks", 10), asked.get("every", 0.01))
            continue
        if asked.get("flood"):
            await flood(writer, asked["flood"])
            continue
        if asked.get("think") and not await think(reader, asked["think"]):
            break
        echoed = {"path": path, "bytes": len(body), "headers": headers}
        writer.write(answer(json.dumps(echoed).encode()))
        await writer.drain()
    writer.close()


async def stream(writer: asyncio.StreamWriter, chunks: int, every: float) -> None:
    """Send events that say when they were sent."""
    SEEN["streams"] += 1
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    writer.write(head)
    try:
        for _ in range(chunks):
            event = b"data: %d\n\n" % time.monotonic_ns()
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(every)
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        await writer.drain()
        SEEN["finished"] += 1
    except ConnectionError:
        SEEN["cut"] += 1
        raise


async def flood(writer: asyncio.StreamWriter, size: int) -> None:
    """Send as much as is taken, and note how much that is."""
    SEEN["flooded"] = 0
    piece = b"x" * 65536
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
    writer.write((head % size).encode())
    while SEEN["flooded"] < size:
        writer.write(piece[: size - SEEN["flooded"]])
        await writer.drain()
        SEEN["flooded"] += min(len(piece), size - SEEN["flooded"])


async def think(reader: asyncio.StreamReader, seconds: float) -> bool:
    """Take some time; tell whether the one who asked is still there then."""
    SEEN["thinking"] += 1
    try:
        # Whoever asked says nothing more, so this ends early only when they leave.
        await asyncio.wait_for(reader.read(1), seconds)
    except TimeoutError:
        SEEN["finished"] += 1
        return True
    except ConnectionError:
        pass
    SEEN["left"] += 1
    return False


async def dashboard(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection to Hermes' dashboard."""
    while request := await read_request(reader):
        SEEN["dashboard"] += 1
        if "sec-websocket-key" in request[2]:
            await converse(reader, writer, request[2]["sec-websocket-key"])
            break
        writer.write(answer(json.dumps({"path": request[1]}).encode()))
        await writer.drain()
    writer.close()


async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
    """Serve a WebSocket: note what is said, and say all the while what time it is."""
    magic = key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(magic.encode(), usedforsecurity=False).digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    SEEN["sockets"] += 1
    telling = asyncio.create_task(tell_the_time(writer))
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while (heard := await read_frame(reader)) is not None:
            SEEN["frames"].append(heard)
    telling.cancel()
    SEEN["closed"] += 1


async def tell_the_time(writer: asyncio.StreamWriter) -> None:
    """Send a frame with the time, again and again."""
    with contextlib.suppress(ConnectionError):
        while True:
            said = b"%d" % time.monotonic_ns()
            writer.write(bytes([0x81, len(said)]) + said)
            await writer.drain()
            await asyncio.sleep(0.02)


async def read_frame(reader: asyncio.StreamReader) -> str | None:
    """Read one short text frame of a client; None for the end."""
    first, length = await reader.readexactly(2)
    mask = await reader.readexactly(4)
    masked = await reader.readexactly(length & 0x7F)
    if first & 0xF == 8:
        return None
    return bytes(byte ^ mask[n % 4] for n, byte in enumerate(masked)).decode()


async def main(socket: str, api_port: int, dashboard_port: int) -> None:
    """Serve the engine's socket, Hermes' API and its dashboard."""
    PORTS.update({"18789": api_port, "9119": dashboard_port})
    servers = [
        await asyncio.start_unix_server(engine, socket),
        await asyncio.start_server(hermes, "127.0.0.1", api_port, backlog=4096),
        await asyncio.start_server(dashboard, "127.0.0.1", dashboard_port, backlog=4096),
    ]
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))

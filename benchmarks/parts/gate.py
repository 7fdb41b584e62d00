# SPDX-License-Identifier: Apache-2.0
"""What the gate costs: the Worker beside a bare pass-through Worker with a Durable Object, before the same upstream.

Both run in one workerd and are asked in turn over one kept connection each, so that whatever else the machine does
hits both alike. HERMES_BENCH_SECONDS shortens the ten minutes of 200 streams.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import sys
import time
from pathlib import Path

from figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.standins.lone_worker import TOKEN, LoneWorker

REQUESTS = 3000
WARM = 300
CHUNKS = 1500
STREAMS = 200
EVERY = 0.25
SECONDS = int(os.environ.get("HERMES_BENCH_SECONDS", "600"))


def request(**body: object) -> bytes:
    """A chat request as bytes."""
    data = json.dumps({"model": "hermes", "messages": [], **body}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


class Client:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, data: bytes) -> float:
        """Milliseconds from sending a request to having its whole answer."""
        began = time.perf_counter()
        self.socket.sendall(data)
        seen = b""
        while not (seen.endswith(b"\r\n0\r\n\r\n") or complete(seen)):
            seen += self.socket.recv(65536)
        took = (time.perf_counter() - began) * 1000
        assert seen.startswith(b"HTTP/1.1 200"), seen[:200]
        return took

    def chunks(self, data: bytes) -> list[float]:
        """Milliseconds that each chunk of a stream was under way."""
        self.socket.sendall(data)
        delays: list[float] = []
        rest = b""
        while True:
            rest += self.socket.recv(65536)
            now = time.monotonic_ns()
            *events, rest = rest.split(b"\n\n")
            for event in events:
                sent = event.rpartition(b"data: ")[2]
                if sent == b"[DONE]":
                    while not rest.endswith(b"0\r\n\r\n"):
                        rest += self.socket.recv(65536)
                    return delays
                if sent.isdigit():
                    delays.append((now - int(sent)) / 1e6)


def complete(seen: bytes) -> bool:
    """Tell whether an answer with a length has arrived."""
    head, gap, body = seen.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return bool(gap) and len(body) >= int(line.partition(b":")[2])
    return False


def in_turn(worker: LoneWorker) -> tuple[list[float], list[float]]:
    """Milliseconds of requests through the gate, and through the bare Worker."""
    gate, bare = Client(worker.port), Client(worker.bare_port)
    asked = request()
    for _ in range(WARM):
        gate.ask(asked), bare.ask(asked)
    pairs = [(gate.ask(asked), bare.ask(asked)) for _ in range(REQUESTS)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def streamed(worker: LoneWorker) -> tuple[list[float], list[float]]:
    """Milliseconds of chunks through the gate, and through the bare Worker."""
    asked = request(stream=True, chunks=CHUNKS // 10, every=0.002)
    gate: list[float] = []
    bare: list[float] = []
    for _ in range(10):
        gate += Client(worker.port).chunks(asked)
        bare += Client(worker.bare_port).chunks(asked)
    return gate, bare


async def one_stream(port: int, chunks: int) -> bool:
    """Tell whether a stream came whole."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(stream=True, chunks=chunks, every=EVERY))
    seen = 0
    try:
        while line := await reader.readline():
            if line.startswith(b"data: [DONE]"):
                return seen == chunks
            seen += line.startswith(b"data: ")
        return False
    except OSError:
        return False
    finally:
        writer.close()


async def many_streams(worker: LoneWorker) -> tuple[int, list[float]]:
    """Streams that were lost or cut, and workerd's memory in MB while they ran."""
    memory: list[float] = []

    async def watch() -> None:
        while True:
            memory.append(worker.workerd.memory_info().rss / 1e6)
            await asyncio.sleep(max(0.5, SECONDS / 100))

    watching = asyncio.create_task(watch())
    chunks = max(4, int(SECONDS / EVERY))
    whole = await asyncio.gather(*(one_stream(worker.port, chunks) for _ in range(STREAMS)))
    watching.cancel()
    return whole.count(False), memory


def p99(samples: list[float]) -> float:
    return statistics.quantiles(samples, n=100)[98]


def added(name: str, gate: list[float], bare: list[float], goal: float) -> list[Figure]:
    """The difference of the medians, with the bare one as the baseline."""
    base = statistics.median(bare)
    value = statistics.median(gate) - base
    spread = statistics.quantiles(gate, n=4)[2] - statistics.quantiles(gate, n=4)[0]
    return [Figure(name, round(value, 3), "ms", goal, round(base, 3), round(spread, 3))]


def measure() -> list[Figure]:
    with LoneWorker() as worker:
        worker.call("POST", "/api/instance/wake")
        gate, bare = in_turn(worker)
        figures = added("request, added at the median", gate, bare, 0.3)
        tail = round(p99(gate) - p99(bare), 3)
        figures.append(Figure("request, added at p99", tail, "ms", 1.0, round(p99(bare), 3)))
        figures += added("streamed chunk, added at the median", *streamed(worker), 0.2)
        lost, memory = asyncio.run(many_streams(worker))
    quarter = len(memory) // 4
    early, late = (
        statistics.median(memory[quarter : 2 * quarter]),
        statistics.median(memory[-quarter:]),
    )
    figures += [
        Figure(f"of {STREAMS} streams for {SECONDS} s, lost or cut", lost, "streams", 0),
        Figure("memory at their end against their beginning", round(late / early, 3), "ratio", 1.1),
    ]
    return figures

# SPDX-License-Identifier: Apache-2.0
"""What the gate costs: the Worker beside a bare pass-through Worker with a Durable Object, before the same upstream.

Both run in one workerd and are asked in turn over one kept connection each, now one first and now the other, so that
whatever else the machine does hits both alike; what is added is the median of the differences of these pairs.
HERMES_BENCH_SECONDS shortens the ten minutes of 200 streams. At the end real Hermes shows how many it takes itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import time

from figure import Figure

from parts.checkout import Checkout, fresh_checkout
from tests.standins.lone_worker import TOKEN, LoneWorker

REQUESTS = 3000
WARM = 300
CHUNKS = 1500
STREAMS = 200
EVERY = 0.25
AT_HERMES = 50
SECONDS = int(os.environ.get("HERMES_BENCH_SECONDS", "600"))


def request(token: str = TOKEN, **body: object) -> bytes:
    """A chat request as bytes."""
    data = json.dumps({"model": "hermes", "messages": [{"content": "x"}], **body}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(data)}\r\n\r\n"
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
    through_gate: list[float] = []
    through_bare: list[float] = []
    for turn in range(REQUESTS):
        order = [(gate, through_gate), (bare, through_bare)]
        for client, samples in order if turn % 2 else reversed(order):
            samples.append(client.ask(asked))
    return through_gate, through_bare


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
    """Return what 99 of 100 samples are below."""
    return statistics.quantiles(samples, n=100)[98]


def added(name: str, gate: list[float], bare: list[float], goal: float) -> Figure:
    """The median of the differences of pairs, with their interquartile range; the bare median is the baseline."""
    differences = [one - other for one, other in zip(gate, bare, strict=True)]
    low, middle, high = statistics.quantiles(differences, n=4)
    base = round(statistics.median(bare), 3)
    return Figure(name, round(middle, 3), "ms", goal, base, round(high - low, 3))


async def first_piece(port: int, asked: bytes) -> float | None:
    """Seconds until a chat said its first word; None when it was refused or cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began, first = time.perf_counter(), None
    writer.write(asked)
    try:
        while line := await reader.readline():
            if first is None and b'"content": "' in line and b'"content": ""' not in line:
                first = time.perf_counter() - began
            if line.startswith(b"data: [DONE]"):
                return first
        return None
    except OSError:
        return None
    finally:
        writer.close()


def real_hermes(checkout: Checkout) -> list[Figure]:
    """How real Hermes behind the gate takes many chats at once: its own executor is the limit."""
    token = (checkout.state / "api_token").read_text().strip()

    async def at_once() -> list[float | None]:
        words = [f"Chat {n}" for n in range(AT_HERMES)]
        chats = [
            request(token, messages=[{"role": "user", "content": w}], stream=True) for w in words
        ]
        return await asyncio.gather(*(first_piece(checkout.port, chat) for chat in chats))

    seconds = asyncio.run(at_once())
    told = [one for one in seconds if one is not None]
    return [
        Figure(
            f"of {AT_HERMES} chats with real Hermes at once, lost",
            AT_HERMES - len(told),
            "chats",
            0,
        ),
        Figure.of("their first words", told, "s", 30),
    ]


def measure() -> list[Figure]:
    """Hold requests and streams through the Worker against those through a bare one."""
    with LoneWorker() as worker:
        worker.call("POST", "/api/instance/wake")
        gate, bare = in_turn(worker)
        figures = [added("request, added at the median", gate, bare, 0.3)]
        tail = round(p99(gate) - p99(bare), 3)
        figures.append(Figure("request, added at p99", tail, "ms", 1.0, round(p99(bare), 3)))
        figures.append(added("streamed chunk, added at the median", *streamed(worker), 0.2))
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
    with fresh_checkout() as checkout:
        checkout.make("deploy")
        figures += real_hermes(checkout)
    return figures

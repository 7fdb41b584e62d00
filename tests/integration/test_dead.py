# SPDX-License-Identifier: Apache-2.0
"""What a credential has opened ends with it, in a real workerd, whether the other side helps or not."""

from __future__ import annotations

import http.client
import random
import select
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest
from plays import wait_until

from tests.standins.lone_worker import TOKEN, LoneWorker

OLD = "the-token-that-was-replaced"
OVERLAP = 2
TRIES = 200
AT_ONCE = 40
CHANCE = random.Random(20261126)  # noqa: S311


@pytest.fixture(scope="module")
def worker() -> Iterator[LoneWorker]:
    with LoneWorker() as running:
        assert running.call("POST", "/api/instance/wake")[0] == 200
        yield running


class Visitor:
    """A client with a WebSocket of the dashboard; it heeds no closing frame, and leaves only when it is cut."""

    def __init__(self, worker: LoneWorker, credential: str) -> None:
        """credential: the header line that lets it in."""
        self.host = f"127.0.0.1:{worker.dashboard_port}"
        self.connection = socket.create_connection(("127.0.0.1", worker.dashboard_port), timeout=20)
        self.connection.sendall(
            f"GET /api/events HTTP/1.1\r\nHost: {self.host}\r\nOrigin: http://{self.host}\r\n"
            f"{credential}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        self.heard = b""
        while b"\r\n\r\n" not in self.heard:
            self.heard += self.connection.recv(1)
        self.status = int(self.heard.split(b" ", 2)[1])
        self.heard = b""

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def says(self, text: str) -> bool:
        """Send a frame; tell whether the connection took it."""
        with suppress(OSError):
            self.connection.sendall(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text.encode())
            return True
        return False

    def listens(self, size: int = 65536) -> bool:
        """Read once; tell whether there may be more."""
        with suppress(OSError):
            piece = self.connection.recv(size)
            self.heard += piece
            return bool(piece)
        return False

    def times(self) -> list[int]:
        """The times that Hermes told, of whole frames."""
        told, rest = [], self.heard
        while len(rest) >= 2 and len(rest) >= 2 + rest[1]:
            if rest[0] == 0x81:
                told.append(int(rest[2 : 2 + rest[1]]))
            rest = rest[2 + rest[1] :]
        return told


def sign_in(worker: LoneWorker) -> str:
    """Sign in to the dashboard; the header line of the session."""
    host = f"127.0.0.1:{worker.dashboard_port}"
    connection = http.client.HTTPConnection(host, timeout=20)
    headers = {
        "Origin": f"http://{host}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    connection.request("POST", "/login", urllib.parse.urlencode({"token": TOKEN}), headers)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 303
    return "Cookie: " + str(answer.headers["Set-Cookie"]).split(";")[0]


def sign_out(worker: LoneWorker, credential: str) -> None:
    host = f"127.0.0.1:{worker.dashboard_port}"
    connection = http.client.HTTPConnection(host, timeout=20)
    name, _colon, value = credential.partition(": ")
    connection.request("POST", "/auth/logout", headers={name: value, "Origin": f"http://{host}"})
    assert connection.getresponse().status == 303


def revoke(worker: LoneWorker, _credential: str) -> None:
    assert worker.call("POST", "/api/dashboard/sessions/revoke")[0] == 200


def talk(visitor: Visitor, stop: threading.Event) -> None:
    """Say the time all the while, from before the end until long after."""
    while not stop.is_set() and visitor.says(f"{time.monotonic_ns()}"):
        time.sleep(0.001)


def linger(visitor: Visitor, stop: threading.Event) -> None:
    """Say and read nothing."""
    stop.wait()


def dawdle(visitor: Visitor, stop: threading.Event) -> None:
    """Read some bytes now and then."""
    while not stop.is_set() and select.select([visitor.connection], [], [], 0.1):
        if not visitor.listens(7):
            return
        time.sleep(0.005)


MANNERS: list[Callable[[Visitor, threading.Event], None]] = [talk, linger, dawdle]


@pytest.mark.parametrize("end", [revoke, sign_out])
def test_nothing_passes_once_a_session_is_over(
    worker: LoneWorker, end: Callable[[LoneWorker, str], None]
) -> None:
    """In many tries with clients that ignore the end, read slowly or speak at that very moment."""
    for _ in range(TRIES // 2 // AT_ONCE + 1):
        end_among_visitors(worker, end)


def end_among_visitors(worker: LoneWorker, end: Callable[[LoneWorker, str], None]) -> None:
    credential = sign_in(worker)
    before = worker.seen()
    stop = threading.Event()
    with ExitStack() as stack:
        visitors = [stack.enter_context(Visitor(worker, credential)) for _ in range(AT_ONCE)]
        assert {one.status for one in visitors} == {101}, "those of before keep nobody out"
        threads = [
            threading.Thread(target=CHANCE.choice(MANNERS), args=(one, stop)) for one in visitors
        ]
        for thread in threads:
            thread.start()
        time.sleep(CHANCE.random() / 10)
        end(worker, credential)
        over = time.monotonic_ns()
        for one in visitors:
            one.says(f"{time.monotonic_ns()}")
        closed = before["closed"] + AT_ONCE
        wait_until(lambda: worker.seen()["closed"] == closed, "Hermes' ends close")
        stop.set()
        for thread in threads:
            thread.join()
        for one in visitors:
            while one.listens():
                pass
        assert [told for one in visitors for told in one.times() if told > over] == []
    said = [int(one) for one in worker.seen()["frames"][len(before["frames"]) :]]
    assert [at for at in said if at > over] == []


class Reader:
    """Reads an answer that streams; `ended` is set when it is cut."""

    def __init__(self, worker: LoneWorker, token: str, path: str, body: str = "") -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=20)
        method = "POST" if body else "GET"
        self.connection.request(method, path, body, {"Authorization": f"Bearer {token}"})
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200
        self.size = 0
        self.ended = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(OSError, http.client.HTTPException):
            while piece := self.answer.read1():
                self.size += len(piece)
        self.ended.set()


def grows(*readers: Reader) -> bool:
    """Tell whether all of them hear more."""
    before = [one.size for one in readers]
    wait_until(
        lambda: all(one.size > n for one, n in zip(readers, before, strict=True)), "they go on"
    )
    return not any(one.ended.is_set() for one in readers)


def test_what_a_token_has_open_ends_with_it() -> None:
    """Sockets, followed logs and answers that stream; what its successor has open goes on."""
    variables = {"API_TOKEN_PREVIOUS": OLD, "HERMES_TOKEN_OVERLAP": f"{OVERLAP}s"}
    chat = '{"messages": [{"content": "x"}], "stream": true, "chunks": 3000, "every": 0.02}'
    with LoneWorker(**variables) as worker, ExitStack() as stack:
        as_before = {"Authorization": f"Bearer {OLD}"}
        assert worker.call("POST", "/api/instance/wake", **as_before)[0] == 200

        def opened(token: str) -> tuple[list[Reader], Visitor]:
            readers = [
                Reader(worker, token, "/api/instance/logs?follow=1"),
                Reader(worker, token, "/v1/chat/completions", chat),
            ]
            return readers, stack.enter_context(Visitor(worker, f"Authorization: Bearer {token}"))

        old, old_socket = opened(OLD)
        assert grows(*old), "before the new token is used the old one has no end"
        new, new_socket = opened(TOKEN)
        wait_until(lambda: all(one.ended.is_set() for one in old), "they end with the token")
        while old_socket.listens():
            pass
        old_socket.says("from the dead")
        assert grows(*new)
        assert new_socket.listens()
        new_socket.says("alive")
        wait_until(lambda: worker.seen()["frames"] == ["alive"], "who may speak is heard")
        assert worker.call("GET", "/api/health", **as_before)[0] == 401

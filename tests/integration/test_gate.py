# SPDX-License-Identifier: Apache-2.0
"""The real Worker in a real workerd under attack, over raw sockets: who is not let in reaches nothing."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import socket
import struct
import urllib.parse
from collections.abc import Iterator

import pytest
from plays import wait_until

from tests.standins.lone_worker import TOKEN, LoneWorker, as_many_sockets_as_supervised

SOCKETS = 2000
WEBSOCKET = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
BEARER = f"Authorization: Bearer {TOKEN}\r\n"
PUBLIC = (b"A private Hermes agent behind an OpenAI-compatible API.", b"<h1>Sign in to lone</h1>")
CANARY = "canary-8c1d-must-not-be-seen"


@pytest.fixture(scope="module")
def worker() -> Iterator[LoneWorker]:
    variables = {"HERMES_DASHBOARD_HOSTNAME": "dash.example", "HERMES_SECRETS": ""}
    with LoneWorker(**variables) as running:
        yield running


@pytest.fixture
def awake(worker: LoneWorker) -> LoneWorker:
    assert worker.call("POST", "/api/instance/wake")[0] == 200
    return worker


def say(port: int, request: str | bytes, timeout: float = 10) -> bytes:
    """Send bytes as they are; return the first answer, or b"" when there is none."""
    data = request.encode("latin-1") if isinstance(request, str) else request
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        seen = b""
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
            while not is_whole(seen) and (piece := connection.recv(65536)):
                seen += piece
        return seen


def is_whole(answer: bytes) -> bool:
    """Tell whether an answer is there up to the length that its head announces."""
    head, gap, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"^content-length: (\d+)", head, re.IGNORECASE | re.MULTILINE)
    return bool(gap) and len(body) >= int(length[1] if length else 0)


def status(answer: bytes) -> int:
    """The status of an answer; 0 when the connection was closed without one."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def get(target: str, *lines: str, host: str = "127.0.0.1", method: str = "GET") -> str:
    """A request without a body. lines: further header lines, each with its end."""
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{''.join(lines)}\r\n"


CHUNKED = "Transfer-Encoding: chunked\r\n"
INNER = get("/v1/models")
STRANGE = {
    "absolute form": get("http://127.0.0.1/v1/models"),
    "absolute form of the dashboard": get("http://dash.example/api/sessions", host="127.0.0.1"),
    "another scheme": get("file:///v1/models"),
    "authority form": get("127.0.0.1:80"),
    "asterisk form": get("*", method="OPTIONS"),
    "two slashes": get("//v1/models"),
    "two slashes and a host": get("//127.0.0.1/v1/models"),
    "an encoded dot": get("/%2e%2e/v1/models"),
    "a way out of the public page": get("/login/%2e%2e/api/sessions"),
    "dots": get("/login/../api/sessions"),
    "another case": get("/V1/MODELS"),
    "a semicolon": get("/login;/v1/models"),
    "a NUL": get("/login%00/v1/models"),
    "a backslash": get("\\v1\\models"),
    "a space": get("/login /v1/models"),
    "a fragment": get("/login#/v1/models"),
    "the token in the query": get(f"/v1/models?token={TOKEN}&api_key={TOKEN}"),
    "no host": "GET /v1/models HTTP/1.1\r\n\r\n",
    "two hosts": get("/v1/models", "Host: dash.example\r\n"),
    "a broken host": get("/v1/models", host="[bad"),
    "a host with a path": get("/models", host="x/v1/..?"),
    "an old protocol": "GET /v1/models HTTP/1.0\r\n\r\n",
    "a new protocol": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an upgrade to it": get("/v1/models", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
    "bare line feeds": "GET /v1/models HTTP/1.1\nHost: x\n\n",
    "a folded header": get("/v1/models", f"X: a\r\n  {BEARER}"),
    "a NUL in a header": get("/v1/models", "X: a\0b\r\n"),
    "an unknown method": get("/v1/models", BEARER, method="STEAL"),
    "a lower-case method": get("/v1/models", BEARER, method="get"),
    "a header of a million bytes": get("/v1/models", f"X: {'a' * 1_000_000}\r\n", BEARER),
    "a target of a million bytes": get("/" + "a" * 1_000_000, BEARER),
    "five thousand headers": get("/v1/models", *(f"x{n}: 1\r\n" for n in range(5000))),
    "two lengths": get(
        "/v1/runs/x/stop", BEARER, "Content-Length: 0\r\nContent-Length: 60\r\n", method="POST"
    )
    + INNER,
    "lengths in a list": get("/v1/runs/x/stop", BEARER, "Content-Length: 0, 60\r\n", method="POST")
    + INNER,
    "a length with a sign": get("/v1/runs/x/stop", BEARER, "Content-Length: +5\r\n", method="POST")
    + "hello",
    "an unknown coding": get(
        "/v1/runs/x/stop", BEARER, "Transfer-Encoding: xchunked\r\n", method="POST"
    ),
    "a coding after another": get(
        "/v1/runs/x/stop", BEARER, "Transfer-Encoding: chunked, identity\r\n", method="POST"
    ),
    "a space before a colon": get(
        "/v1/runs/x/stop", BEARER, "Transfer-Encoding : chunked\r\n", method="POST"
    ),
    "a chunk longer than numbers": get("/login", CHUNKED, method="POST") + "f" * 17 + "\r\n",
    "a WebSocket to the API": get("/v1/models", WEBSOCKET),
    **{
        f"a WebSocket to {path}": get(path, WEBSOCKET, f"Origin: http://{host}\r\n", host=host)
        for path in ("/api/ws", "/api/pty", "/api/console", "/api/events", "/api/pub", "/")
        for host in ("dash.example",)
    },
}


@pytest.mark.parametrize("request_", STRANGE.values(), ids=STRANGE.keys())
def test_nothing_strange_reaches_the_sandbox(worker: LoneWorker, request_: str) -> None:
    before = worker.seen()
    for port in (worker.port, worker.dashboard_port):
        answer = say(port, request_)
        refused = status(answer) in (0, 303) or status(answer) >= 400
        assert refused or any(page in answer for page in PUBLIC), answer[:200]
    after = worker.seen()
    assert after == before, "it arrived somewhere, or woke it"


@pytest.mark.parametrize("to", ["127.0.0.1:22", "127.0.0.1:18789"])
def test_a_tunnel_leads_nowhere(worker: LoneWorker, to: str) -> None:
    before, logged = worker.seen(), worker.log()
    for port in (worker.port, worker.dashboard_port):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(get(to, BEARER, method="CONNECT").encode() + INNER.encode())
            answer = b""
            with contextlib.suppress(ConnectionError):
                while piece := connection.recv(65536):
                    answer += piece
        head, _gap, body = answer.partition(b"\r\n\r\n")
        assert status(head) != 500
        assert body == b"", "it ends where it began"
    assert worker.seen() == before
    assert worker.log() == logged, "and nothing is written for whoever asks"


BODIES = {
    "no body": ("", ""),
    "a length of nothing": ("Content-Length: 0\r\n", ""),
    "chunks of nothing": (CHUNKED, "0\r\n\r\n"),
    "a body": ("Content-Length: 2\r\n", "{}"),
    "a body in chunks": (CHUNKED, "2\r\n{}\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_any_body_is_served_with_any_method(
    awake: LoneWorker, method: str, body: tuple[str, str]
) -> None:
    lines, data = body
    served = {"POST": "/v1/runs/x/stop", "DELETE": "/v1/responses/x"}.get(method, "/v1/toolsets")
    answers = {"OPTIONS": 204, "HEAD": 405, "PUT": 405, "PATCH": 405}.get(method, 200)
    for port, path, right in (
        (awake.port, served, answers),
        (awake.dashboard_port, "/api/x", 200),
    ):
        request = get(path, BEARER, lines, "Connection: close\r\n", method=method) + data
        assert status(say(port, request)) == right


def test_what_follows_an_ambiguous_body_is_no_request_of_its_own(awake: LoneWorker) -> None:
    """The length and the chunks disagree: whoever stands in front may believe the other one."""
    before = awake.seen()["requests"]
    both = get("/v1/runs/x/stop", BEARER, "Content-Length: 6\r\n", CHUNKED, method="POST")
    with socket.create_connection(("127.0.0.1", awake.port), timeout=10) as connection:
        connection.sendall((both + "0\r\n\r\n" + get("/v1/models", BEARER)).encode())
        seen = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                seen += piece
    assert seen.count(b"HTTP/1.1") == 1, "one answer, then the connection is over"
    assert awake.seen()["requests"] - before <= 1


def test_a_strange_host_is_told_so(worker: LoneWorker) -> None:
    answer = say(worker.port, get("/", host="[bad"))
    assert status(answer) == 400
    assert b"bad_address" in answer


def connections(worker: LoneWorker, number: int) -> Iterator[socket.socket]:
    """Open connections that say nothing, half a request, half a form, or ask for a WebSocket, in turn."""
    halves = (
        (worker.port, ""),
        (worker.port, get("/v1/models", "X: ")[:-4]),
        (worker.dashboard_port, get("/login", "Content-Length: 999\r\n", method="POST") + "token="),
        (worker.dashboard_port, get("/api/ws", WEBSOCKET, "Origin: http://127.0.0.1\r\n")),
    )
    for n in range(number):
        port, text = halves[n % len(halves)]
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        connection.sendall(text.encode())
        yield connection


@pytest.fixture
def many_files() -> Iterator[None]:
    """More open files than a shell permits its programs."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    as_many_sockets_as_supervised()
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_files")
def test_two_thousand_sockets_lock_nobody_out(worker: LoneWorker) -> None:
    starts, before = worker.seen()["starts"], worker.memory()
    with contextlib.ExitStack() as stack:
        for connection in connections(worker, SOCKETS):
            stack.enter_context(connection)
        assert worker.call("GET", "/api/health")[0] == 200, "the owner is served meanwhile"
        assert worker.memory() - before < 150, "MB"
    assert worker.seen()["starts"] == starts
    assert worker.call("GET", "/api/health")[0] == 200


@pytest.mark.usefixtures("many_files")
def test_waves_of_silent_sockets_leave_nothing_behind(worker: LoneWorker) -> None:
    def wave() -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(SOCKETS):
                stack.enter_context(socket.create_connection(("127.0.0.1", worker.port), 10))
            assert worker.call("GET", "/api/health")[0] == 200

    wave()
    before = worker.memory()
    for _ in range(4):
        wave()
    assert worker.memory() - before < 40, "MB"


def test_a_flood_of_wrong_tokens_wakes_nobody_and_locks_nobody_out(worker: LoneWorker) -> None:
    starts, before, logged = worker.seen()["starts"], worker.memory(), len(worker.log())
    with socket.create_connection(("127.0.0.1", worker.port), timeout=30) as connection:
        codes: set[int] = set()
        answers = connection.makefile("rb")
        for n in range(2000):
            connection.sendall(get("/v1/models", f"Authorization: Bearer wrong-{n}\r\n").encode())
            codes.add(status(answers.readline()))
            length = 0
            while (line := answers.readline()) not in (b"\r\n", b""):
                name, _colon, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            answers.read(length)
    assert codes == {401, 429}
    assert worker.call("GET", "/api/health")[0] == 200, (
        "the right token passes from the same address"
    )
    assert worker.seen()["starts"] == starts
    assert worker.memory() - before < 60, "MB"
    lines = [line for line in worker.log()[logged:].splitlines() if '"/v1/models"' in line]
    assert 20 <= len(lines) < 100, "a line for each would fill the disk"


def test_a_flood_of_strangers_leaves_the_log_to_the_owner() -> None:
    """Whatever is wrong with what they send: older lines must not be pushed out."""
    strange = [
        get("/v1/models"),
        get("/v1/models", "Authorization: Bearer wrong\r\n"),
        get("/api/sessions", host="dash.example"),
        get("/", "Cookie: hermes-lone=x\r\n", host="dash.example"),
        get("/login", host="dash.example"),
        get("/"),
        get("/login", "Origin: http://evil.example\r\n", host="dash.example", method="POST"),
        get("/", host="[bad"),
        get("127.0.0.1:22", method="CONNECT"),
    ]
    with LoneWorker(HERMES_DASHBOARD_HOSTNAME="dash.example") as worker:
        for request in strange * 100:
            say(worker.port, request)
        assert worker.call("GET", "/api/health")[0] == 200
        wait_until(lambda: '"/api/health"' in worker.log(), "the owner's request is logged")
        assert len(worker.log().splitlines()) < 200


def ask(worker: LoneWorker, **body: object) -> socket.socket:
    """Ask for a chat and do not read the answer."""
    data = json.dumps({"model": "hermes", "messages": [{"content": "x"}], **body}).encode()
    head = get(
        "/v1/chat/completions",
        BEARER,
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n",
        method="POST",
    )
    connection = socket.create_connection(("127.0.0.1", worker.port), timeout=30)
    connection.sendall(head.encode() + data)
    return connection


def test_a_reader_who_does_not_read_stops_the_writer(awake: LoneWorker) -> None:
    size, before = 300_000_000, awake.memory()
    with ask(awake, flood=size):
        sent = -1

        def is_stuck() -> bool:
            nonlocal sent
            last, sent = sent, awake.seen()["flooded"]
            return last == sent > 0

        wait_until(is_stuck, "the writer waits for its reader")
        assert sent < size / 5
        assert awake.memory() - before < 60, "MB"


def leave(connection: socket.socket) -> None:
    """Cut a connection. workerd notices a polite end only when it writes; a reset it notices at once."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


THINKING = {"think": 3}
SPEAKING = {"stream": True, "chunks": 30, "every": 0.1}


def count(worker: LoneWorker, *names: str) -> int:
    """How often the sandbox saw some things happen, in all."""
    seen = worker.seen()
    return sum(seen[name] for name in names)


def in_flight(worker: LoneWorker) -> int:
    return int(json.loads(worker.call("GET", "/api/instance/status")[2])["requestsInFlight"])


def leave_in_the_middle(worker: LoneWorker, **chat: object) -> None:
    """Ask for a chat and go away while Hermes is at it."""
    begun = count(worker, "thinking", "streams")
    connection = ask(worker, **chat)
    wait_until(lambda: count(worker, "thinking", "streams") > begun, "Hermes works on it")
    leave(connection)


@pytest.mark.parametrize("chat", [THINKING, SPEAKING], ids=["before", "during"])
def test_hermes_sees_at_once_that_a_client_left(awake: LoneWorker, chat: dict[str, object]) -> None:
    finished, gone = count(awake, "finished"), count(awake, "left", "cut")
    leave_in_the_middle(awake, **chat)
    wait_until(lambda: count(awake, "left", "cut") > gone, "Hermes sees it")
    assert count(awake, "finished") == finished
    wait_until(lambda: in_flight(awake) == 0, "it counts as over")


def test_a_turn_is_finished_without_its_client_where_that_is_wanted() -> None:
    with LoneWorker(HERMES_ON_DISCONNECT="finish") as worker:
        worker.call("POST", "/api/instance/wake")
        leave_in_the_middle(worker, think=1)
        leave_in_the_middle(worker, **SPEAKING)
        wait_until(lambda: count(worker, "finished") == 2, "Hermes is through")
        assert count(worker, "left", "cut") == 0
        wait_until(lambda: in_flight(worker) == 0, "they count as over")


def test_no_canary_gets_into_the_log() -> None:
    """Secrets of the Worker and of its callers, wherever a request may carry them."""
    secret = f'{CANARY}"quoted\\and/more'
    with LoneWorker(HERMES_SECRETS=json.dumps({"TELEGRAM_BOT_TOKEN": secret})) as worker:
        worker.call("POST", "/api/instance/wake")
        worker.call("GET", f"/v1/models?key={CANARY}")
        worker.call("GET", "/v1/models", **{"X-Api-Key": CANARY, "Cookie": f"hw_token={CANARY}"})
        worker.call("GET", "/v1/" + urllib.parse.quote(secret, safe=""))
        worker.call("POST", "/v1/chat/completions", {"messages": [{}], "key": CANARY})
        form = (
            f'--x\r\nContent-Disposition: form-data; name="token"\r\n\r\n{CANARY}\r\n'
            f'--x\r\nContent-Disposition: form-data; name="f"; filename="{CANARY}"\r\n\r\n\r\n--x--\r\n'
        )
        kind = f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len(form)}\r\n"
        for port in (worker.port, worker.dashboard_port):
            say(port, get("/v1/runs", BEARER, kind, method="POST") + form)
            say(port, get("/login", kind, method="POST") + form)
            say(port, get("/v1/models", f"Authorization: Bearer {CANARY}\r\n"))
            say(port, get("/", f"Authorization: Basic {CANARY}\r\n"))
        lines = [json.loads(line) for line in worker.log().splitlines()]
        assert len([line for line in lines if line["event"] == "request"]) >= 12
        assert CANARY not in worker.log()
        assert TOKEN not in worker.log()
        for line in lines:
            assert {"time", "level", "event"} <= line.keys()

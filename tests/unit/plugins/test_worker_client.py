# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Both ways to a Worker, on this machine and at an https address, do the same."""

from __future__ import annotations

import hmac
import itertools
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.hermes.workers.plugins.module_utils import worker_client
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import (
    Answer,
    Owner,
    RemoteClient,
    Unreachable,
    WorkerClient,
)
from api_server import ApiServer, Call, Reply

TOKEN = "hw_canary-token-5b0c"


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as made:
        made.holds = TOKEN
        yield made


@pytest.fixture(params=["here", "https"])
def client(request: pytest.FixtureRequest, server: ApiServer) -> WorkerClient:
    """Return a client of each kind; the https one is led to the server without TLS."""
    port = server.server_address[1]
    if request.param == "here":
        return WorkerClient(port, TOKEN)
    remote = RemoteClient("hermes.example", TOKEN)
    assert remote.url == "https://hermes.example"
    remote.url = f"http://127.0.0.1:{port}"
    return remote


def refusal(status: int) -> Reply:
    return Reply(status, {"error": {"message": "This is\n not done."}})


def test_an_answer_is_read_whole(client: WorkerClient, server: ApiServer) -> None:
    server.script = [Reply(200, {"a": 1}, {"X-Request-Id": "r1"}), refusal(409)]
    answer = client.request("POST", "/api/x?force=true", {"b": 2})
    assert (answer.status, answer.json(), answer.headers["x-request-id"]) == (200, {"a": 1}, "r1")
    call = server.calls[0]
    assert (call.method, call.path, call.query) == ("POST", "/api/x", {"force": "true"})
    assert call.body == {"b": 2}
    refused = client.request("GET", "/api/x")
    assert (refused.status, refused.complaint()) == (409, "This is not done.")


def test_a_network_that_is_gone_is_found_out_long_before_a_silent_worker_is(
    server: ApiServer,
) -> None:
    """A play waits for a change for up to an hour: the system asks meanwhile whether anybody is there."""
    client = remote(server)
    server.script = [Reply(200, {})]
    with client._call("GET", "/api/x", None, None, None, stream=True) as answer:
        used = answer.raw.connection.sock
        assert used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        options = [getattr(socket, f"TCP_KEEP{name}") for name in ("IDLE", "INTVL", "CNT")]
        idle, between, times = (used.getsockopt(socket.IPPROTO_TCP, one) for one in options)
    assert idle + between * times <= 180


def test_a_backup_travels_both_ways(client: WorkerClient, server: ApiServer) -> None:
    content = b'{"format": 1}\n' + bytes(range(256)) * 8192
    server.script = [Reply(200, {"backup": {"id": 4}}), Reply(200, content)]
    answer = client.upload("/api/instance/backups", content, 5.0)
    assert (answer.status, answer.json()) == (200, {"backup": {"id": 4}})
    assert (server.calls[0].method, server.calls[0].content) == ("PUT", content)
    pieces: list[bytes] = []
    assert client.download("/api/instance/backups/4", pieces.append, 5.0).status == 200
    assert b"".join(pieces) == content


def test_a_refused_backup_has_its_reason(client: WorkerClient, server: ApiServer) -> None:
    server.script = [refusal(400), refusal(404)]
    answer = client.upload("/api/instance/backups", b"x", 5.0)
    assert (answer.status, answer.complaint()) == (400, "This is not done.")
    pieces: list[bytes] = []
    answer = client.download("/api/instance/backups/9", pieces.append, 5.0)
    assert (answer.status, answer.complaint(), pieces) == (404, "This is not done.", [])


def test_a_stream_that_only_says_that_it_waits_ends(
    client: WorkerClient, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No silence ends it, for it is never silent."""
    waits, clock = b": Hermes is on its way\n\n", itertools.count(step=100.0)
    server.script = [Reply(200, waits * 20 + b"data: late\n\n")]
    monkeypatch.setattr(worker_client, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    seen = []
    with pytest.raises(Unreachable, match="no end after 900 s"):
        seen += [item for _seconds, item in client.stream("/v1/chat/completions", {}, 900)]
    assert "late" not in seen


def test_a_stream_tells_its_events(client: WorkerClient, server: ApiServer) -> None:
    server.script = [Reply(200, b": waking\n\ndata: one\n\ndata: [DONE]\n\n"), refusal(503)]
    head, *events = [item for _seconds, item in client.stream("/v1/chat/completions", {})]
    assert (head.status, events) == (200, ["one", "[DONE]"])
    (refused,) = [item for _seconds, item in client.stream("/v1/chat/completions", {})]
    assert (refused.status, refused.complaint()) == (503, "This is not done.")


def test_the_token_travels_in_a_header_whatever_a_netrc_says(
    client: WorkerClient, server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.script = [Reply(200, {})]
    client.request("GET", "/api/health")
    call = server.calls[0]
    assert call.headers["authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in str((call.path, call.query, call.content))


def test_a_redirect_does_not_take_the_token_elsewhere(
    client: WorkerClient, server: ApiServer
) -> None:
    server.script = [Reply(302, {}, {"Location": "/elsewhere"})]
    assert client.request("GET", "/api/health").status == 302
    assert [call.path for call in server.calls] == ["/api/health"]


def test_a_cut_connection_is_told_as_one(
    client: WorkerClient, server: ApiServer, tmp_path: Path
) -> None:
    (tmp_path / "backup").write_bytes(b"x")
    server.answer = lambda _call: Reply(drop=True)
    with pytest.raises(Unreachable):
        client.request("POST", "/api/x", {})
    with pytest.raises(Unreachable):
        list(client.stream("/v1/chat/completions", {}))
    with pytest.raises(Unreachable):
        client.download("/api/instance/backups/4", lambda _piece: None, 5.0)
    with (tmp_path / "backup").open("rb") as file, pytest.raises(Unreachable):
        client.upload("/api/instance/backups", file, 5.0)


def remote(server: ApiServer, host: str = "127.0.0.1") -> RemoteClient:
    made = RemoteClient("hermes.example", TOKEN)
    made.url = f"http://{host}:{server.server_address[1]}"
    return made


def lying(nonce: str) -> Reply:
    """What a Worker of somebody else says that wants the token."""
    right_elsewhere = hmac.new(TOKEN.encode(), f"alice.acme.workers.dev {nonce}".encode(), "sha256")
    return Reply(200, {"proofs": [right_elsewhere.hexdigest(), "0" * 64, "", None], "status": "ok"})


ANOTHERS: dict[str, Callable[[Call], Reply]] = {
    "says yes to everything": lambda call: lying(call.query.get("nonce", "")),
    "passes the question on": lambda call: lying(call.query.get("nonce", "")),
    "a list": lambda _call: Reply(200, [1]),
    "a page": lambda _call: Reply(200, b"<html>hello</html>"),
    "no proofs": lambda _call: Reply(200, {"proofs": {}}),
    "a redirect": lambda _call: Reply(302, {}, {"Location": "/elsewhere"}),
    "not found": lambda _call: Reply(404, b"error code: 1042"),
    "unauthorized": lambda _call: Reply(401, {}),
}


@pytest.mark.parametrize("what", ANOTHERS)
def test_no_token_goes_to_an_address_that_is_not_proved_to_be_ours(
    what: str, tmp_path: Path
) -> None:
    (tmp_path / "backup").write_bytes(b"x")
    with ApiServer(ANOTHERS[what]) as server:
        client = remote(server)
        got: list[bytes] = []
        with (tmp_path / "backup").open("rb") as file:
            answers = [
                client.request("POST", "/api/instance/sleep", {}),
                client.upload("/api/instance/backups", file, 5.0),
                client.download("/api/instance/backups/1", got.append, 5.0),
                next(client.stream("/v1/chat/completions", {"messages": ["private"]}))[1],
            ]
        assert all(answer.status in (401, 404) for answer in answers)
        assert got == []
        assert {call.path for call in server.calls} == {"/api/identity"}
        assert all("authorization" not in call.headers for call in server.calls)
        assert TOKEN not in str(server.calls)
        if what != "not found":
            assert answers[0].status == 401
        assert client.owner() is Owner.ANOTHER


def test_whoever_proves_it_gets_the_token_and_is_asked_once(server: ApiServer) -> None:
    server.script = [Reply(200, {}), Reply(200, {})]
    client = remote(server)
    assert client.owner() is Owner.OURS
    assert client.request("GET", "/api/health").status == 200
    assert client.request("GET", "/api/health").status == 200
    assert [call.headers["authorization"] for call in server.calls] == [f"Bearer {TOKEN}"] * 2


def test_a_worker_that_changes_hands_proves_itself_to_each_client(server: ApiServer) -> None:
    server.holds = "another-worker's-token"
    answer = remote(server).request("GET", "/api/health")
    assert (answer.status, server.calls) == (401, [])
    assert answer.complaint() == "You do not hold this token."


def test_nobody_is_nobody(server: ApiServer) -> None:
    client = remote(server)
    server.holds = ""
    server.answer = lambda _call: Reply(530, b"error code: 1016")
    assert client.owner() is Owner.NOBODY
    server.answer = lambda _call: Reply(drop=True)
    assert client.owner() is Owner.NOBODY
    server.answer = lambda _call: Reply(200, {})
    open_to_all = RemoteClient("hermes.example", None)
    open_to_all.url = client.url
    assert open_to_all.owner() is Owner.OURS, "without a token there is none to lose"


@pytest.mark.parametrize("body", [b"", b"<html>", b"null", b"[1]", b'"text"', b"{", b"\xff"])
def test_what_a_stranger_answers_is_an_answer_that_says_nothing(body: bytes) -> None:
    """Another program may hold the port, or another Worker the hostname."""
    answer = Answer(200, {}, body)
    assert answer.json() == {}
    assert answer.complaint()

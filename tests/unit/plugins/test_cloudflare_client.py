# SPDX-License-Identifier: Apache-2.0
"""The client of Cloudflare's API: what it asks again, what it never sends twice, and what it tells."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import client as cloudflare
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import (
    Cloudflare,
    CloudflareError,
)
from api_server import NO_WORKER, ApiServer, Reply, ok, refused

TOKEN = "canary-token-0123456789"  # gitleaks:allow
ACCOUNT = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as running:
        yield running


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the client wanted to make; none is made."""
    wanted: list[float] = []
    monkeypatch.setattr(cloudflare.time, "sleep", wanted.append)
    return wanted


@pytest.fixture
def client(server: ApiServer, pauses: list[float]) -> Cloudflare:
    return Cloudflare(TOKEN, ACCOUNT, server.url)


def test_the_result_is_unwrapped_and_the_token_sent(client: Cloudflare, server: ApiServer) -> None:
    server.script = [ok({"id": "w"})]
    assert client.get(client.account("workers/services/w"), exact=True, none=None) == {"id": "w"}
    call = server.calls[0]
    assert call.path == f"/accounts/{ACCOUNT}/workers/services/w"
    assert call.query == {"exact": "true"}
    assert call.headers["authorization"] == f"Bearer {TOKEN}"


def test_a_netrc_does_not_replace_the_token(
    client: Cloudflare, server: ApiServer, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.script = [ok()]
    client.get("/user/tokens/verify")
    assert server.calls[0].headers["authorization"] == f"Bearer {TOKEN}"


def test_a_refusal_has_its_codes_words_and_remedy(client: Cloudflare, server: ApiServer) -> None:
    server.script = [NO_WORKER]
    with pytest.raises(CloudflareError) as caught:
        client.get("/accounts/a/workers/services/w")
    error = caught.value
    assert (error.status, error.codes, error.missing) == (404, [10007], True)
    assert error.message == (
        "Cloudflare answers: This Worker does not exist on your account. (code 10007)"
    )
    assert error.remedy == cloudflare.REMEDIES[10007]
    failure = error.failure()
    assert failure["code"] == 10007
    assert failure["details"]["path"] == "/accounts/a/workers/services/w"


def test_a_success_status_with_a_refusal_inside_is_a_refusal(
    client: Cloudflare, server: ApiServer
) -> None:
    server.script = [Reply(200, {"success": False, "errors": [{"code": 7, "message": "no"}]})]
    with pytest.raises(CloudflareError, match="no"):
        client.get("/x")


def test_a_page_that_is_no_answer_of_the_api_is_told_by_its_status(
    client: Cloudflare, server: ApiServer
) -> None:
    server.script = [Reply(200, b"<html>proxy</html>")]
    with pytest.raises(CloudflareError, match="HTTP 200"):
        client.get("/x")


@pytest.mark.parametrize("method", ["get", "put", "patch"])
def test_a_declared_state_is_sent_again_after_a_fault(
    client: Cloudflare, server: ApiServer, pauses: list[float], method: str
) -> None:
    server.script = [Reply(502, b"bad gateway"), Reply(drop=True), ok("there")]
    assert getattr(client, method)("/x") == "there"
    assert len(server.calls) == 3
    assert len(pauses) == 2


def test_what_is_made_anew_is_sent_once(client: Cloudflare, server: ApiServer) -> None:
    for fault in (Reply(502), Reply(drop=True)):
        server.script, server.calls = [fault, ok()], []
        with pytest.raises(CloudflareError) as caught:
            client.post("/zones/z/dns_records", {"name": "a"})
        assert caught.value.uncertain
        assert len(server.calls) == 1


def test_what_may_be_made_twice_is_sent_again(client: Cloudflare, server: ApiServer) -> None:
    server.script = [Reply(502), ok("made")]
    assert client.post("/x", {}, repeatable=True) == "made"


def test_a_fault_that_lasts_is_told_in_the_end(client: Cloudflare, server: ApiServer) -> None:
    server.script = [Reply(503)] * 20
    with pytest.raises(CloudflareError) as caught:
        client.get("/x")
    assert caught.value.status == 503
    assert len(server.calls) == cloudflare.ATTEMPTS


def test_retry_after_is_obeyed_even_for_what_is_made_anew(
    client: Cloudflare, server: ApiServer, pauses: list[float]
) -> None:
    later = refused(429, 971, "Please wait", Retry_After="42")
    server.script = [later, later, ok("made")]
    assert client.post("/x", {}) == "made"
    assert pauses == [42.0, 42.0]


def test_nobody_is_kept_waiting_longer_than_a_whole_block(
    client: Cloudflare, server: ApiServer, pauses: list[float]
) -> None:
    server.script = [refused(429, 971, "Please wait", Retry_After="3600")]
    with pytest.raises(CloudflareError) as caught:
        client.get("/x")
    assert pauses == []
    assert "five minutes" in caught.value.remedy


def test_a_storm_of_refusals_is_outlasted(client: Cloudflare, server: ApiServer) -> None:
    server.script = [refused(429, 971, "wait", Retry_After="2")] * 20 + [ok("through")]
    assert client.get("/x") == "through"


def test_a_long_wait_is_announced(server: ApiServer, pauses: list[float]) -> None:
    lines: list[str] = []
    server.script = [refused(429, 971, "Please wait", Retry_After="42"), ok()]
    Cloudflare(TOKEN, ACCOUNT, server.url, tell=lines.append).get("/x")
    assert len(lines) == 1
    assert "Please wait" in lines[0] and "Cloudflare asks to wait 42 s" in lines[0]


@pytest.mark.usefixtures("pauses")
def test_a_wait_that_nobody_asked_for_is_not_laid_to_cloudflare(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cloudflare, "LONG", 0.0)
    lines: list[str] = []
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(CloudflareError):
        Cloudflare(TOKEN, base_url=url, tell=lines.append).get("/x")
    assert lines and all("no answer from" in line and "trying again in" in line for line in lines)
    assert not any("asks" in line for line in lines)


def test_a_deletion_whose_answer_was_lost_is_a_deletion(
    client: Cloudflare, server: ApiServer
) -> None:
    server.script = [Reply(drop=True), NO_WORKER]
    assert client.delete("/x") is True
    server.script = [NO_WORKER]
    assert client.delete("/x") is False


def test_lists_are_read_to_their_end(client: Cloudflare, server: ApiServer) -> None:
    server.script = [ok([1, 2], page=1, total_pages=2), ok([3], page=2, total_pages=2)]
    assert list(client.pages("/zones", per_page=2)) == [1, 2, 3]
    assert [call.query["page"] for call in server.calls[1:]] == ["2"]
    server.script = [ok([1], cursors={"after": "next"}), ok([2], cursors={"after": ""})]
    assert list(client.pages("/x")) == [1, 2]
    assert server.calls[-1].query["cursor"] == "next"
    server.script = [ok({"items": [1, 2]}, total_count=3), ok({"items": [3]}, total_count=3)]
    assert list(client.pages("/x", inside="items")) == [1, 2, 3]
    server.script = [ok([{"id": 1}])]
    assert list(client.pages("/x")) == [{"id": 1}], "without paging there is one page"


def test_a_merge_patch_is_named_so(client: Cloudflare, server: ApiServer) -> None:
    server.script = [ok()]
    client.patch("/x", {"secrets": {"A": None}}, merge=True)
    assert server.calls[0].headers["content-type"] == "application/merge-patch+json"
    assert server.calls[0].body == {"secrets": {"A": None}}


def test_an_upload_is_a_form(client: Cloudflare, server: ApiServer) -> None:
    server.script = [Reply(502), ok()]
    parts = {
        "metadata": (None, "{}", "application/json"),
        "index.js": ("index.js", b"export {}", "application/javascript+module"),
    }
    client.upload("PUT", "/x", parts, excludeScript=True)
    assert len(server.calls) == 2
    assert server.calls[1].query == {"excludeScript": "true"}
    assert b'name="index.js"; filename="index.js"' in server.calls[1].content


def test_no_secret_is_in_an_error(client: Cloudflare, server: ApiServer) -> None:
    client.hide("canary-key")
    server.script = [refused(400, 10021, f"bad value 'canary-key' by {TOKEN}")]
    with pytest.raises(CloudflareError) as caught:
        client.patch("/x", {"text": "canary-key"})
    shown = f"{caught.value} {caught.value.failure()} {caught.value.card('x').render()}"
    assert "canary" not in shown
    assert "10021" in shown


def test_a_token_without_rights_is_told_as_such(client: Cloudflare, server: ApiServer) -> None:
    server.script = [refused(403, 10000, "Authentication error", cf_ray="9d3e-FRA")]
    with pytest.raises(CloudflareError) as caught:
        client.get("/x")
    card = caught.value.card("cloudflare_api_token").render()
    assert card.startswith("cloudflare_api_token: Cloudflare answers: Authentication error")
    assert "ray 9d3e-FRA" in card
    assert "#cloudflare-token" in card


def test_no_answer_at_all_is_told_with_the_host(pauses: list[float]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(CloudflareError, match=r"no answer from 127\.0\.0\.1: .*refused") as caught:
        Cloudflare(TOKEN, base_url=f"http://127.0.0.1:{port}").post("/x")
    assert caught.value.status == 0
    assert len(pauses) == cloudflare.ATTEMPTS - 1, "what never arrived may be sent again"


@pytest.mark.parametrize(
    ("token", "base_url", "words"),
    [
        ("", cloudflare.BASE_URL, "empty"),
        ("canary\n", cloudflare.BASE_URL, "line break"),
        ("canary", "http://api.example/v4", "https://"),
        ("canary", "api.example", "https://"),
    ],
)
def test_what_cannot_work_is_refused_before_it_is_sent(
    token: str, base_url: str, words: str
) -> None:
    with pytest.raises(CloudflareError, match=words) as caught:
        Cloudflare(token, base_url=base_url)
    assert "canary" not in str(caught.value)


def test_a_missing_library_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloudflare, "requests", None)
    with pytest.raises(CloudflareError, match="requests is missing") as caught:
        Cloudflare(TOKEN)
    assert "make tools" in caught.value.remedy

# SPDX-License-Identifier: Apache-2.0
"""The official OpenAI clients speak to a deployment as to their maker's own API, and other clients as they are."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
import requests
from plays import ROOT, Deployment

from tests.standins.provider import Provider

TOOL_MODEL = "custom/stand-in"
QUESTION = {"role": "user", "content": "The cat is called Ada."}
CALL = {
    "role": "user",
    "content": 'call todo {"todos": [{"id": "1", "content": "feed Ada", "status": "pending"}]}',
}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider(key="sk-openai-client") as running:
        yield running


@pytest.fixture(scope="module")
def deployment(make_deployment: Callable[..., Deployment], provider: Provider) -> Deployment:
    """One with a second model, that calls a tool when it is told to."""
    made = make_deployment(
        "openai-client",
        custom_api_key=provider.key,
        hermes_default_model="rehearsal/rehearsal",
        hermes_models=[TOOL_MODEL],
        hermes_provider_base_url=provider.url + "/v1",
    )
    made.deploy()
    return made


@pytest.fixture
def client(deployment: Deployment) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{deployment.url}/v1", api_key=deployment.token) as made:
        yield made


def tool_results(provider: Provider) -> list[str]:
    """What Hermes' tools returned to the model, the last first."""
    asked = [seen.body["messages"] for seen in reversed(provider.seen) if seen.body]
    return [one["content"] for sent in asked for one in sent if one["role"] == "tool"]


def test_a_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="hermes", messages=[QUESTION])
    assert "The cat is called Ada." in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens > 0


def test_a_streamed_chat_comes_in_pieces(client: openai.OpenAI) -> None:
    options = {"include_usage": True}
    stream = client.chat.completions.create(
        model="hermes", messages=[QUESTION], stream=True, stream_options=options
    )
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    text = [piece for piece in pieces if piece]
    assert len(text) > 1
    assert "The cat is called Ada." in "".join(text)
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


def test_a_session_goes_on(client: openai.OpenAI) -> None:
    session = {"X-Hermes-Session-Id": "openai-client"}
    first = client.chat.completions.with_raw_response.create(
        model="hermes", messages=[QUESTION], extra_headers=session
    )
    assert first.headers["x-hermes-session-id"] == "openai-client"
    second = client.chat.completions.create(
        model="hermes",
        messages=[{"role": "user", "content": "What did I begin with?"}],
        extra_headers=session,
    )
    assert 'You began with: "The cat is called Ada."' in second.choices[0].message.content


def test_a_request_is_answered_once_under_its_key(
    client: openai.OpenAI, provider: Provider
) -> None:
    """The same again, as a client sends it that lost the answer."""
    again = {"Idempotency-Key": "once-and-only-once"}
    order = {"model": TOOL_MODEL, "messages": [QUESTION], "extra_headers": again}
    first = client.chat.completions.create(**order)
    asked = len(provider.seen)
    second = client.chat.completions.create(**order)
    assert second.choices[0].message.content == first.choices[0].message.content
    assert len(provider.seen) == asked, "the model was asked again"


def test_hermes_uses_its_tools_meanwhile(client: openai.OpenAI, provider: Provider) -> None:
    answer = client.chat.completions.create(model=TOOL_MODEL, messages=[CALL])
    assert answer.choices[0].message.content.startswith("The stand-in heard:")
    assert "feed Ada" in tool_results(provider)[0]


def test_a_stream_tells_of_tools_and_stays_readable(
    client: openai.OpenAI, provider: Provider
) -> None:
    provider.seen.clear()
    chunks = list(client.chat.completions.create(model=TOOL_MODEL, messages=[CALL], stream=True))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "The stand-in heard:" in text
    assert "feed Ada" in tool_results(provider)[0]


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.object for model in client.models.list()] != []


def test_a_wrong_key_is_an_authentication_error(deployment: Deployment) -> None:
    with (
        openai.OpenAI(base_url=f"{deployment.url}/v1", api_key="hw_wrong") as stranger,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        stranger.models.list()
    assert refused.value.code == "wrong_token"


def test_a_body_beyond_hermes_limit_is_refused_with_413(client: openai.OpenAI) -> None:
    large = {"role": "user", "content": "x" * (11 * 1024 * 1024)}
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model="hermes", messages=[large])
    assert refused.value.status_code == 413


def test_an_error_of_hermes_keeps_its_shape(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="hermes", messages=[])
    assert refused.value.type == "invalid_request_error"


@pytest.fixture(scope="module")
def javascript(deployment: Deployment) -> dict[str, Any]:
    """What came of everything that the client in JavaScript did."""
    finder = [sys.executable, str(ROOT / "requirements" / "node_path.py")]
    folder = subprocess.run(finder, capture_output=True, text=True, check=True).stdout.strip()
    script = ROOT / "worker" / "test" / "clients" / "openai.mjs"
    done = subprocess.run(
        [str(Path(folder) / "node"), str(script)],
        env={
            "PATH": os.defpath,
            "OPENAI_BASE_URL": f"{deployment.url}/v1",
            "OPENAI_API_KEY": deployment.token,
            "TOOL_MODEL": TOOL_MODEL,
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_javascript_chats(javascript: dict[str, Any]) -> None:
    chat, stream = javascript["chat"], javascript["stream"]
    for answer in (chat, stream):
        assert "The cat is called Ada." in answer["text"]
        assert answer["finish"] == "stop"
        assert answer["usage"]["total_tokens"] > 0
    assert stream["pieces"] > 1
    assert chat["headers"]["x-request-id"]


def test_javascript_goes_on_with_a_session(javascript: dict[str, Any]) -> None:
    assert javascript["first"]["headers"]["x-hermes-session-id"] == "openai-client-js"
    assert 'You began with: "The cat is called Ada."' in javascript["second"]["text"]


def test_javascript_gets_answers_that_took_tools(javascript: dict[str, Any]) -> None:
    for name in ("tools", "toolsStreamed"):
        assert "The stand-in heard:" in javascript[name]["text"]
        assert javascript[name]["finish"] == "stop"


def test_javascript_understands_refusals(javascript: dict[str, Any]) -> None:
    wrong, large, empty = (javascript[n] for n in ("wrongKey", "tooLarge", "noMessages"))
    assert (wrong["kind"], wrong["status"], wrong["code"]) == (
        "AuthenticationError",
        401,
        "wrong_token",
    )
    assert wrong["requestID"]
    assert (large["status"], large["code"]) == (413, "body_too_large")
    assert (empty["kind"], empty["type"]) == ("BadRequestError", "invalid_request_error")
    assert javascript["models"]
    assert javascript["left"] is True


# As clients are


def post(
    deployment: Deployment, body: bytes, path: str = "chat/completions", **headers: str
) -> requests.Response:
    """Send bytes as they are; a stream is left after its head."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(
        f"{deployment.url}/v1/{path}",
        body,
        headers={"Authorization": f"Bearer {deployment.token}", **named},
        stream=True,
        timeout=120,
    )


def say(content: object, **more: object) -> bytes:
    return json.dumps(
        {"messages": [{"role": "user", "content": content}], "model": "any", **more}
    ).encode()


def test_answers_are_of_openais_shape_to_the_letter(deployment: Deployment) -> None:
    url, key = f"{deployment.url}/v1", deployment.token
    with openai.OpenAI(
        base_url=url, api_key=key, _strict_response_validation=True, max_retries=0
    ) as strict:
        ids = [model.id for model in strict.models.list()]
        assert ids == ["hermes-agent", TOOL_MODEL]
        for model in ids:
            assert strict.models.retrieve(model).id == model
        with pytest.raises(openai.NotFoundError) as missing:
            strict.models.retrieve("nobody")
        assert missing.value.code == "model_not_found"
        whole = strict.chat.completions.create(model=ids[0], messages=[QUESTION])
        assert whole.object == "chat.completion"
        stream = strict.chat.completions.create(model=ids[0], messages=[QUESTION], stream=True)
        assert {chunk.object for chunk in stream} == {"chat.completion.chunk"}
        for call in (strict.embeddings.create, strict.moderations.create):
            with pytest.raises(openai.NotFoundError) as unknown:
                call(model="x", input="x")
            assert unknown.value.code == "not_found"


def test_the_responses_api_is_served_as_well(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="hermes-agent", input="The cat is called Ada.")
    assert "The cat is called Ada." in answer.output_text
    events = client.responses.create(model="hermes-agent", input="Hello.", stream=True)
    kinds = [event.type for event in events]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")


def test_the_worker_lists_what_hermes_serves(deployment: Deployment) -> None:
    """Of the Hermes that is installed: its own routes and its own list of models."""
    gateway = deployment.gateway()
    inside = {
        connection.laddr.port
        for connection in gateway.process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    bearer = {"Authorization": f"Bearer {gateway.environment['API_SERVER_KEY']}"}
    answers = [
        requests.get(f"http://127.0.0.1:{port}/v1/models", headers=bearer, timeout=30)
        for port in inside
    ]
    (told,) = [answer.json()["data"] for answer in answers if answer.ok]
    ours = deployment.call("GET", "/v1/models").json["data"]
    for model in [*told, *ours]:
        del model["created"]
    assert ours == told
    command = next(word for word in gateway.words if "/bin/" in word)
    root = Path(command).parents[1]
    (server,) = root.glob("lib/python*/site-packages/gateway/platforms/api_server.py")
    routes = set(re.findall(r'\("([A-Z]+)", "(/v1/[^"]+)", self\._handle', server.read_text()))
    source = (ROOT / "worker" / "src" / "gate" / "hermes-api.ts").read_text()
    known = re.findall(r'^  "(/v1/[^"]+)": \[([^\]]+)\],$', source, re.MULTILINE)
    served = {(method, path) for path, methods in known for method in json.loads(f"[{methods}]")}
    assert served | {("GET", "/v1/models"), ("GET", "/v1/health")} == routes


def test_a_stream_is_read_from_every_spelling_as_hermes_reads_it(deployment: Deployment) -> None:
    yes = [True, 1, 0.5, "true", " True ", "1", "yes", "on"]
    no = [False, 0, None, "false", "0", "off", "", "ja", [], {}]
    for value in [*yes, *no]:
        with post(deployment, say("Hi", stream=value)) as answer:
            assert answer.status_code == 200, value
            streams = answer.headers["content-type"].startswith("text/event-stream")
            assert streams == any(value is one for one in yes), value


def test_a_session_is_derived_as_hermes_derives_it(deployment: Deployment) -> None:
    """What worker/test/clients.test.ts has for the same chats."""
    brief = {"role": "system", "content": "be brief"}, {"role": "system", "content": "and kind"}
    chats = {
        "api-25f140a6575bf25c": [{"role": "user", "content": "hi"}],
        "api-729fd8fa828b0f10": [*brief, {"role": "user", "content": "hi"}],
    }
    for expected, messages in chats.items():
        body = json.dumps({"stream": True, "messages": messages}).encode()
        with post(deployment, body) as answer:
            assert answer.headers["x-hermes-session-id"] == expected, messages


EMOJI = "\\ud83d"
WELL: dict[str, tuple[bytes, dict[str, str]]] = {
    "half an emoji": (say("x").replace(b'"x"', f'"a{EMOJI}"'.encode()), {}),
    "half an emoji in a model": (say("x").replace(b'"any"', f'"{EMOJI}"'.encode()), {}),
    "half an emoji in a system prompt": (
        say("x").replace(b'[{"r', f'[{{"role":"system","content":"{EMOJI}"}},{{"r'.encode()),
        {},
    ),
    "a mark": (b"\xef\xbb\xbf" + say("x"), {}),
    "UTF-16": (say("x").decode().encode("utf-16"), {}),
    "Latin-1": (
        '{"messages":[{"role":"user","content":"é"}]}'.encode("latin-1"),
        {"Content_Type": "application/json; charset=ISO-8859-1"},
    ),
    "gzip": (gzip.compress(say("x")), {"Content_Encoding": "gzip"}),
    "deflate": (zlib.compress(say("x")), {"Content_Encoding": "deflate"}),
    "a form": (say("x"), {"Content_Type": "application/x-www-form-urlencoded"}),
    "a key twice": (b'{"messages":[],' + say("x")[1:], {}),
    "NUL": (say("a\0b"), {}),
    "parts": (say([{"type": "text", "text": "x"}, {"type": "input_text", "text": "y"}]), {}),
    "no role": (b'{"messages":[{"content":"x"},{"role":"user","content":"x"}]}', {}),
    "roles of others": (
        b'{"messages":[{"role":"tool","content":null},{"role":"developer","content":"x"},'
        + say("x")[14:],
        {},
    ),
    "content of a number": (b'{"messages":[{"role":"user","content":7}]}', {}),
    "what Open WebUI adds": (
        say("x", stream_options={"include_usage": True}, max_completion_tokens=9, tools=[], n=1),
        {"X_OpenWebUI_User_Name": "Zo%C3%AB", "X_OpenWebUI_Chat_Id": "1"},
    ),
    "what the others add": (
        say("x", temperature=1e300, top_p="1", stop=None, user={}, seed=2**70, logit_bias=[]),
        {},
    ),
}
ILL: dict[str, tuple[str, bytes]] = {
    **{
        f"chat: {body[:40]!r}": ("chat/completions", body)
        for body in (
            *(b"", b"[]", b"null", b"7", b'"x"', b"{}", b"{", b"\xff\xfe", b"\0", b"x" * 70_000),
            b'{"messages":["hi"]}',
            b'{"messages":[null]}',
            b'{"messages":[[]]}',
            b'{"messages":{}}',
            b'{"messages":[{"role":["user"],"content":"x"}]}',
            b'{"messages":[{"role":"user"}]}',
            b'{"messages":[{"role":"user","content":[]}]}',
            b'{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}',
            b'{"messages":[{"role":"user","content":[{"type":"file","file":{}}]}]}',
            b'{"messages":[{"role":"user","content":[{"type":["text"]}]}]}',
            b'{"messages":[{"role":"user","content":' + b"[" * 900 + b"]" * 900 + b"}]}",
            b'{"messages":[{"role":"user","content":"x"}],"model":[]}',
            b"[" * 200_000,
        )
    },
    **{
        f"{path}: {body[:40]!r}": (path, body)
        for path in ("responses", "runs")
        for body in (
            *(b"[]", b"{}", b'{"input":7}', b'{"input":[7]}', b'{"input":[]}', b'{"input":""}'),
            b'{"input":"x","previous_response_id":[]}',
            b'{"input":"x","previous_response_id":"resp_none","conversation":{"id":1}}',
            b'{"input":"x","conversation_history":[1]}',
            b'{"input":[{"role":[],"content":"x"}]}',
            b'{"input":"x","instructions":{}}',
            b'{"input":"x","model":{}}',
        )
    },
}


@pytest.mark.parametrize(("body", "headers"), WELL.values(), ids=WELL.keys())
def test_what_is_odd_is_answered(
    deployment: Deployment, body: bytes, headers: dict[str, str]
) -> None:
    with post(deployment, body, **headers) as answer:
        assert (answer.status_code, answer.json().get("object")) == (200, "chat.completion")


@pytest.mark.parametrize(("path", "body"), ILL.values(), ids=ILL.keys())
def test_what_cannot_be_read_is_refused_in_openais_shape(
    deployment: Deployment, path: str, body: bytes
) -> None:
    """A path that takes it all the same may do so."""
    with post(deployment, body, path) as answer:
        if path == "runs" and answer.status_code == 202:
            return
        assert answer.status_code in (400, 404), answer.text
        error = answer.json()["error"]
        assert set(error) >= {"message", "type", "param", "code", "request_id"}
        assert error["type"] == "invalid_request_error"

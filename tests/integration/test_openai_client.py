# SPDX-License-Identifier: Apache-2.0
"""The official OpenAI clients speak to a deployment as to their maker's own API: Python's, and JavaScript's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
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

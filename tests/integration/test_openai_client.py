# SPDX-License-Identifier: Apache-2.0
"""The official OpenAI client speaks to a deployment as to its maker's own API."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from plays import Deployment

QUESTION = {"role": "user", "content": "The cat is called Ada."}


@pytest.fixture
def client(deployment: Deployment) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{deployment.url}/v1", api_key=deployment.token) as made:
        yield made


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

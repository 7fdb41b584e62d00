# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A chat that a person would call an answer proves a deployment; everything else fails it, with the reason."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import Answer
from ansible_collections.hermes.workers.plugins.plugin_utils.actions.status_words import (
    provider_words,
    state_rows,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.proof.chats import NO_COUNTS, Chats

STREAM = {"content-type": "text/event-stream; charset=utf-8"}
COUNTS = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


class Worker:
    """Answers a chat with what it was given."""

    def __init__(self, content: Any = None, events: tuple[str, ...] = (), **head: Any) -> None:
        self.content = content
        self.events = events
        self.trouble = head.get("trouble")
        self.head = Answer(head.get("status", 200), head.get("headers", STREAM), b"")

    def request(self, method: str, _path: str, _body: Any = None, timeout: float = 0) -> Answer:
        assert timeout > 0
        told = {"lastProviderError": self.trouble}
        return Answer(200, {}, json.dumps(self.content if method == "POST" else told).encode())

    def stream(self, *_: Any) -> Iterator[tuple[float, Answer | str]]:
        yield 0.1, self.head
        for number, event in enumerate(self.events):
            yield 0.2 + number, event


def chats(worker: Worker) -> Chats:
    return Chats(worker, Settings(name="hermes"), "make logs", lambda: "Nothing was changed.")


def answer(text: str | None, finish: str = "stop", **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, "finish_reason": finish}], **more}


def chunk(text: str | None = None, finish: str | None = None) -> str:
    return json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": finish}]})


def test_an_answer_with_counts_needs_no_note() -> None:
    made = chats(Worker(answer("Ready.", usage=COUNTS)))
    made.ask()
    assert made.notes == []


@pytest.mark.parametrize("usage", [{}, {"usage": None}, {"usage": {"total_tokens": None}}])
def test_an_answer_without_counts_is_an_answer(usage: dict[str, Any]) -> None:
    made = chats(Worker(answer("Ready.", **usage)))
    made.ask()
    assert made.notes == [NO_COUNTS]


@pytest.mark.parametrize("text", ["", " ", None])
def test_an_answer_without_text_is_none(text: str | None) -> None:
    with pytest.raises(Card, match="the chat failed: an empty answer came back"):
        chats(Worker(answer(text, usage=COUNTS))).ask()


def test_an_answer_that_holds_no_choice_is_none() -> None:
    with pytest.raises(Card, match="The model is away"):
        chats(Worker({"error": {"message": "The model is away."}})).ask()


def test_an_error_as_content_is_no_answer() -> None:
    with pytest.raises(Card, match="the chat failed: HTTP 401: no such key"):
        chats(Worker(answer("HTTP 401: no such key", "error", usage=COUNTS))).ask()


@pytest.mark.parametrize(
    "events",
    [
        (chunk("one"), chunk("two"), chunk(None, "stop"), "[DONE]"),
        (chunk("one two"), chunk(None, "stop"), "[DONE]"),
        (chunk("one two", "stop"), "[DONE]"),
    ],
)
def test_a_stream_may_have_any_number_of_pieces(events: tuple[str, ...]) -> None:
    assert chats(Worker(events=events)).stream() == 0.2


@pytest.mark.parametrize(
    ("events", "head", "words"),
    [
        ((chunk("one"), chunk(None, "stop")), {}, "the stream broke off"),
        ((chunk("one"),), {}, "the stream broke off"),
        ((chunk("one"), chunk(None, "error"), "[DONE]"), {}, "the stream ended with error"),
        ((chunk(None, "stop"), "[DONE]"), {}, "the stream ended without any text"),
        ((), {"headers": {"content-type": "application/json"}}, "the answer was no stream"),
        ((), {"status": 502}, "HTTP 502"),
    ],
)
def test_a_stream_that_is_cut_or_none_fails(
    events: tuple[str, ...], head: dict[str, Any], words: str
) -> None:
    with pytest.raises(Card, match=f"the chat failed: {words}"):
        chats(Worker(events=events, **head)).stream()


def test_a_place_that_is_not_served_is_told_and_no_key_is_blamed() -> None:
    trouble = {"provider": "openai", "status": 403, "variable": "OPENAI_API_KEY", "why": "region"}
    failed = answer("Country, region, or territory not supported", "error")
    made = chats(Worker(failed, trouble=trouble))
    made.settings.platform = "cloudflare"
    with pytest.raises(Card) as told:
        made.ask()
    (problem,) = told.value.problems
    assert (problem.subject, problem.code) == ("hermes_location", "provider-region")
    assert "territory not supported. The key is not at fault." in problem.sentence
    assert told.value.changed == "Nothing was changed."
    with pytest.raises(Card, match="openai_api_key"):
        chats(Worker(failed, trouble=trouble | {"why": "key"})).ask()


def test_what_a_provider_refused_is_told_in_a_few_words() -> None:
    trouble = {"at": "2026-03-01T12:00:00.000Z", "provider": "openai", "status": 403}
    trouble |= {"variable": "OPENAI_API_KEY", "why": "region"}
    assert "nobody from where Hermes runs, status 403" in (provider_words(trouble) or "")
    key = provider_words(trouble | {"why": "key", "status": 401}) or ""
    assert key.startswith("openai refused the key (openai_api_key), status 401, ")
    assert provider_words(None) is None


def test_a_state_in_danger_is_told_and_a_sound_one_is_not() -> None:
    told = {
        "stateAtRisk": {"since": "2026-03-01T12:00:00.000Z", "why": "The disk is full."},
        "stateShrank": {
            "since": "2026-03-01T12:00:00.000Z",
            "bytes": 9,
            "before": {"backup": 4, "bytes": 4000},
        },
    }
    found = state_rows(told, "make lifecycle", "standard-1")
    rows, text = dict(found), " ".join(words for _, words in found)
    assert "The disk is full." in rows["AT RISK"]
    assert re.search(r" ago \(2026-0[23]-\d\d \d\d:\d\d\)", rows["AT RISK"])
    assert "does not sleep, and costs about $28 a month" in text
    assert "a snapshot alone: `make lifecycle`" in text
    assert "$" not in str(state_rows(told, "make lifecycle", None)), "nothing is paid for here"
    assert "backup 4" in rows["state shrank"]
    assert state_rows({"stateAtRisk": None, "stateShrank": None}, "", None) == []
    assert state_rows({}, "", None) == []

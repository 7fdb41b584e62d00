# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real chats through a Worker, judged as a person would: an answer with text and an end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ...module_utils.cards import Card
from ...module_utils.settings.catalogue import SECRET_VARIABLES
from ...module_utils.settings.settings import Settings
from ...module_utils.worker_client import START_SECONDS, Answer, Unreachable, WorkerClient
from .provider_key import not_served_here

CHAT_SECONDS = 180.0 + START_SECONDS
SLEEP_BY_FORCE = "sleep-by-force"
"""What `lifecycle` calls a sleep that leaves behind what cannot be saved."""
NO_COUNTS = "the endpoint tells no token counts, so that what a chat costs cannot be seen"
QUESTION = "Reply with one short sentence: are you ready?"
COUNTING = "Count from one to ten in words, separated by spaces."


class Chats:
    """Chats with one deployment. Each method raises a Card that names the cause when it fails."""

    def __init__(
        self, client: WorkerClient, settings: Settings, logs: str, changed: Callable[[], str]
    ) -> None:
        """logs: the command that shows its logs; changed: returns a card's sentence on what was changed."""
        self.client = client
        self.settings = settings
        self.logs = logs
        self.changed = changed
        self.notes: list[str] = []
        """What is not as usual, and no failure."""

    def ask(self) -> str | None:
        """Ask one question; return the model that answered."""
        answer = self.request(
            self.client, "POST", "/v1/chat/completions", chat(QUESTION, stream=False)
        )
        self._judge(answer)
        return answer.headers.get("x-hermes-model")

    def _judge(self, answer: Answer) -> None:
        content = answer.json()
        choices = content.get("choices")
        if answer.status != 200 or not choices:
            raise self._failed(answer.complaint(), answer.headers)
        choice = choices[0]
        text = (choice.get("message") or {}).get("content") or ""
        if choice.get("finish_reason") != "stop":
            complaint = (
                answer.headers.get("x-hermes-error")
                or text
                or f"finish_reason {choice.get('finish_reason')}"
            )
            raise self._failed(complaint, answer.headers)
        if not text.strip():
            raise self._failed("an empty answer came back", answer.headers)
        if not (content.get("usage") or {}).get("total_tokens"):
            self.notes.append(NO_COUNTS)

    def stream(self) -> float:
        """Stream a chat and return the seconds to its first text."""
        first, finish, ended = None, None, False
        head: Answer | None = None
        try:
            for seconds, item in self.client.stream(
                "/v1/chat/completions", chat(COUNTING, stream=True), CHAT_SECONDS
            ):
                if isinstance(item, Answer):
                    head = item
                elif item == "[DONE]":
                    ended = True
                else:
                    text, reason = delta(item)
                    finish = reason or finish
                    if text and first is None:
                        first = seconds
        except Unreachable as error:
            raise self._failed(f"the stream broke: {error}", {}) from error
        if head is None or head.status != 200:
            raise self._failed(
                head.complaint() if head else "no answer", head.headers if head else {}
            )
        if not head.headers.get("content-type", "").startswith("text/event-stream"):
            raise self._failed("the answer was no stream", head.headers)
        if not ended or finish != "stop":
            how = "broke off" if finish in (None, "stop") else f"ended with {finish}"
            complaint = head.headers.get("x-hermes-error") or f"the stream {how}"
            raise self._failed(complaint, head.headers)
        # How many pieces there are is the endpoint's choice: a short answer often is one.
        if first is None:
            raise self._failed("the stream ended without any text", head.headers)
        return first

    def request(self, client: WorkerClient, method: str, path: str, body: Any = None) -> Answer:
        """Send one request with a patience that outlasts a boot."""
        try:
            return client.request(method, path, body, timeout=CHAT_SECONDS)
        except Unreachable as error:
            raise self._failed(f"no answer: {error}", {}) from error

    def _failed(self, complaint: str, headers: dict[str, str]) -> Card:
        """Return the card for a failed chat: the provider's refusal with the variable to mend, if it was that."""
        complaint = " ".join(complaint.split())[:400]
        request = f" (request {headers['x-request-id']})" if headers.get("x-request-id") else ""
        refused = self._provider_error()
        done = self.changed()
        if refused and refused.get("why") == "region":
            status = refused["status"]
            words = f"{complaint}{request}"
            problem = not_served_here(self.settings, refused["provider"], status, words)
            return Card([problem], changed=done)
        if refused:
            variable = SECRET_VARIABLES.get(refused["variable"], refused["variable"])
            return Card.of(
                variable,
                f"{refused['provider']} refuses it with {refused['status']}: {complaint}{request}",
                f"set {variable} (or export {refused['variable']}) to a key that is valid for"
                f" {self.settings.default_model}, then run it again.",
                "provider-refused",
                changed=done,
            )
        return Card.of(
            self.settings.name,
            f"the chat failed: {complaint}{request}",
            f"see `{self.logs}`, mend the cause and run it again.",
            "verify",
            changed=done,
        )

    def _provider_error(self) -> dict[str, Any] | None:
        """Return what the Worker noted of a provider that refused our key or our place, or None."""
        try:
            answer = self.client.request("GET", "/api/instance/status", timeout=10)
        except Unreachable:
            return None
        found = answer.json().get("lastProviderError")
        return found if isinstance(found, dict) and found.get("variable") else None


def chat(text: str, *, stream: bool) -> dict[str, Any]:
    """Return the body of a chat with one user message."""
    body: dict[str, Any] = {
        "model": "hermes",
        "messages": [{"role": "user", "content": text}],
        "stream": stream,
    }
    if stream:
        body["stream_options"] = {"include_usage": True}
    return body


def delta(event: str) -> tuple[str, str | None]:
    """Return the text and the finish reason of one streamed chunk."""
    try:
        choices = json.loads(event).get("choices") or [{}]
    except (ValueError, AttributeError):
        return "", None
    return (choices[0].get("delta") or {}).get("content") or "", choices[0].get("finish_reason")

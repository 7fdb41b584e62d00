# SPDX-License-Identifier: Apache-2.0
"""Stand-in for services that Hermes' tools ask, on loopback: Firecrawl's search, OpenAI's speech, Google's mail.

Strict where the real ones are: each takes its own key alone (401), no other path (404), and a body with
what it has to have and nothing unknown (400); a voice or a format that there is not is refused. Facts:
docs.firecrawl.dev/api-reference (`POST /v2/search`), platform.openai.com/docs/api-reference/audio
(`POST /v1/audio/speech`), developers.google.com/gmail/api/reference/rest/v1/users.messages/list.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from .loopback import Handler, Loopback

FOUND = {
    "url": "https://quokka.example/",
    "title": "Quokkas of Rottnest",
    "description": "They hop.",
}
MAIL = "18c2f6a9e0b1d3f4"
"""The one mail that there is."""
SPEECH_FORMATS = {
    "mp3": ("audio/mpeg", b"ID3\x04"),
    "opus": ("audio/ogg", b"OggS"),
    "wav": ("audio/wav", b"RIFF"),
}
VOICES = frozenset({"alloy", "ash", "coral", "echo", "fable", "nova", "onyx", "sage", "shimmer"})
LONGEST_SPEECH = 4096


def spoken(text: str, kind: str) -> bytes:
    """Return the speech of a text: how its kind of file begins, then what was said."""
    return SPEECH_FORMATS[kind][1] + text.encode()


Answer = tuple[int, str, bytes]


def refusal(status: int, why: str) -> Answer:
    """Return a refusal in JSON."""
    said = {"success": False, "error": {"message": why}}
    return status, "application/json", json.dumps(said).encode()


class _Handler(Handler, BaseHTTPRequestHandler):
    standin: ToolServices

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        given = self.headers.get("Authorization") or ""
        status, kind, text = self.standin.answer(self.command, self.path, given, self.body())
        if status != 200:
            self.standin.refused.append(text.decode())
        self.answer(status, kind, text)


@dataclass
class ToolServices(Loopback):
    """A running stand-in. `url` has no trailing slash; asked: what it was asked for, by path, with good keys only."""

    handler: ClassVar[type[BaseHTTPRequestHandler]] = _Handler
    search_key: str
    speech_key: str
    mail_key: str
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def answer(self, method: str, target: str, authorization: str, body: bytes) -> Answer:
        """Answer one call."""
        path, _, query = target.partition("?")
        services = {
            ("POST", "/v2/search"): (self.search_key, self._search),
            ("POST", "/v1/audio/speech"): (self.speech_key, self._speak),
            ("GET", "/gmail/v1/users/me/messages"): (self.mail_key, self._list),
        }
        if (method, path) not in services:
            return refusal(404, f"there is no {method} {path}")
        key, serve = services[method, path]
        if authorization != f"Bearer {key}":
            return refusal(401, "Unauthorized: Invalid token")
        try:
            said = json.loads(body) if method == "POST" else dict(parse_qsl(query))
        except ValueError:
            return refusal(400, "the body is no JSON")
        self.asked.append((path, said))
        return serve(said)

    @staticmethod
    def _list(said: dict[str, Any]) -> Answer:
        if unknown := said.keys() - {"q", "alt", "maxResults", "pageToken", "labelIds"}:
            return refusal(400, f"Unknown name: {unknown}")
        found = {"messages": [{"id": MAIL, "threadId": MAIL}], "resultSizeEstimate": 1}
        return 200, "application/json", json.dumps(found).encode()

    @staticmethod
    def _search(said: dict[str, Any]) -> Answer:
        unknown = said.keys() - {"query", "limit", "sources", "origin", "integration", "timeout"}
        if unknown or not said.get("query") or not 1 <= said.get("limit", 5) <= 100:
            return refusal(400, f"Bad Request: {unknown or said}")
        found = {"success": True, "data": {"web": [FOUND]}}
        return 200, "application/json", json.dumps(found).encode()

    @staticmethod
    def _speak(said: dict[str, Any]) -> Answer:
        kind, text = said.get("response_format", "mp3"), said.get("input", "")
        unknown = said.keys() - {"model", "voice", "input", "response_format", "speed"}
        if unknown or not said.get("model") or said.get("voice") not in VOICES:
            return refusal(400, f"invalid_request_error: {unknown or said}")
        if kind not in SPEECH_FORMATS or not 0 < len(text) <= LONGEST_SPEECH:
            return refusal(400, f"invalid_request_error: {said}")
        return 200, SPEECH_FORMATS[kind][0], spoken(text, kind)

# SPDX-License-Identifier: Apache-2.0
"""What stand-ins of messengers' APIs share: a server on loopback, what was sent by it, and calls of a webhook."""

from __future__ import annotations

import itertools
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar, Self

from .loopback import Loopback
from .multipart import File
from .outbox import Outbox


@dataclass
class Sent:
    """One message that was sent by the API.

    way: by what, or as what, where there are several; name: the platform's; file: what went with it; buttons: below it,
    the words of each and what it sends back.
    """

    chat: str
    text: str
    reply_to: str | None = None
    way: str = ""
    thread: str | None = None
    name: str = ""
    file: File | None = None
    buttons: tuple[tuple[str, str], ...] = ()


Answer = tuple[int, Any]
"""A status, and JSON or the bytes of a file."""


class _Handler(BaseHTTPRequestHandler):
    standin: PlatformApi
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Keep the test's output to the test's own words."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urllib.parse.unquote(self.path)
        self.standin.calls.append(f"{self.command} {path}")
        given = self.headers.get("Authorization") or ""
        kind = self.headers.get("Content-Type") or ""
        status, answer = self.standin.answer(self.command, path, given, body, kind)
        is_file = isinstance(answer, bytes)
        text = b"" if status == 204 else answer if is_file else json.dumps(answer).encode()
        try:
            self.send_response(status)
            kind = "application/octet-stream" if is_file else "application/json"
            self.send_header("Content-Type", kind)
            for name, value in self.standin.headers(status).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
        except OSError:
            return

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()


@dataclass
class PlatformApi(Loopback, Outbox[Sent], ABC):
    """A running stand-in. `url` has no trailing slash.

    reaches: where https addresses really lead, by their beginning; opener: by which they are reached; busy: chat -> how
    often it is told to wait; patience: how long it waits for whom it calls, in seconds.
    """

    handler: ClassVar[type[BaseHTTPRequestHandler]] = _Handler
    reaches: dict[str, str] = field(default_factory=dict)
    opener: urllib.request.OpenerDirector = field(default_factory=urllib.request.build_opener)
    busy: dict[str, int] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    patience: ClassVar[float] = 30.0

    def __enter__(self) -> Self:
        self._changed = threading.Condition()
        self.numbers = itertools.count(1)
        return super().__enter__()

    @abstractmethod
    def answer(self, method: str, path: str, authorization: str, body: bytes, kind: str) -> Answer:
        """Answer one call. kind: the body's media type."""

    def headers(self, status: int) -> dict[str, str]:
        """Return what stands before an answer of this status."""
        return {}

    def is_busy(self, chat: str) -> bool:
        """Tell whether a chat gets too much."""
        left = self.busy.get(chat, 0)
        self.busy[chat] = max(0, left - 1)
        return left > 0

    def change(self, name: str, text: str, buttons: tuple[tuple[str, str], ...]) -> bool:
        """Change what was sent under a name; returns whether there was something."""
        with self._changed:
            found = [one for one in self.sent if one.name == name]
            for one in found:
                one.text, one.buttons = text, buttons
            self._changed.notify_all()
        return bool(found)

    def note(self, sent: Sent) -> str:
        """Keep what was sent; returns its name."""
        sent.name = sent.name or f"m{next(self.numbers)}"
        with self._changed:
            self.sent.append(sent)
            self._changed.notify_all()
        return sent.name

    def await_sent(self, words: str, seconds: float = 60.0) -> Sent:
        """Return the first message with some words. Raises AssertionError without one in time."""

        def found() -> list[Sent]:
            return [one for one in self.sent if words in one.text]

        with self._changed:
            if self._changed.wait_for(found, seconds):
                return found()[0]
        raise AssertionError(f"nothing says {words!r}: {self.sent}")

    def ask(self, url: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        """Call a webhook once; returns the status, 0 when nobody answered in time, and what it says."""
        for begins, really in self.reaches.items():
            url = url.replace(begins, really, 1)
        try:
            request = urllib.request.Request(url, body, headers)
            with self.opener.open(request, timeout=self.patience) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

# SPDX-License-Identifier: Apache-2.0
"""Stand-in for fal.ai's queue of pictures, on loopback.

Strict where the real one is: it takes one key, spelt as `Key ...` (401), a prompt that is a text (422), and tells of a
request only who made it (404). A picture is ready once its state was asked for. Facts: docs.fal.ai, "Queue": `POST
/{model}`, `GET /{model}/requests/{id}/status`, `GET /{model}/requests/{id}`.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar
from urllib.parse import urlsplit

from .loopback import Handler, Loopback

PICTURE = {"url": "https://fal.example/quokka.png", "width": 1024, "height": 576}

Answer = tuple[int, dict[str, Any]]


class _Handler(Handler, BaseHTTPRequestHandler):
    standin: Fal

    def do_POST(self) -> None:
        body = self.body()
        self._serve(lambda: self.standin.submit(self.path, json.loads(body)))

    def do_GET(self) -> None:
        self._serve(lambda: self.standin.tell(urlsplit(self.path).path))

    def _serve(self, serve: Callable[[], Answer]) -> None:
        allowed = self.headers.get("Authorization") == f"Key {self.standin.key}"
        status, said = serve() if allowed else (401, {"detail": "Cannot access application."})
        self.answer(status, "application/json", json.dumps(said).encode())


@dataclass
class Fal(Loopback):
    """A running stand-in. asked: each model that was asked for, with the prompt."""

    handler: ClassVar[type[BaseHTTPRequestHandler]] = _Handler
    key: str
    tls: ssl.SSLContext
    asked: list[tuple[str, str]] = field(default_factory=list)
    ready: set[str] = field(default_factory=set)

    def submit(self, path: str, arguments: dict[str, Any]) -> Answer:
        """Take a request for a picture."""
        prompt = arguments.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            return 422, {"detail": [{"loc": ["body", "prompt"], "msg": "Field required"}]}
        self.asked.append((path.strip("/"), prompt))
        number = str(len(self.asked))
        there = f"{self.url}{path}/requests/{number}"
        addresses = {
            "response_url": there,
            "status_url": f"{there}/status",
            "cancel_url": f"{there}/cancel",
        }
        return 200, {"request_id": number, **addresses, "queue_position": 0}

    def tell(self, path: str) -> Answer:
        """Tell a request's state, or give its picture."""
        for number, (model, _) in enumerate(self.asked, 1):
            there = f"/{model}/requests/{number}"
            if path == f"{there}/status":
                self.ready.add(there)
                return 200, {"status": "COMPLETED", "logs": None, "metrics": {}}
            if path == there:
                if there not in self.ready:
                    return 400, {"detail": "Request is still in progress"}
                return 200, {"images": [PICTURE], "seed": 1}
        return 404, {"detail": "Request not found"}

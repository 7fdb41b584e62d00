# SPDX-License-Identifier: Apache-2.0
"""Stand-in for a model provider: OpenAI's chat completions and Anthropic's messages on loopback.

Strict where the real ones are strict: a request without the exact key is refused with 401 in the
provider's own error shape, an unknown path with 404, a malformed body with 400. It answers with
one sentence that repeats the last user message, and remembers what it was sent. Told "call TOOL
{...}", OpenAI's side calls that tool with these arguments first, as a model would.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GATEWAY = re.compile(r"^/v1/[0-9a-f]{32}/[\w-]+/(?:anthropic/v1|openrouter)/")
"""Cloudflare's AI Gateway before a provider's own path (developers.cloudflare.com/ai-gateway/usage/providers/)."""


def last_user_text(messages: list[dict[str, Any]]) -> str:
    """Return the text of the last user message; content may be a string or a list of parts."""
    for message in reversed(messages):
        if message.get("role") != "user":
            continue
        content = message.get("content", "")
        if isinstance(content, str):
            return content
        return " ".join(part.get("text", "") for part in content if part.get("type") == "text")
    return ""


def wanted_call(messages: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the tool call that the last message asks for, unless its result is there already.

    Of a turn that was cut Hermes says the words again before those that came next, so that several may be asked for.
    """
    if messages[-1].get("role") != "user":
        return None
    text = last_user_text(messages)
    orders = list(re.finditer(r"call (\w+) (?=\{)", text))
    if not orders:
        return None
    arguments, _ = json.JSONDecoder().raw_decode(text, orders[-1].end())
    function = {"name": orders[-1].group(1), "arguments": json.dumps(arguments)}
    # Its own in the conversation, as the real ones: Hermes keeps one result of each.
    number = f"call_{len(messages)}"
    return {"index": 0, "id": number, "type": "function", "function": function}


@dataclass
class Seen:
    """One request as the provider got it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any] | None


@dataclass
class Provider:
    """A running stand-in. `url` has no trailing slash; `seen` grows with every request.

    `also` is a second key that is good; `pause` is how many seconds it takes for each word; `host` is
    the address that it listens on; `bare` answers as small servers do: in one piece, without token counts;
    `refusal`, a status and a body, is what everybody gets; `pages` are further ones that need no key, by path;
    with `tls` it speaks nothing else; the next request that holds the words
    `silent` is not answered before `wakes` is set.
    """

    key: str
    also: str | None = None
    pause: float = 0.0
    host: str = "127.0.0.1"
    bare: bool = False
    refusal: tuple[int, str] | None = None
    pages: dict[str, dict[str, Any]] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    silent: str = ""
    wakes: threading.Event = field(default_factory=threading.Event)
    seen: list[Seen] = field(default_factory=list)

    def __enter__(self) -> Provider:
        handler = type("Handler", (_Handler,), {"provider": self})
        self._server = ThreadingHTTPServer((self.host, 0), handler)
        self._server.daemon_threads = True
        if self.tls:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.server_port

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http{'s' if self.tls else ''}://{self.host}:{self.port}"


class _Handler(BaseHTTPRequestHandler):
    provider: Provider
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Keep the test's output to the test's own words."""

    def do_GET(self) -> None:
        self._note(None)
        if self.provider.refusal:
            return self._send(self.provider.refusal[0], self.provider.refusal[1].encode())
        if self.path in self.provider.pages:
            return self._json(200, self.provider.pages[self.path])
        if not self._authorised():
            return self._refuse()
        if self.path.endswith("/models"):
            return self._json(200, {"object": "list", "data": [{"id": "stand-in"}]})
        return self._json(404, {"error": {"message": "no such path"}})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not raw and self.headers.get("Transfer-Encoding") == "chunked":
            raw = self._read_chunks()
        try:
            body = json.loads(raw)
        except ValueError:
            return self._json(400, {"error": {"message": "the body is not JSON"}})
        self._note(body)
        if self.provider.refusal:
            return self._send(self.provider.refusal[0], self.provider.refusal[1].encode())
        if not self._authorised():
            return self._refuse()
        if self.provider.silent and self.provider.silent in last_user_text(body["messages"]):
            self.provider.silent = ""
            self.provider.wakes.wait()
        path = GATEWAY.sub("/v1/", self.path)
        if path == "/v1/chat/completions":
            return self._openai(body)
        if path == "/v1/messages":
            return self._anthropic(body)
        return self._json(404, {"error": {"message": f"no such path: {self.path}"}})

    def _note(self, body: dict[str, Any] | None) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.provider.seen.append(Seen(self.path, headers, body))

    def _authorised(self) -> bool:
        given = self.headers.get("x-api-key") or self.headers.get("Authorization") or ""
        return given.removeprefix("Bearer ") in (self.provider.key, self.provider.also)

    def _refuse(self) -> None:
        if self.path.startswith("/v1/messages"):
            error = {"type": "authentication_error", "message": "invalid x-api-key"}
            return self._json(401, {"type": "error", "error": error})
        message = "Incorrect API key provided."
        return self._json(401, {"error": {"message": message, "code": "invalid_api_key"}})

    def _read_chunks(self) -> bytes:
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _json(self, status: int, value: dict[str, Any]) -> None:
        self._send(status, json.dumps(value).encode())

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _events(self, events: list[tuple[str | None, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for name, value in events:
            text = value if isinstance(value, str) else json.dumps(value)
            self.wfile.write((f"event: {name}\n" if name else "").encode())
            self.wfile.write(f"data: {text}\n\n".encode())
            self.wfile.flush()
            time.sleep(self.provider.pause)
        self.close_connection = True

    def _openai(self, body: dict[str, Any]) -> None:
        words = f"The stand-in heard: {last_user_text(body['messages'])}".split(" ")
        counts = {"prompt_tokens": 11, "completion_tokens": len(words), "total_tokens": 11}
        usage = {} if self.provider.bare else {"usage": counts}
        base = {"id": "chatcmpl-1", "created": 0, "model": body["model"]}
        if not body.get("stream"):
            message = {"role": "assistant", "content": " ".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            answer = {**base, "object": "chat.completion", "choices": [choice], **usage}
            return self._json(200, answer)

        def chunk(delta: dict[str, Any], finish: str | None = None) -> tuple[None, Any]:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return None, {**base, "object": "chat.completion.chunk", "choices": [choice]}

        events: list[tuple[str | None, Any]] = [chunk({"role": "assistant", "content": ""})]
        if call := wanted_call(body["messages"]):
            events += [chunk({"tool_calls": [call]}), chunk({}, "tool_calls")]
        elif self.provider.bare:
            events = [chunk({"role": "assistant", "content": " ".join(words)}, "stop")]
        else:
            events += [chunk({"content": word + " "}) for word in words]
            events.append(chunk({}, "stop"))
        if usage:
            events.append(
                (None, {**base, "object": "chat.completion.chunk", "choices": [], **usage})
            )
        return self._events([*events, (None, "[DONE]")])

    def _anthropic(self, body: dict[str, Any]) -> None:
        words = f"The stand-in heard: {last_user_text(body['messages'])}".split(" ")
        usage = {"input_tokens": 11, "output_tokens": len(words)}
        message = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        if not body.get("stream"):
            content = [{"type": "text", "text": " ".join(words)}]
            return self._json(200, {**message, "content": content, "stop_reason": "end_turn"})

        def event(kind: str, **fields: Any) -> tuple[str | None, Any]:
            return kind, {"type": kind, **fields}

        start = {"type": "text", "text": ""}
        events = [
            event("message_start", message=message),
            event("content_block_start", index=0, content_block=start),
        ]
        for word in words:
            delta = {"type": "text_delta", "text": word + " "}
            events.append(event("content_block_delta", index=0, delta=delta))
        ending = {"stop_reason": "end_turn", "stop_sequence": None}
        events += [
            event("content_block_stop", index=0),
            event("message_delta", delta=ending, usage=usage),
            event("message_stop"),
        ]
        return self._events(events)

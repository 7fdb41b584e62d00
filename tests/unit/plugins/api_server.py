# SPDX-License-Identifier: Apache-2.0
"""A loopback server that answers as Cloudflare's API was recorded to: by a script, or by small functions."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ansible_collections.hermes.workers.plugins.module_utils.digests import proof


@dataclass
class Call:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content) if self.content else None

    @property
    def write(self) -> bool:
        return self.method != "GET"


@dataclass
class Reply:
    """One answer. drop: close the connection instead."""

    status: int = 200
    content: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False


def ok(result: Any = None, **info: Any) -> Reply:
    """The envelope of a success; `info` is its result_info."""
    content = {"result": result, "success": True, "errors": [], "messages": []}
    return Reply(200, content | ({"result_info": info} if info else {}))


def refused(status: int, code: int, message: str, **headers: str) -> Reply:
    """The envelope of a refusal."""
    errors = [{"code": code, "message": message}]
    content = {"result": None, "success": False, "errors": errors, "messages": []}
    return Reply(
        status, content, {name.replace("_", "-"): value for name, value in headers.items()}
    )


NO_WORKER = refused(404, 10007, "This Worker does not exist on your account.")

Answer = Callable[[Call], Reply]


class ApiServer(ThreadingHTTPServer):
    """Answers from `script` first, one entry for each call, then by `answer`."""

    daemon_threads = True

    def __init__(self, answer: Answer | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer or (lambda call: refused(400, 7003, f"no route for {call.path}"))
        self.script: list[Reply] = []
        self.calls: list[Call] = []
        self.holds = ""
        """The API token of a Worker that answers here; it proves that to whoever asks."""
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/client/v4"

    @property
    def writes(self) -> list[Call]:
        return [call for call in self.calls if call.write]

    def reply(self, call: Call) -> Reply:
        if self.holds and call.path == "/api/identity":
            assert "authorization" not in call.headers, "nothing is proved yet"
            text = f"127.0.0.1 {call.query['nonce']}"
            if call.headers.get("x-hermes-asked") != proof(self.holds, f"asked {text}"):
                return Reply(401, {"error": {"message": "You do not hold this token."}})
            return Reply(200, {"proofs": [proof(self.holds, text)]})
        with self.lock:
            self.calls.append(call)
            return self.script.pop(0) if self.script else self.answer(call)

    def __enter__(self) -> ApiServer:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A head and its body are two writes, of which the second would wait for the client's word about the first.
    disable_nagle_algorithm = True
    server: ApiServer

    def handle_one_call(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        content = self.rfile.read(int(headers.get("content-length", 0)))
        path = parts.path.removeprefix("/client/v4")
        reply = self.server.reply(Call(self.command, path, query, headers, content))
        if reply.drop:
            self.close_connection = True
            self.connection.close()
            return
        self._send(reply)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one_call  # noqa: N815

    def _send(self, reply: Reply) -> None:
        text = reply.content if isinstance(reply.content, bytes) else _json(reply.content)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Say nothing: the calls are kept."""


def _json(content: Any) -> bytes:
    return b"" if content is None else json.dumps(content).encode()

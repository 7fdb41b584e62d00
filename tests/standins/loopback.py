# SPDX-License-Identifier: Apache-2.0
"""What stand-ins share that serve HTTP on loopback for as long as a `with` lasts."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Self


class Handler(BaseHTTPRequestHandler):
    """Serves for a stand-in, and says nothing by itself."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Keep the test's output to the test's own words."""

    def body(self) -> bytes:
        """Return what the request brings."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, kind: str, content: bytes) -> None:
        """Answer. kind: the content's type."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Loopback:
    """A stand-in with a server. `handler` serves for it, and finds it as `standin`; `url` has no trailing slash.

    With `tls` it speaks nothing else.
    """

    handler: ClassVar[type[BaseHTTPRequestHandler]]
    tls: ssl.SSLContext | None = None

    def __enter__(self) -> Self:
        handler = type("Handler", (self.handler,), {"standin": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        if self.tls:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self._server.server_port}"

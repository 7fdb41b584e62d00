# SPDX-License-Identifier: Apache-2.0
"""Serves Hermes' dashboard to the Worker, and to nobody else. Runs on Hermes' own interpreter.

Hermes serves its dashboard in one of two ways: on loopback, where its page hands the session token
to whoever asks for it; or on another address, behind a sign-in of its own. Here the Worker is what
signs people in, and it reaches a container from outside. So the dashboard believes that it is on
loopback, listens where the platform reaches it, and every request must carry the token, those for
the page too: other users of this machine do not get it.
"""

from __future__ import annotations

import hmac
import os
import sys
from typing import Any
from urllib.parse import parse_qs

# First: it finds Hermes' home and reads its settings, which what follows needs.
from hermes_cli.main import main  # isort: skip
import uvicorn
from hermes_cli import web_server

HEADER = b"x-hermes-session-token"


class Guard:
    """ASGI middleware that lets pass what carries the token: in a header, or as Hermes' own do."""

    def __init__(self, app: Any, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serve a request or a WebSocket, or refuse it with 401 before anybody else sees it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif self._allowed(scope):
            # Hermes takes WebSockets from loopback only; who holds the token may come from anywhere.
            await self._app({**scope, "client": ("127.0.0.1", 0)}, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 4401})
        else:
            head = {"type": "http.response.start", "status": 401, "headers": []}
            await send(head)
            await send({"type": "http.response.body", "body": b""})

    def _allowed(self, scope: dict[str, Any]) -> bool:
        given = [value for name, value in scope["headers"] if name == HEADER]
        # The terminal's program in the sandbox names it in its WebSockets' addresses.
        given += parse_qs(scope["query_string"]).get(b"token", [])
        return any(hmac.compare_digest(value, self._token) for value in given)


class Published(uvicorn.Config):
    """Listens where the platform reaches the sandbox, whatever address Hermes names."""

    def __init__(self, app: object, host: str, **more: object) -> None:
        super().__init__(app, host=os.environ["SANDBOX_BIND"], **more)


def serve(port: str) -> None:
    """Run Hermes' own command with the two changes."""
    web_server.app.add_middleware(Guard, token=os.environ["HERMES_DASHBOARD_SESSION_TOKEN"])
    uvicorn.Config = Published
    options = ["--no-open", "--skip-build", "--host", "127.0.0.1", "--port", port]
    sys.argv = ["hermes", "dashboard", *options]
    main()


serve(os.environ.get("PORT_9119", "9119"))

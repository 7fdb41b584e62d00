# SPDX-License-Identifier: Apache-2.0
"""Stands in for Hermes' dashboard where only its process matters.

A file `dashboard-dies` in HERMES_HOME holds an exit code for its start.
"""

import http.server
import json
import os
import subprocess
import sys
from pathlib import Path

HOME = Path(os.environ["HERMES_HOME"])


class Page(http.server.BaseHTTPRequestHandler):
    """Answers whoever has the token with what this process knows of its surroundings."""

    def do_GET(self) -> None:
        given = self.headers.get("X-Hermes-Session-Token")
        ours = os.environ["HERMES_DASHBOARD_SESSION_TOKEN"]
        body = json.dumps({"pid": os.getpid(), "env": dict(os.environ)}).encode()
        self.send_response(200 if given == ours else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def main() -> None:
    code = HOME / "dashboard-dies"
    if code.exists():
        print("no dashboard today", file=sys.stderr, flush=True)
        sys.exit(int(code.read_text()))
    # The terminal of a chat, in a session of its own.
    subprocess.Popen(["sleep", "4323"], start_new_session=True)
    address = ("127.0.0.1", int(os.environ["PORT_9119"]))
    http.server.ThreadingHTTPServer(address, Page).serve_forever()


main()

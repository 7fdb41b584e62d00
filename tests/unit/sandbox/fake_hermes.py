# SPDX-License-Identifier: Apache-2.0
"""Stands in for Hermes where only its process matters: /health, signals, exit codes, a database.

Files in HERMES_HOME steer it: `die-at-start` holds an exit code, `slow-stop` seconds.
"""

import http.server
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

HOME = Path(os.environ["HERMES_HOME"])


class Health(http.server.BaseHTTPRequestHandler):
    """Answers every GET with what this process knows of its surroundings."""

    def do_GET(self) -> None:
        body = json.dumps({"pid": os.getpid(), "env": dict(os.environ)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def stop(number: int, _: object) -> None:
    slow = HOME / "slow-stop"
    if slow.exists():
        time.sleep(float(slow.read_text()))
    print(f"stopped by {signal.Signals(number).name}", flush=True)
    os._exit({signal.SIGINT: 0, signal.SIGUSR1: 75}.get(number, 1))


def main() -> None:
    (HOME / "gateway.pid").write_text(str(os.getpid()))
    code = HOME / "die-at-start"
    if code.exists():
        print("cannot start: no reason", file=sys.stderr, flush=True)
        sys.exit(int(code.read_text()))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, stop)
    with sqlite3.connect(HOME / "state.db") as database:
        database.execute("PRAGMA journal_mode=WAL")
        for table in ("starts (at REAL)", "sessions (id TEXT)", "messages (text TEXT)"):
            database.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        database.execute("INSERT INTO starts VALUES (?)", (time.time(),))
    # A tool of the agent that left its parent, its group and its environment.
    subprocess.Popen(
        ["sh", "-c", "setsid env -i sleep 4321 & setsid sleep 4322 &"], start_new_session=True
    ).wait()
    (HOME / "gateway.pid").unlink()
    print("key is", os.environ.get("API_SERVER_KEY"), flush=True)
    address = (os.environ["API_SERVER_HOST"], int(os.environ["API_SERVER_PORT"]))
    server = http.server.ThreadingHTTPServer(address, Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        signal.pause()


main()

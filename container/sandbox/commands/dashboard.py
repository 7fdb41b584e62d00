# SPDX-License-Identifier: Apache-2.0
"""`sandbox dashboard`: has PID 1 start Hermes' dashboard, and waits until it answers."""

import http.client
import json
import os
import time

from sandbox.commands.hermes import tell
from sandbox.errors import FAILED, NOT_RESTORED, REFUSED, SandboxError
from sandbox.paths import Paths, read_text

TOKEN = "HERMES_DASHBOARD_SESSION_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_HEADER = "X-Hermes-Session-Token"  # noqa: S105 - the name of a header
_START_TIME = 60.0
# Before it SQLite can lose what two connections write at once: see sqlite/newer_sqlite.py.
SQLITE_LEAST = (3, 51, 3)


def dashboard(paths: Paths, host_tools: bool) -> None:
    """Return when the dashboard answers; it is started when it does not run.

    host_tools: the owner allows Hermes to touch the machine, so that nothing need confine it.
    Raises SandboxError: 67 before `go`, 77 where nothing confines it, 1 when it does not answer or
    would lose what Hermes writes.
    """
    if not os.path.exists(paths.in_run("go")):
        raise SandboxError(NOT_RESTORED, "Hermes was not started in this boot: use go.")
    if not (paths.confined or host_tools):
        raise SandboxError(
            REFUSED,
            "The dashboard reads and writes files, and nothing confines it to the sandbox here.",
        )
    sqlite = read_text(paths.in_run("sqlite"))
    if sqlite and tuple(map(int, sqlite.split("."))) < SQLITE_LEAST:
        least = ".".join(map(str, SQLITE_LEAST))
        raise SandboxError(
            FAILED,
            f"Hermes and its dashboard write the same databases, and SQLite {sqlite}, which this"
            f" Python has, can lose what two write at once: {least} or newer is needed.",
        )
    token = json.loads(read_text(paths.in_run("env.json")) or "{}").get(TOKEN)
    if not token:
        raise SandboxError(REFUSED, f"{TOKEN} was not given at go: anybody could come in.")
    before = _restarts(paths)
    tell(paths, {"do": "dashboard"})
    end = time.monotonic() + _START_TIME
    while not _answers(paths.dashboard_port, token):
        if _restarts(paths) > before:
            raise SandboxError(FAILED, "The dashboard ended before it answered; see the logs.")
        if time.monotonic() > end:
            raise SandboxError(FAILED, f"The dashboard is not running after {_START_TIME:.0f} s.")
        time.sleep(0.1)


def _restarts(paths: Paths) -> int:
    return int(paths.state().get("dashboardEnds", 0))


def _answers(port: int, token: str) -> bool:
    """Ask what only the dashboard of this boot answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/api/sessions?limit=1", headers={TOKEN_HEADER: token})
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()

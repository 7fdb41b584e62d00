# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Speaks to a running supervisor from its folder."""

import json
import sys
import time
from typing import Any

from circus.client import CircusClient
from circus.exc import CallError

CONTROL = "ipc://run/supervisor.sock"
EVENTS = "ipc://run/supervisor-events.sock"
BUSY_SECONDS = 300
"""How long a command waits for the one before it, which may have requests to wait for."""


def control(action: str) -> int:
    """Carry out one ctl command; prints JSON; returns the exit code."""
    client = CircusClient(endpoint=CONTROL, timeout=900)
    try:
        if action == "status":
            print(json.dumps(call(client, "status")["statuses"]))
        elif action == "stop":
            call(client, "quit", waiting=False)
        elif action == "settle-secrets":
            call(client, action)
        else:
            content = None if action == "undo-secrets" else json.load(sys.stdin)
            call(client, "restart-workerd", action=action, content=content, waiting=True)
    except CallError as error:
        print(f"the supervisor did not carry out {action}: {error}", file=sys.stderr)
        return 1
    finally:
        client.stop()
    return 0


def call(client: CircusClient, command: str, **properties: object) -> dict[str, Any]:
    """Send one command to the supervisor; raises CallError when it is refused."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        answer: dict[str, Any] = client.send_message(command, **properties)
        if answer.get("status") != "error":
            return answer
        reason = answer.get("reason", "refused")
        if "already running" not in reason or time.monotonic() > deadline:
            raise CallError(reason)
        time.sleep(0.05)

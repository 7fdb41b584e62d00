# SPDX-License-Identifier: Apache-2.0
"""Memory of an embedded deployment, all its processes together (proportional set size)."""

from __future__ import annotations

import json
import urllib.request

from figure import Figure

from parts.checkout import Checkout, fresh_checkout

GOAL_MB = 260.0


def processes(checkout: Checkout) -> dict[str, float]:
    """Megabytes (PSS) by process of one deployment: the supervisor and its descendants."""
    marks = {"workerd": " serve ", "engine": "--socket", "hermes": "gateway run"}
    found: dict[str, float] = {}
    for process in [checkout.supervisor(), *checkout.supervisor().children(recursive=True)]:
        line = " ".join(process.cmdline())
        kind = next((name for name, mark in marks.items() if mark in line), "supervisor, PID 1")
        found[kind] = found.get(kind, 0.0) + process.memory_full_info().pss / 1e6
    return found


def chat(checkout: Checkout) -> None:
    """One turn, so that Hermes has loaded what a chat needs."""
    body = json.dumps({"model": "hermes", "messages": [{"role": "user", "content": "Hello"}]})
    token = (checkout.state / "api_token").read_text().strip()
    request = urllib.request.Request(
        f"http://127.0.0.1:{checkout.port}/v1/chat/completions",
        data=body.encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        assert json.load(response)["choices"][0]["finish_reason"] == "stop"


def measure() -> list[Figure]:
    with fresh_checkout() as checkout:
        checkout.make("deploy")
        for _ in range(5):
            chat(checkout)
        parts = processes(checkout)
    for kind, megabytes in sorted(parts.items()):
        print(f"   {kind}: {megabytes:.0f} MB")
    named = sum(parts.get(kind, 0.0) for kind in ("workerd", "engine", "hermes"))
    return [
        Figure("hermes, workerd and engine", round(named, 1), "MB PSS", GOAL_MB),
        Figure(
            "the same with supervisor and PID 1", round(sum(parts.values()), 1), "MB PSS", 300.0
        ),
    ]

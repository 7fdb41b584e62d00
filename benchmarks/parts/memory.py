# SPDX-License-Identifier: Apache-2.0
"""Memory of an embedded deployment, all its processes together, and what a large state adds to workerd."""

from __future__ import annotations

import json
import os
import shutil
import threading
import urllib.request
from collections.abc import Callable
from typing import Any

from figure import Figure

from parts.checkout import Checkout, fresh_checkout

GOAL_MB = 260.0
ISOLATE_MB = 100.0
"""Of the 128 MB that an isolate has on Cloudflare."""
LARGE = 200
"""Megabytes of a large state; the vault takes 256 MiB."""
CALLS = (1500, 3000)


def processes(checkout: Checkout) -> dict[str, float]:
    """Megabytes (PSS) by process of one deployment: the supervisor and its descendants."""
    marks = {"workerd": " serve ", "engine": "--socket", "hermes": "gateway run"}
    found: dict[str, float] = {}
    for process in [checkout.supervisor(), *checkout.supervisor().children(recursive=True)]:
        line = " ".join(process.cmdline())
        kind = next((name for name, mark in marks.items() if mark in line), "supervisor, PID 1")
        found[kind] = found.get(kind, 0.0) + process.memory_full_info().pss / 1e6
    return found


def ask(checkout: Checkout, path: str, body: object = None) -> dict[str, Any]:
    """The answer to a POST."""
    token = (checkout.state / "api_token").read_text().strip()
    request = urllib.request.Request(
        f"http://127.0.0.1:{checkout.port}{path}",
        data=b"" if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return dict(json.load(response))


def chat(checkout: Checkout) -> None:
    """One turn, so that Hermes has loaded what a chat needs."""
    body = {"model": "hermes", "messages": [{"role": "user", "content": "Hello"}]}
    assert ask(checkout, "/v1/chat/completions", body)["choices"][0]["finish_reason"] == "stop"


def added(checkout: Checkout, work: Callable[[], object]) -> float:
    """Megabytes (resident) that workerd has more of during some work, at most, than before it."""
    processes = checkout.supervisor().children()
    (workerd,) = [one for one in processes if " serve " in " ".join(one.cmdline())]
    before = peak = workerd.memory_info().rss
    over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.005):
            peak = max(peak, workerd.memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        work()
    finally:
        over.set()
        watching.join()
    return float(round((peak - before) / 1e6, 1))


def of_many_calls(checkout: Checkout) -> list[Figure]:
    """What calls of a model leave in workerd: garbage that its runtime collects late, and no more after more calls."""
    everyone = checkout.supervisor().children(recursive=True)
    (hermes,) = [one for one in everyone if "gateway" in one.cmdline()]
    environment = hermes.environ()
    # Such as Hermes sends for a turn: what it may do fills most of it.
    messages = [{"role": "system", "content": "x" * 50_000}, {"role": "user", "content": "Hello"}]
    request = urllib.request.Request(
        f"http://127.0.0.1:{checkout.providers_port}/rehearsal/v1/chat/completions",
        data=json.dumps({"model": "rehearsal", "stream": True, "messages": messages}).encode(),
        headers={
            "Authorization": f"Bearer {environment['HERMES_PROVIDER_CAPABILITY']}",
            "Content-Type": "application/json",
        },
    )
    reached = []
    for count in CALLS:
        for _ in range(count):
            with urllib.request.urlopen(request, timeout=120) as response:
                response.read()
        reached.append(processes(checkout)["workerd"])
    few, many = reached
    return [
        Figure(f"workerd after {CALLS[0]} calls of a model", round(few, 1), "MB PSS", 220.0),
        Figure(f"after {CALLS[1]} more, against that", round(many / few, 2), "", 1.25),
    ]


def download(checkout: Checkout) -> None:
    """Read the newest backup to its end."""
    token = (checkout.state / "api_token").read_text().strip()
    base = f"http://127.0.0.1:{checkout.port}/api/instance/backups"
    headers = {"Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(
        urllib.request.Request(base, headers=headers), timeout=60
    ) as answer:
        (newest, *_) = json.load(answer)["backups"]
    request = urllib.request.Request(f"{base}/{newest['id']}", headers=headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        while answer.read(1 << 20):
            pass


def of_a_large_state(checkout: Checkout) -> list[Figure]:
    """What a large state adds to workerd: what waits for its garbage collector. On Cloudflare it has 128 MB."""
    (home,) = (checkout.state / "engine" / "disks").glob("*/disk/home/.hermes")
    with (home / "skills" / "large.bin").open("wb") as file:
        for _ in range(LARGE):
            file.write(os.urandom(1_000_000))
    saved = added(checkout, lambda: ask(checkout, "/api/instance/backups"))
    downloaded = added(checkout, lambda: download(checkout))
    verified = added(checkout, lambda: ask(checkout, "/api/instance/sleep"))
    # So that the vault has to serve.
    for snapshot in (checkout.state / "engine" / "snapshots").iterdir():
        shutil.rmtree(snapshot)
    restored = added(checkout, lambda: ask(checkout, "/api/instance/wake"))
    return [
        Figure(f"workerd while it saves a state of {LARGE} MB, more", saved, "MB", ISOLATE_MB),
        Figure("workerd while it is downloaded, more", downloaded, "MB", ISOLATE_MB),
        Figure("workerd while it is verified, more", verified, "MB", ISOLATE_MB),
        Figure("workerd while it restores that, more", restored, "MB", ISOLATE_MB),
    ]


def measure() -> list[Figure]:
    """Weigh a whole deployment on the process engine."""
    with fresh_checkout() as checkout:
        checkout.make("deploy")
        for _ in range(5):
            chat(checkout)
        parts = processes(checkout)
        ask(checkout, "/api/instance/sleep")
        asleep = sum(processes(checkout).values())
        chat(checkout)
        calls = of_many_calls(checkout)
        large = of_a_large_state(checkout)
    for kind, megabytes in sorted(parts.items()):
        print(f"   {kind}: {megabytes:.0f} MB")
    named = sum(parts.get(kind, 0.0) for kind in ("workerd", "engine", "hermes"))
    return [
        Figure("hermes, workerd and engine", round(named, 1), "MB PSS", GOAL_MB),
        Figure(
            "the same with supervisor, guardian and PID 1",
            round(sum(parts.values()), 1),
            "MB PSS",
            300.0,
        ),
        Figure("asleep", round(asleep, 1), "MB PSS", 150.0),
        *calls,
        *large,
    ]

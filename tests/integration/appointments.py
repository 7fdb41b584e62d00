# SPDX-License-Identifier: Apache-2.0
"""Hermes' cron jobs as its provider and its backups show them."""

from __future__ import annotations

import io
import json
import tarfile
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from plays import Deployment, wait_until

from tests.standins.provider import Provider, last_user_text

AWAY = timedelta(seconds=20)
"""From the making of an appointment to its time: long enough to put Hermes to sleep before it."""


def soon() -> str:
    """A time that is not far away, as Hermes takes it for a schedule."""
    return (datetime.now(UTC) + AWAY).isoformat(timespec="seconds")


def ask_hermes(deployment: Deployment, method: str, path: str, body: Any = None) -> Any:
    """Ask a process' own API, which only the sandbox and this machine reach."""
    environ = deployment.environment()
    request = urllib.request.Request(
        f"http://127.0.0.1:{environ['API_SERVER_PORT']}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {environ['API_SERVER_KEY']}",
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def run_now(deployment: Deployment, job: str) -> dict[str, Any]:
    """Have a job run, and return what Hermes noted of it: a new process looks at its jobs at once."""
    before = ask_hermes(deployment, "GET", f"/api/jobs/{job}")["job"]["last_run_at"]
    ask_hermes(deployment, "POST", f"/api/jobs/{job}/run")
    assert deployment.call("POST", "/api/instance/restart-gateway").status == 200

    def noted() -> dict[str, Any]:
        return dict(ask_hermes(deployment, "GET", f"/api/jobs/{job}")["job"])

    wait_until(lambda: noted()["last_run_at"] != before, "the job's run", 90)
    return noted()


def runs_of(provider: Provider, errand: str, since: int = 0) -> int:
    """How often the provider was asked for an errand."""
    asked = [seen.body["messages"] for seen in provider.seen[since:] if seen.body]
    return sum(errand in last_user_text(messages) for messages in asked)


def use(deployment: Deployment, tool: str, **arguments: Any) -> None:
    """Make Hermes' model call one of its tools."""
    answer = deployment.chat(f"Please call {tool} {json.dumps(arguments)}")
    assert answer.json["choices"][0]["finish_reason"] == "stop", answer.text


def keeps_its_own(deployment: Deployment, provider: Provider | None, errand: str) -> None:
    """The same for an appointment that is made by Hermes' own API, where this machine reaches that."""
    assert deployment.call("POST", "/api/instance/wake").status == 200
    job = {"name": "errand", "schedule": soon(), "prompt": errand}
    assert ask_hermes(deployment, "POST", "/api/jobs", job)["job"]["next_run_at"]
    keeps(
        deployment,
        provider,
        errand,
        lambda: ask_hermes(deployment, "GET", "/api/jobs")["jobs"] == [],
    )


def keeps(
    deployment: Deployment, provider: Provider | None, errand: str, is_done: Callable[[], bool]
) -> None:
    """A sleeping Hermes does its one errand in time, once, and the answer is in its state.

    provider: the stand-in that it asks; None where it rehearses.
    """
    said = len(provider.seen) if provider else 0
    assert deployment.call("POST", "/api/instance/sleep").status == 200
    due = deployment.status()["nextWake"]
    assert datetime.fromisoformat(due) - datetime.now(UTC) < AWAY
    if provider:
        wait_until(lambda: runs_of(provider, errand, said) > 0, "the provider is asked", 120)
    wait_until(lambda: deployment.instance_state() == "awake", "it wakes", 120)
    wait_until(is_done, "the job has ended", 60)
    assert deployment.status()["whyAwake"] == "cron"
    assert deployment.call("POST", "/api/instance/sleep").status == 200
    status = deployment.status()
    assert status["nextWake"] != due
    assert status["lastJobError"] is None
    (output,) = (text for text in outputs(deployment) if errand in text)
    answer = output.partition("## Response")[2]
    if provider is None:
        # It repeats the beginning only, which is Hermes' own.
        assert "Rehearsal model here" in answer
        return
    assert "The stand-in heard:" in answer and errand in answer
    assert runs_of(provider, errand, said) == 1


def outputs(deployment: Deployment) -> list[str]:
    """What jobs have answered, out of the newest backup."""
    return [text for name, text in newest_backup(deployment).items() if "cron/output/" in name]


def newest_backup(deployment: Deployment) -> dict[str, str]:
    """The files of the newest backup, by their names; each byte is a character."""
    newest = deployment.call("GET", "/api/instance/backups").json["backups"][0]["id"]
    with deployment.open("GET", f"/api/instance/backups/{newest}") as answer:
        archive = answer.read().partition(b"\n")[2]
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as members:
        files = [m for m in members if m.isfile()]
        return {m.name: members.extractfile(m).read().decode("latin-1") for m in files}

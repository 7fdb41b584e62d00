# SPDX-License-Identifier: Apache-2.0
"""What is assumed of a Hermes, asked of one that runs by what it does: each assumption by its name.

A Hermes of another source or version that keeps to all of it can be deployed as the pinned one is. What
container/sandbox/in_hermes/conformance.py sees in its code before anything is started, this sees happen.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import tarfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from plays import Deployment

from tests.standins.telegram import Telegram

WRITES = 77
"""Who may write to it by Telegram."""


def asked_by(telegram: Telegram) -> dict[str, Any]:
    """Return the variables of a deployment that can be asked all of it."""
    return {
        "hermes_provider": "rehearsal",
        "hermes_channels": {"telegram": {"token": telegram.token, "allow": [WRITES]}},
        "hermes_telegram_api_url": telegram.url,
    }


class Asked:
    """A deployment by whose Hermes each assumption is looked at, in their order."""

    def __init__(self, it: Deployment, telegram: Telegram) -> None:
        self.it, self.telegram = it, telegram
        self.session = f"conformance-{secrets.token_hex(4)}"

    def broken(self) -> list[str]:
        """Return the names of the assumptions that do not hold."""
        assumptions: dict[str, Callable[[], bool]] = {
            "API server": self.answers,
            "streams": self.streams,
            "sessions": self.remembers,
            "cron file": self.keeps_jobs,
            "managed settings": self.keeps_to_what_is_pinned,
            "dashboard": self.has_a_dashboard,
            "backup members": self.is_in_a_backup,
            "restart signals": self.restarts_in_place,
            "relay": self.is_reached_by_a_channel,
        }
        found = []
        for name, holds in assumptions.items():
            held = False
            # Another Hermes may answer in any shape; which assumption it broke is what is to be told.
            with suppress(Exception):
                held = holds()
            if not held:
                found.append(name)
        return found

    def answers(self) -> bool:
        answer = self.it.chat("My cat is called Ada.", session=self.session)
        finish = answer.json["choices"][0]["finish_reason"]
        return (answer.status, finish) == (200, "stop") and "Ada" in answer.said

    def streams(self) -> bool:
        text = self.it.chat("Hello", stream=True).text
        return text.count('"content"') > 3 and text.rstrip().endswith("data: [DONE]")

    def remembers(self) -> bool:
        return "Ada" in self.it.chat("What is she called?", session=self.session).said

    def own(self, name: str) -> str:
        """Return the text of a file of its home."""
        (file,) = self.it.state.glob(f"engine/disks/*/disk/home/.hermes/{name}")
        return file.read_text()

    def pids(self) -> set[Any]:
        """Return the ids of its processes."""
        return set(self.it.hermes_pids())

    def keeps_jobs(self) -> bool:
        name = f"yearly {self.session}"
        job = {"action": "create", "name": name, "schedule": "0 0 1 1 *", "prompt": "Look up."}
        self.it.chat(f"call cronjob {json.dumps(job)}")
        jobs = json.loads(self.own("cron/jobs.json"))["jobs"]
        (kept,) = [one for one in jobs if one["name"] == name]
        at = re.fullmatch(r"\d{4}-01-01T00:00:00[+-]\d\d:\d\d", kept["next_run_at"])
        return bool(at) and kept["enabled"] and kept["state"] == "scheduled"

    def keeps_to_what_is_pinned(self) -> bool:
        """In a process it has no tools that touch the machine, whatever its own configuration says."""
        (own,) = self.it.state.glob("engine/disks/*/disk/home/.hermes/config.yaml")
        before = own.read_text()
        own.write_text("agent: {disabled_toolsets: []}\n")
        said = self.it.chat('call terminal {"command": "id"}').said
        own.write_text(before)
        return said.startswith("No tool terminal is offered, but: ") and "memory" in said

    def has_a_dashboard(self) -> bool:
        beside = Deployment(self.it.name, self.it.home, port=self.it.dashboard_port)
        told = beside.call("GET", "/api/sessions")
        return told.status == 200 and self.session in told.text

    def is_in_a_backup(self) -> bool:
        taken = self.it.call("POST", "/api/instance/backups")
        newest = self.it.call("GET", "/api/instance/backups").json["backups"][0]["id"]
        with self.it.open("GET", f"/api/instance/backups/{newest}") as answer:
            archive = answer.read().partition(b"\n")[2]
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as members:
            names = {name.rpartition(".hermes/")[2] or name for name in members.getnames()}
        return taken.status == 200 and {"state.db", "cron/jobs.json", "config.yaml"} <= names

    def restarts_in_place(self) -> bool:
        boot, before = self.it.status()["bootId"], self.pids()
        restarted = self.it.call("POST", "/api/instance/restart-gateway").status == 200
        same = self.remembers() and self.it.status()["bootId"] == boot
        return restarted and same and not before & self.pids()

    def is_reached_by_a_channel(self) -> bool:
        answer = self.telegram.await_answer(self.telegram.write("good morning", WRITES))
        return answer.chat == WRITES and "good morning" in answer.text

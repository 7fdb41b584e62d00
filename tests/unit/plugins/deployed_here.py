# SPDX-License-Identifier: Apache-2.0
"""A deployment on this machine as its actions find it: a state folder, a supervisor's record, a Worker that answers.

Actions run as a play runs them, from their options to their result; what they asked the Worker is kept.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.task import Task
from ansible.template import Templar
from ansible_collections.hermes.workers.plugins.module_utils.digests import proof
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.actions.card_action import CardAction
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import (
    SUPERVISOR_RECORD,
    StateFolder,
)
from api_server import ApiServer, Call, Reply
from inventory_play import Local

NAME = "alice"
TOKEN = "hw_canary-of-a-deployment"
HEALTH = {
    "status": "ok",
    "worker": {"version": "1.0"},
    "hermes": {"gateway": "running"},
    "instance": {"state": "awake"},
}


def error(status: int, message: str) -> Reply:
    """A refusal as the Worker words it."""
    return Reply(status, {"error": {"code": "code", "message": message}})


class DeployedHere:
    """One deployment, whose Worker answers each path as `answers` has it: a reply, content, or a function."""

    def __init__(self, folder: Path) -> None:
        self.deployment = StateFolder(str(folder / "state"), NAME)
        self.deployment.create()
        self.deployment.keep_token(TOKEN)
        self.secrets = {"API_TOKEN": TOKEN}
        """What the Worker holds, by name."""
        self.answers: dict[str, Any] = {
            "GET /api/health": HEALTH,
            "POST /api/secrets/proof": self._proofs,
        }
        self.worker = ApiServer(self._answer)
        self.lines: list[str] = []
        """What a person sees while an action runs."""

    def _answer(self, call: Call) -> Reply:
        if call.headers.get("authorization") != f"Bearer {self.secrets['API_TOKEN']}":
            return error(401, "This API token is not the deployment's.")
        found = self.answers.get(f"{call.method} {call.path}", error(404, "There is nothing here."))
        if callable(found):
            found = found(call)
        return found if isinstance(found, Reply) else Reply(200, found)

    def _proofs(self, call: Call) -> dict[str, Any]:
        nonce = call.body["nonce"]
        return {"proofs": {name: proof(value, nonce) for name, value in self.secrets.items()}}

    @property
    def asked(self) -> list[str]:
        """What the Worker was asked to do, looks left out."""
        done = (f"{call.method} {call.path}" for call in self.worker.writes)
        return [one for one in done if one != "POST /api/secrets/proof"]

    def settings(self, **more: Any) -> Settings:
        """Checked settings of this deployment."""
        given = {"port": self.worker.server_address[1], "state_dir": str(self.deployment.state_dir)}
        return Settings(name=NAME, platform="workerd", **(given | more))

    @contextmanager
    def running(self, **more: Any) -> Iterator[None]:
        """Hold a supervisor's record, as a running one does. more: of the record."""
        record = self.deployment.folder / SUPERVISOR_RECORD
        ports = {"http": self.worker.server_address[1]}
        record.write_text(json.dumps({"pid": os.getpid(), "ports": ports} | more))
        with record.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield

    def run(
        self,
        action: Callable[..., CardAction],
        options: dict[str, Any] | None = None,
        *,
        check: bool = False,
        **variables: Any,
    ) -> dict[str, Any]:
        """Run an action of what was deployed. options: of the task; variables: of its host."""
        found = {
            "inventory_hostname": NAME,
            "hermes_state_dir": str(self.deployment.state_dir),
            **variables,
        }
        task, loader = Task(), DataLoader()
        task.args, task.check_mode, task.diff = options or {}, check, True
        plugin = action(
            task=task,
            connection=Local(),
            play_context=None,
            loader=loader,
            templar=Templar(loader=loader, variables=found),
            shared_loader_obj=None,
        )
        plugin._show_line = self.lines.append  # type: ignore[method-assign]
        return dict(plugin.run(task_vars=found))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeployedHere]:
    monkeypatch.chdir(tmp_path)
    made = DeployedHere(tmp_path)
    with made.worker, made.running():
        yield made

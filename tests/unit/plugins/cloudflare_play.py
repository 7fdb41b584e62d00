# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs the actions of a deployment at Cloudflare as a play does: against an account in memory, and its Worker."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from ansible import context
from ansible.module_utils.common.collections import ImmutableDict
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.task import Task
from ansible.template import Templar
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import client
from ansible_collections.hermes.workers.plugins.module_utils.digests import proof
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import (
    Answer,
    RemoteClient,
    Unreachable,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.actions.card_action import CardAction
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder
from api_server import ApiServer
from fake_account import ACCOUNT, TOKEN, FakeAccount
from inventory_play import Local

PLUGINS = "ansible_collections.hermes.workers.plugins.action"


class Worker:
    """The Worker of alice: proves what the account gave it, and answers what it is told to."""

    def __init__(self, account: FakeAccount) -> None:
        self.account = account
        self.silent = False
        self.in_step = True
        self.answers: dict[str, Any] = {}
        """JSON, or a status, by method and path."""
        self.content = b""
        """Of the one backup."""
        self.asked: list[str] = []

    def answer(self, token: str | None, method: str, path: str, body: Any) -> Answer:
        """Answer one request."""
        self.asked.append(f"{method} {path}")
        if self.silent or "alice" not in self.account.secrets:
            raise Unreachable("no route to host")
        held = self.account.secrets["alice"]
        if token != held.get("API_TOKEN"):
            return told(401)
        if path == "/api/secrets/proof" and path not in self.answers:
            return told({"proofs": {name: proof(v, body["nonce"]) for name, v in held.items()}})
        if path == "/api/health" and path not in self.answers:
            version = self.account.variables["alice"]["WORKER_VERSION"]
            instance = {"inStep": self.in_step, "state": "asleep"}
            return told({"worker": {"version": version}, "instance": instance})
        return told(self.answers.get(f"{method} {path}", self.answers.get(path, {})))


def told(content: Any) -> Answer:
    """An answer of JSON, or a refusal of this status."""
    if isinstance(content, int):
        return Answer(content, {}, b'{"error": {"message": "not now"}}')
    return Answer(200, {}, json.dumps(content).encode())


class Play:
    """A play for alice. Nobody waits."""

    def __init__(self, server: ApiServer, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.server = server
        self.account: FakeAccount = server.answer
        self.worker = worker = Worker(self.account)
        self.shown: list[str] = []
        self.said: list[str] = []
        self.state = folder / "state"
        self.deployment = StateFolder(str(self.state), "alice")
        self.variables: dict[str, Any] = {
            "inventory_hostname": "alice",
            "cloudflare_api_token": TOKEN,
            "cloudflare_api_base_url": server.url,
            "hermes_account_id": ACCOUNT,
            "hermes_state_dir": str(self.state),
            "hermes_platform": "cloudflare",
        }
        self.settings = Settings(
            name="alice",
            platform="cloudflare",
            engine="cloudflare",
            account_id=ACCOUNT,
            api_base_url=server.url,
            state_dir=str(self.state),
            host="alice.acme.workers.dev",
            uploader="api",
        )
        self.now = 0.0

        def request(
            made: RemoteClient, method: str, path: str, body: Any = None, *_: Any, **__: Any
        ) -> Answer:
            assert made.url == "https://alice.acme.workers.dev"
            return worker.answer(made.token, method, path, body)

        def download(made: RemoteClient, path: str, write: Any, _timeout: float) -> Answer:
            found = worker.answer(made.token, "GET", path, None)
            if found.status == 200:
                write(worker.content)
            return found

        def sleep(seconds: float) -> None:
            self.now += max(seconds, 0.01)

        patch.setattr(context, "CLIARGS", ImmutableDict(extra_vars=(), verbosity=0))
        patch.setattr(RemoteClient, "request", request)
        patch.setattr(RemoteClient, "download", download)
        patch.setattr(client.time, "sleep", sleep)
        patch.setattr(client.time, "monotonic", lambda: self.now)
        patch.setattr(CardAction, "show", lambda _action, lines: self.shown.extend(lines))
        patch.setattr(CardAction, "progress", lambda _action, text: self.said.append(text))
        # What a real play's end would end.
        patch.setattr(StateFolder, "take", lambda _folder, _purpose: None)

    def run(self, name: str, *, check: bool = False, diff: bool = False, **options: Any) -> Any:
        """Run an action; returns the task's result."""
        self.shown.clear()
        self.said.clear()
        task = Task()
        task.args, task.check_mode, task.diff = options, check, diff
        if name != "cloudflare_destroy":
            task.args = {"settings": asdict(self.settings), **options}
        loader = DataLoader()
        plugin = importlib.import_module(f"{PLUGINS}.{name}").ActionModule(
            task=task,
            connection=Local(),
            play_context=None,
            loader=loader,
            templar=Templar(loader=loader, variables=self.variables),
            shared_loader_obj=None,
        )
        return dict(plugin.run(task_vars=dict(self.variables)))

    @property
    def wrote(self) -> list[str]:
        """What was changed at the account, in its order."""
        return [f"{call.method} {call.path.split('/', 3)[3]}" for call in self.server.writes]

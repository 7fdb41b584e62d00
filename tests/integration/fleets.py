# SPDX-License-Identifier: Apache-2.0
"""Many deployments of one account at the stand-in for Cloudflare, by one play and told apart by their tokens."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import (
    REPOSITORY,
    Sources,
)
from plays import PLAYBOOK, ROOT, Play, clean_environment, run
from runtimes import share_tools, share_wrangler

from tests.cloudflare import ControlPlane
from tests.cloudflare.accounts import Worker
from tests.cloudflare.calls import Record

ACCOUNT = "0123456789abcdef0123456789abcdef"
KEY = "sk-ant-canary-" + secrets.token_hex(16)


class Fleet:
    """Hosts of one account, each with its own token and hostname."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        """folder: for the state folder of all deployments, and the plays' files."""
        self.plane = plane
        self.home = folder / "home"
        self.home.mkdir(mode=0o700)
        share_tools(self.home)
        share_wrangler(self.home)
        self.tokens: dict[str, str] = {}
        self.variables: dict[str, dict[str, Any]] = {}
        """What is different about a host."""
        self.common: dict[str, Any] = {}
        """What is different about all of them."""
        plane.add_account(ACCOUNT, "unused", zones=["example.com"])
        self.push(Sources())
        # Nobody wakes Hermes here, so its image need not be installed.
        plane.edge.binaries.image = lambda: folder

    def push(self, sources: Sources, base: str = "") -> str:
        """Have the image of these sources in the registry, as if somebody had pushed it; returns its digest."""
        tag = sources.container_image(base)
        return self.plane.registry.add_image(f"{ACCOUNT}/{REPOSITORY}", tag, note=tag)

    def add(self, name: str) -> str:
        """Add a host; returns the id of its token."""
        self.tokens[name] = "cf-canary-" + secrets.token_hex(16)
        self.plane.add_account(ACCOUNT, self.tokens[name])
        return self.plane.state.tokens[self.tokens[name]].id

    def play(self, *arguments: str, hosts: list[str] | None = None, root: Path = ROOT) -> Play:
        """Deploy hosts without a chat at the end: what is sent to Cloudflare is the same. root: the checkout."""
        playbook = self.home / "apply.yml"
        role = {"name": "hermes.workers.preflight", "rolespec_validate": False}
        tasks = [
            {"ansible.builtin.import_role": role},
            {
                "ansible.builtin.include_tasks": str(root / "playbooks" / "tasks" / "apply.yml"),
                "when": "preflight_result.changes | length > 0",
            },
        ]
        play = {"hosts": "all", "gather_facts": False, "connection": "local", "tasks": tasks}
        playbook.write_text(json.dumps([play]))
        return self._run(playbook, hosts, root, *arguments)

    def run(self, playbook: str, *arguments: str) -> Play:
        """Run a playbook of the collection on all hosts."""
        return self._run(ROOT / "playbooks" / f"{playbook}.yml", None, ROOT, *arguments)

    def destroy(self) -> Play:
        """Destroy all hosts, without a backup."""
        answers = ("-e", "hermes_confirm=yes", "-e", "hermes_forget=yes")
        return self.run("destroy", *answers)

    def _run(self, playbook: Path, hosts: list[str] | None, root: Path, *arguments: str) -> Play:
        inventory = self.home / "inventory.json"
        chosen = {name: self._host(name) for name in hosts or self.tokens}
        inventory.write_text(json.dumps({"all": {"hosts": chosen}}))
        words = [PLAYBOOK, playbook, "-i", inventory, "--forks", "4", *arguments]
        done = run(words, root, clean_environment(**self.plane.env), seconds=900)
        return Play(done.returncode, done.stdout)

    def _host(self, name: str) -> dict[str, Any]:
        return {
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "hermes_state_dir": str(self.home),
            "hermes_account_id": ACCOUNT,
            "cloudflare_api_token": self.tokens[name],
            "hermes_provider": "rehearsal",
            "anthropic_api_key": KEY,
            "hermes_dashboard_hostname": f"{name}.example.com",
            **self.common,
            **self.variables.get(name, {}),
        }

    def worker(self, name: str) -> Worker | None:
        """What the account holds under a Worker's name."""
        return self.plane.state.accounts[ACCOUNT].workers.get(name)

    def calls(self, name: str, start: int = 0) -> list[Record]:
        """The calls from the start-th of all on that a host's token was sent with."""
        token = self.plane.state.tokens[self.tokens[name]].id
        return [call for call in self.plane.calls_log.since(start) if call.token == token]

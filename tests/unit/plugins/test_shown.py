# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What people are shown is in a task's result too, for controllers that keep results and no output."""

from __future__ import annotations

from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.playbook.task import Task
from ansible.template import Templar
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.plugin_utils.actions.card_action import CardAction
from inventory_play import Local


def run(action: type[CardAction]) -> dict[str, Any]:
    loader = DataLoader()
    plugin = action(
        task=Task(),
        connection=Local(),
        play_context=None,
        loader=loader,
        templar=Templar(loader=loader, variables={}),
        shared_loader_obj=None,
    )
    return dict(plugin.run(task_vars={}))


class Shows(CardAction):
    def execute(self, options: dict[str, Any]) -> dict[str, Any]:
        self.show(["", "alice: deployed"])
        self.show(["  URL  x\n  token  y"])
        return {"changed": True}


class Fails(CardAction):
    def execute(self, options: dict[str, Any]) -> dict[str, Any]:
        self.show(["Plan"])
        raise Card.of("hermes_port", "is taken.", "set another.", "port")


def test_what_is_shown_is_in_the_result() -> None:
    result = run(Shows)
    assert result["shown"] == ["", "alice: deployed", "  URL  x", "  token  y"]
    assert result["changed"] is True


def test_a_failures_card_is_its_message() -> None:
    result = run(Fails)
    assert result["failed"] is True
    assert "hermes_port" in result["msg"]
    assert "set another." in result["msg"]
    assert result["shown"] == ["Plan"]

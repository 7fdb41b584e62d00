# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Which tools a running Hermes offers its model, against those that it is to have."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.action.verify_deployment import ActionModule
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import Answer
from ansible_collections.hermes.workers.plugins.plugin_utils.agent.content import TABLE, Member
from ansible_collections.hermes.workers.plugins.plugin_utils.proof.toolsets import HOST_TOOLSETS

KNOWN = {*HOST_TOOLSETS, "web", "tts", "image_gen", "todo"}


def proof(
    offered: set[str], *, pinned: Any = None, status: int = 200, **settings: Any
) -> list[tuple[str, str]]:
    """Return the rows of the card of a deployment whose Hermes offers so much. Raises the card of what is wrong."""
    listed = [{"name": name, "enabled": name in offered} for name in sorted(KNOWN)]
    content = json.dumps({"data": listed}).encode() if status == 200 else b"a page"
    action = ActionModule.__new__(ActionModule)
    action.settings = Settings(name="alice", **settings)
    table = {"config": {"pinned": pinned or {}, "initial": {}}}
    action.agent = {TABLE: Member(json.dumps(table).encode())} if pinned is not None else {}
    action.client = None
    action.command = lambda playbook, **_variables: f"make {playbook}"
    action.changed_so_far = lambda: ""
    action.turned_off, action.running = [], None
    action.chats = SimpleNamespace(
        request=lambda _client, _method, _path: Answer(status, {}, content)
    )
    action._toolsets()
    return action.turned_off


def test_a_process_offers_nothing_that_touches_the_machine() -> None:
    assert proof({"web", "todo"}, engine="process") == []
    with pytest.raises(Card) as caught:
        proof({"web", "terminal", "file"}, engine="process")
    told = [(one.subject, one.sentence) for one in caught.value.problems]
    assert [subject for subject, _ in told] == ["hermes_host_tools"] * 2
    assert "the tools of file all the same" in told[0][1]
    assert "make lifecycle" in caught.value.problems[0].remedy


@pytest.mark.parametrize("place", [{"engine": "process", "host_tools": True}, {"engine": "docker"}])
def test_where_it_may_it_does(place: dict[str, Any]) -> None:
    assert proof(KNOWN, **place) == []


def test_what_the_inventory_turns_off_is_off() -> None:
    pinned = {"agent": {"disabled_toolsets": ["web"]}}
    assert proof(KNOWN - {"web"}, pinned=pinned, engine="docker", features=("web",)) == []
    with pytest.raises(Card) as caught:
        proof(KNOWN, pinned=pinned, engine="docker")
    (problem,) = caught.value.problems
    assert problem.subject == "hermes_config.pinned.agent.disabled_toolsets"


@pytest.mark.parametrize("pinned", [{}, {"agent": None}, {"agent": {"disabled_toolsets": None}}])
def test_a_declaration_may_say_nothing_of_it(pinned: dict[str, Any]) -> None:
    assert proof(KNOWN, pinned=pinned, engine="docker") == []


def test_of_a_feature_that_its_owner_turned_off_the_card_tells() -> None:
    ((label, words),) = proof(KNOWN - {"tts", "web"}, engine="docker", features=("voice", "mcp"))
    assert label == "kept" and "tts" in words and "web" not in words


def test_a_hermes_that_does_not_tell_is_not_verified() -> None:
    with pytest.raises(Card, match="does not tell which tools it has"):
        proof(set(), status=500, engine="docker")

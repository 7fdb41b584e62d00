# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Waking, sleeping, restarting: what is asked of the Worker, what is left alone, and what is told."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.action.instance import ACTIONS, ActionModule
from ansible_collections.hermes.workers.plugins.module_utils.cards import Problem
from ansible_collections.hermes.workers.plugins.plugin_utils.actions import deployment_action
from deployed_here import HEALTH, DeployedHere, error, here

__all__ = ["here"]


def health(state: str, gateway: str | None) -> dict[str, Any]:
    return HEALTH | {"instance": {"state": state}, "hermes": {"gateway": gateway}}


@pytest.mark.parametrize("action", ACTIONS)
def test_each_is_asked_of_the_worker_once_and_what_came_of_it_is_told(
    here: DeployedHere, action: str
) -> None:
    told = [health("awake", None), health("asleep", None)]
    if action == "stop":
        told[0] = health("awake", "running")
    elif action == "wake":
        told.reverse()
    path = ACTIONS[action].partition("?")[0]
    here.answers |= {
        "GET /api/health": lambda _call: told.pop(0) if len(told) > 1 else told[0],
        f"POST /api/instance/{path}": {},
    }
    result = here.run(ActionModule, {"action": action})
    assert result["changed"] is True
    assert here.asked == [f"POST /api/instance/{path}"]
    assert here.worker.writes[0].query == ({"force": "true"} if action == "sleep-by-force" else {})
    is_now = "awake, its gateway stopped" if action == "wake" else "asleep"
    assert result["shown"] == ["", f"alice: Hermes is {is_now}"]
    assert f"{action}: asking the Worker" in here.lines


@pytest.mark.parametrize(
    ("action", "state", "gateway"),
    [
        ("wake", "awake", "running"),
        ("sleep", "asleep", None),
        ("sleep-by-force", "asleep", None),
        ("stop", "asleep", None),
        ("stop", "awake", None),
    ],
)
def test_who_is_so_already_is_left_alone(
    here: DeployedHere, action: str, state: str, gateway: str | None
) -> None:
    here.answers["GET /api/health"] = health(state, gateway)
    result = here.run(ActionModule, {"action": action})
    assert result["changed"] is False and here.asked == []
    assert result["shown"][1].endswith(" already")


@pytest.mark.parametrize("action", ["wake", "restart"])
def test_a_try_tells_of_the_change_and_makes_none(here: DeployedHere, action: str) -> None:
    here.answers["GET /api/health"] = health("asleep", None)
    result = here.run(ActionModule, {"action": action}, check=True)
    assert result["changed"] is True and here.asked == []
    assert result["instance"] == {"state": "asleep", "gateway": None}
    assert not (here.deployment.folder / "lock.json").exists()


@pytest.mark.parametrize(
    ("action", "words"), [("", "hermes_action: not set."), ("dance", "hermes_action: 'dance' is")]
)
def test_what_nobody_can_ask_is_refused_with_what_can_be(
    here: DeployedHere, action: str, words: str
) -> None:
    result = here.run(ActionModule, {"action": action})
    assert result["msg"].startswith(words) and "restart-gateway" in result["msg"]
    assert here.worker.calls == []


def test_what_the_worker_refuses_is_told_and_the_log_named(here: DeployedHere) -> None:
    here.answers["POST /api/instance/restart"] = error(503, "Its state cannot be saved.")
    result = here.run(ActionModule, {"action": "restart"})
    assert result["failed"] and result["msg"].startswith("alice: Its state cannot be saved.")
    assert "logs" in result["msg"] and "shown" not in result


@pytest.mark.parametrize("there", [True, False], ids=["stopped", "nothing"])
def test_of_what_does_not_run_nothing_is_asked(
    here: DeployedHere, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    if there:
        monkeypatch.setattr(type(here.deployment), "supervisor", lambda _folder: None)
    name = here.deployment.name if there else "bob"
    result = here.run(ActionModule, {"action": "wake", "name": name})
    words = (
        "alice: its processes do not run." if there else "bob: not deployed: there is no state/bob."
    )
    assert result["msg"].startswith(words) and "deploy" in result["msg"]
    assert here.worker.calls == []


@pytest.mark.parametrize(
    "variables",
    [{"hermes_name": "No Name"}, {"hermes_name": "{{ nothing_of_that_name }}"}],
    ids=["refused", "unreadable"],
)
def test_a_name_that_is_none_is_told_by_its_variable(
    here: DeployedHere, variables: dict[str, str]
) -> None:
    result = here.run(ActionModule, {"action": "wake"}, **variables)
    assert result["msg"].startswith("hermes_name: ")
    assert here.worker.calls == []


def test_a_full_disk_is_named_before_what_the_worker_says(
    here: DeployedHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Problem("disk", "no space left.", "free space there.", "disk")
    monkeypatch.setattr(deployment_action, "full_disk", lambda _folder: full)
    here.answers["GET /api/health"] = error(500, "Oh.")
    card = here.run(ActionModule, {"action": "wake"})["msg"]
    assert card.index("disk: no space left.") < card.index("alice: Oh.")

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A deployment that lets strangers in, or that does not have all that it was given, does not pass its verification."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.action.verify_deployment import ActionModule
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import Answer
from ansible_collections.hermes.workers.plugins.plugin_utils.proof import in_force


def verification(statuses: dict[str | None, int], **settings: Any) -> ActionModule:
    """Return the action before a Worker that answers each token with a status."""
    action = ActionModule.__new__(ActionModule)
    action.settings = Settings(name="alice", **settings)
    action.command = lambda playbook: f"make {playbook}"
    action.service = SimpleNamespace(stranger=lambda token: token)
    action.chats = SimpleNamespace(
        request=lambda token, _method, _path: Answer(statuses[token], {}, b"{}")
    )
    return action


def test_who_has_no_token_or_a_wrong_one_has_to_be_refused() -> None:
    verification({None: 401, "hw_wrong": 401})._refuses_strangers()


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        ({None: 200, "hw_wrong": 401}, "answers 200 to a request with no token, not 401"),
        ({None: 401, "hw_wrong": 200}, "answers 200 to a request with a wrong token, not 401"),
        ({None: 503, "hw_wrong": 401}, "answers 503"),
    ],
)
def test_a_worker_that_lets_them_in_is_not_safe(
    statuses: dict[str | None, int], words: str
) -> None:
    with pytest.raises(Card) as caught:
        verification(statuses)._refuses_strangers()
    (problem,) = caught.value.problems
    assert words in problem.sentence
    assert "not safe" in problem.remedy


def test_who_goes_without_a_token_is_asked_nothing() -> None:
    verification({}, allow_unauthenticated=True)._refuses_strangers()


LATE, COME = (
    {
        "worker": {"version": "new"},
        "instance": {"state": "asleep", "inStep": in_step},
    }
    for in_step in (False, True)
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is in seconds, which passes by sleeping only."""
    now = [0.0]
    monkeypatch.setattr(in_force.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(in_force.time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    return now


def proof_of(*answers: dict[str, Any]) -> tuple[ActionModule, list[str]]:
    """Return the action of a play that changes nothing, and what it shows. answers: to /api/health, one by one."""
    action, lines, left = verification({}), list[str](), list(answers)
    action.options = {"changed_before": False}
    action.service = SimpleNamespace(version="new", is_as_built=lambda: True)
    action.client = SimpleNamespace(
        request=lambda *_, **__: Answer(
            200, {}, json.dumps(left.pop(0) if len(left) > 1 else left[0]).encode()
        )
    )
    action._full = lambda: False
    action.progress = lines.append
    return action, lines


def test_an_object_that_nobody_brings_up_to_date_is_told_of_and_not_waited_for(
    clock: list[float],
) -> None:
    action, lines = proof_of(LATE)
    with pytest.raises(Card) as caught:
        action._health()
    (problem,) = caught.value.problems
    assert "still runs with the code, settings or secrets of before" in problem.sentence
    assert "run `make deploy`; it brings it what it lacks" in problem.remedy
    assert clock[0] < 30, "Cloudflare is waited for, which takes five minutes"
    assert len(lines) == 1, "nobody is told why it takes a moment"


def test_an_object_that_takes_it_in_a_moment_is_waited_for(clock: list[float]) -> None:
    action, lines = proof_of(LATE, LATE, LATE, COME)
    assert action._health() == COME
    assert len(lines) == 1
    action, lines = proof_of(COME)
    assert action._health() == COME
    assert lines == []


def test_what_this_very_play_changed_is_waited_for_as_long_as_cloudflare_takes(
    clock: list[float],
) -> None:
    action, _ = proof_of(*[LATE] * 2900, COME)
    action.options = {"changed_before": True}
    assert action._health() == COME
    assert clock[0] > 280

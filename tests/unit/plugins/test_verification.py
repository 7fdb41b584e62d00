# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A deployment that lets strangers in, or that does not have all that it was given, does not pass its verification."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.action import verify_deployment
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


class Noted:
    """The proof of a state folder. version, unasked: what is noted."""

    def __init__(self, version: str | None = None, *, unasked: bool = False) -> None:
        self.version, self.unasked = version, unasked

    def token(self) -> str:
        return "t"

    def is_proved(self, version: str) -> bool:
        return self.version == version

    def is_unasked(self) -> bool:
        return self.unasked

    def note_proof(self, version: str, *, asked: bool = True) -> None:
        self.version, self.unasked = version, not asked


@pytest.mark.parametrize(
    ("state", "options", "noted", "asked", "then"),
    [
        # What was changed is proved by a chat, but for what a sleeping one wakes with.
        ("asleep", {"changed_before": True}, Noted(), "chat agent", Noted("new")),
        (
            *("asleep", {"changed_before": True, "left_asleep": True}),
            *(Noted(), "", Noted("new", unasked=True)),
        ),
        # Somebody woke it between the plan and the proof.
        (
            *("awake", {"changed_before": True, "left_asleep": True}),
            *(Noted(), "chat agent", Noted("new")),
        ),
        ("asleep", {}, Noted("new", unasked=True), "", Noted("new", unasked=True)),
        ("awake", {}, Noted("new", unasked=True), "agent", Noted("new")),
        ("awake", {}, Noted("new"), "", Noted("new")),
        # What is proved is of another version than the one that runs.
        ("asleep", {}, Noted("old", unasked=True), "chat agent", Noted("new")),
        ("asleep", {"verify": "full"}, Noted("new", unasked=True), "chat agent", Noted("new")),
    ],
    ids=[
        *("changed", "content-asleep", "woken-meanwhile", "asleep-still"),
        *("awake-again", "unchanged", "another-version", "asked-to"),
    ],
)
def test_whom_a_proof_wakes_and_what_it_asks(
    state: str,
    options: dict[str, Any],
    noted: Noted,
    asked: str,
    then: Noted,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noted = Noted(noted.version, unasked=noted.unasked)  # another run of this test has its own
    action, done = verification({}, verify=options.get("verify", "auto")), list[str]()
    action.options = {"changed_before": False, "left_asleep": False} | options
    action._task = SimpleNamespace(check_mode=False)
    action.task_vars = {}
    action.deployment, action.agent = noted, {"agent.json": None}
    action.progress = action.show = lambda *_: None
    action.service = SimpleNamespace(
        version="new", url="u", reached="", connect=lambda _: None, prune=lambda: None
    )
    chats = SimpleNamespace(ask=lambda: done.append("chat") or "m", stream=lambda: 0.1)
    monkeypatch.setattr(verify_deployment, "Chats", lambda *_: chats)
    monkeypatch.setattr(verify_deployment.channels, "register", lambda *_, **__: {})
    running = {"kept": []} if state == "awake" else None
    monkeypatch.setattr(verify_deployment.agent_proof, "told", lambda _: running)
    monkeypatch.setattr(verify_deployment, "health_words", lambda _: "")
    nothing = ("_storage", "_refuses_strangers", "_version", "_packages", "_toolsets")
    for name in nothing:
        setattr(action, name, lambda *_: None)
    action._service = lambda: action.service
    action._health = lambda: {"instance": {"state": state}}
    action._summary = lambda *_: []
    action._agent = lambda: done.append("agent")
    action.deploy()
    assert " ".join(done) == asked
    assert (noted.version, noted.unasked) == (then.version, then.unasked)

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What a plan says of a running Hermes, and what a refresh must see before it is content."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.action.deployment_info import (
    ActionModule as DeploymentInfo,
)
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import (
    Answer,
    Unreachable,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.plan import Actual, hermes_change
from ansible_collections.hermes.workers.plugins.plugin_utils.proof import in_force
from ansible_collections.hermes.workers.plugins.plugin_utils.proof.in_force import (
    Restart,
    outstanding,
    preview,
    refresh,
    wait_until_known,
)

VARIABLES = {"HERMES_IMAGE": "new"}
NEEDED = Restart("hermes", ["hermes_env"])


def told(state: str = "awake", **configuration: Any) -> dict[str, Any]:
    return {"instance": {"state": state, "image": "old", "configuration": configuration or None}}


STALE = told(current=False, differs=["hermes_env"], restart="hermes")
CURRENT = told(current=True, differs=[], restart="nothing")


class Worker:
    """Answers with what it was given, the last of it again and again; an exception is raised."""

    def __init__(self, *answers: Any, refusal: int = 0) -> None:
        self.answers = list(answers)
        self.refusal = refusal
        self.asked: list[tuple[str, Any]] = []

    def request(self, method: str, path: str, body: Any = None, **_more: Any) -> Answer:
        self.asked.append((path, body))
        if method == "POST" and self.refusal:
            return answer(self.refusal, {"error": {"message": "It is busy.", "code": "busy"}})
        if path in ("/api/instance/refresh", "/api/instance/restart"):
            return answer(200, {})
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        return answer(200, found)


def answer(status: int, content: Any) -> Answer:
    return Answer(status, {}, json.dumps(content).encode())


def change(actual: Actual, **more: Any) -> str | None:
    found = hermes_change(VARIABLES, actual, **({"changed": True, "secrets": []} | more))
    return found and found.restarts


def test_a_plan_asks_the_worker_what_the_new_variables_and_secrets_restart() -> None:
    worker = Worker({"restart": "hermes", "because": ["hermes_env", "hermes_secrets"]})
    words = change(Actual(None, worker, CURRENT), secrets=["HERMES_SECRETS"])
    assert words == "Hermes, because of hermes_env, hermes_secrets"
    body = {"variables": VARIABLES, "secrets": ["HERMES_SECRETS"]}
    assert worker.asked == [("/api/instance/preview", body)]


def test_a_plan_without_changes_brings_what_an_earlier_deploy_did_not() -> None:
    worker = Worker()
    words = change(Actual(None, worker, STALE), changed=False)
    assert words == "Hermes, because of hermes_env"
    assert change(Actual(None, worker, CURRENT), changed=False) is None
    assert change(Actual(None, worker, told("asleep")), changed=False) is None
    assert worker.asked == []


@pytest.mark.parametrize(
    ("restart", "words"),
    [
        ("hermes", "Hermes, because of hermes_env, unless the start under way still takes it"),
        ("sandbox", "Hermes in a new sandbox, because of hermes_env"),
        ("nothing", None),
    ],
)
def test_a_plan_during_a_start_says_that_it_may_still_take_the_new_settings(
    restart: str, words: str | None
) -> None:
    because = [] if restart == "nothing" else ["hermes_env"]
    worker = Worker({"restart": restart, "because": because, "starting": True})
    assert change(Actual(None, worker, told("booting"))) == words


@pytest.mark.parametrize("silent", [Worker(Unreachable("gone")), Worker({}, refusal=404)])
def test_a_plan_says_that_it_was_not_told_what_is_restarted(silent: Worker) -> None:
    same = {"instance": told()["instance"] | {"image": VARIABLES["HERMES_IMAGE"]}}
    words = "Hermes, where it has other settings: it did not tell"
    assert change(Actual(None, silent, same)) == words


@pytest.mark.parametrize("silent", [Worker(Unreachable("gone")), Worker({}, refusal=404)])
def test_of_a_worker_that_cannot_tell_the_image_is_compared(silent: Worker) -> None:
    assert change(Actual(None, silent, told())) == "Hermes in a new sandbox, because of a new image"
    assert change(Actual(None, silent, told("asleep"))) is None
    assert change(Actual(None, None, {})) is None


def test_no_restart_is_no_line() -> None:
    assert change(Actual(None, Worker({"restart": "nothing", "because": []}), CURRENT)) is None
    assert not Restart()
    assert preview(None, VARIABLES, []) is None


def test_nothing_is_said_before_the_worker_has_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_force, "POLL_SECONDS", 0)
    assert outstanding(wait_until_known(Worker(told("booting"), told(), STALE), "a"))
    assert not outstanding(wait_until_known(Worker(told("asleep")), "a"))
    monkeypatch.setattr(in_force, "KNOWN_SECONDS", 0)
    with pytest.raises(Card, match="does not tell"):
        wait_until_known(Worker(told()), "a")


def test_an_object_that_is_not_of_its_worker_is_waited_for_and_is_never_in_force(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it says of itself is true by the settings of before, which it has."""
    monkeypatch.setattr(in_force, "POLL_SECONDS", 0)
    late, come = ({"instance": CURRENT["instance"] | {"inStep": one}} for one in (False, True))
    assert wait_until_known(Worker(late, late, come), "a") == come
    monkeypatch.setattr(in_force, "IN_STEP_SECONDS", 0)
    with pytest.raises(Card, match="still runs with the code, settings or secrets of before"):
        wait_until_known(Worker(late), "a")


def test_another_image_than_the_workers_is_not_in_force() -> None:
    running = {"instance": CURRENT["instance"] | {"bootId": "b"}, "image": "new"}
    assert outstanding(running) == Restart("sandbox", ["a new image"])
    assert not outstanding(running | {"image": "old"})
    assert not outstanding(
        {"instance": told("booting")["instance"] | {"bootId": "b"}, "image": "new"}
    )


def test_a_refresh_is_judged_by_what_runs_afterwards() -> None:
    refresh(Worker(CURRENT), "a", NEEDED)
    refresh(Worker(told("asleep")), "a", NEEDED)
    with pytest.raises(Card, match="hermes_env: not in force in the running Hermes"):
        refresh(Worker(STALE), "a", NEEDED)
    with pytest.raises(Card, match="It is busy"):
        refresh(Worker(STALE, refusal=409), "a", NEEDED)


def test_bubblewrap_that_came_or_went_needs_a_new_sandbox() -> None:
    """The Worker knows nothing of what is installed on the machine, so that it is asked for a restart by name."""
    bare, confined = (CURRENT | {"confined": one} for one in (False, True))
    assert outstanding(bare, True) == Restart("sandbox", ["bubblewrap"])
    assert outstanding(confined, False) == Restart("sandbox", ["bubblewrap"])
    for same, confines in ((bare, False), (confined, True), (bare, None), (told("asleep"), True)):
        assert not outstanding(same, confines)
    found = hermes_change(
        VARIABLES, Actual(None, None, bare), changed=False, secrets=[], confines=True
    )
    assert found and found.detail == "Hermes in a new sandbox, because of bubblewrap"
    worker = Worker(confined)
    refresh(worker, "a", outstanding(bare, True), True)
    assert worker.asked[0][0] == "/api/instance/restart"
    with pytest.raises(Card, match="bubblewrap: not in force"):
        refresh(Worker(bare), "a", outstanding(bare, True), True)


def test_the_status_names_what_is_not_in_force() -> None:
    info = DeploymentInfo.__new__(DeploymentInfo)
    info.command = lambda playbook: f"make {playbook}"
    assert info._settings(STALE) == "not in force: hermes_env; `make deploy` brings them"
    assert info._settings(CURRENT) is None
    assert info._settings({}) is None

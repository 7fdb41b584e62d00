# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What a verification on this machine looks at, and what its card then says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.action import refresh_instance, verify_deployment
from ansible_collections.hermes.workers.plugins.module_utils.cards import Problem
from ansible_collections.hermes.workers.plugins.module_utils.settings.catalogue import (
    REHEARSAL_MODEL,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.agent.declaration import Declaration
from ansible_collections.hermes.workers.plugins.plugin_utils.agent.sources import Finder
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.proof import agent, chats, toolsets
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd import confinement, service
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.config import render
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.storage import Storage
from api_server import Call, Reply
from deployed_here import HEALTH, TOKEN, DeployedHere, error

VERIFY, REFRESH = verify_deployment.ActionModule, refresh_instance.ActionModule
REGISTER = "POST /api/instance/channels/register"
STORAGE = {"id": "abc", "backups": 2, "since": "2026-03-01T12:00:00.000Z"}
IN_FORCE = {"differs": [], "restart": "nothing"}


class Verified(DeployedHere):
    """A deployment that is as it should be, whose chats are answered."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        super().__init__(folder)
        self.wanted = self.settings()
        self.version = render(self.wanted, Sources()).version
        self.chats: list[str] = []
        self.has: dict[str, Any] = {}
        """What a running Hermes has of what is declared."""
        patch.setattr(confinement, "confines", lambda _container: True)
        patch.setattr(chats.Chats, "ask", lambda _one: self.chats.append("asked") or "hermes")
        patch.setattr(chats.Chats, "stream", lambda _one: self.chats.append("streamed") or 0.123)
        self.tells()
        self.answers |= {
            "GET /api/instance/status": {"hermesVersion": Sources().hermes_version},
            f"GET {toolsets.TOOLSETS}": {"data": []},
            f"GET {agent.AGENT}": {"running": None},
        }

    def tells(self, **more: Any) -> None:
        """Have the Worker's health say more."""
        instance = {"state": "awake", "configuration": IN_FORCE}
        told = {"worker": {"version": self.version}, "instance": instance, "storage": STORAGE}
        self.answers["GET /api/health"] = HEALTH | told | more

    def verify(self, check: bool = False, options: Any = None, **variables: Any) -> dict[str, Any]:
        given = {"settings": self.wanted.as_dict()} | (options or {})
        variables.setdefault("ansible_play_hosts_all", ["alice"])
        return self.run(VERIFY, given, check=check, **variables)

    def refresh(self, planned: bool = False, check: bool = False) -> dict[str, Any]:
        given = {"settings": self.wanted.as_dict(), "planned": planned}
        return self.run(REFRESH, given, check=check)


@pytest.fixture
def verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Verified]:
    monkeypatch.chdir(tmp_path)
    made = Verified(tmp_path, monkeypatch)
    with made.worker, made.running():
        yield made


def rows(result: dict[str, Any]) -> dict[str, str]:
    return {line[2:15].strip(): line[15:] for line in result["shown"][2:]}


def test_a_first_proof_is_a_chat_and_the_next_one_its_health(verified: Verified) -> None:
    first = verified.verify()
    assert first["verified"] == "chat" and verified.chats == ["asked", "streamed"]
    assert first["seconds_to_first_token"] == 0.12 and first["model"] == "hermes"
    assert verified.deployment.is_proved(verified.version)
    assert first["shown"][1] == "alice: deployed and verified"
    shown = rows(first)
    assert shown["health"] == "ok, Hermes is awake" and shown["first token"] == "0.12 s"
    assert shown["token"] == "state/alice/api_token"
    assert TOKEN not in str(first)
    second = verified.verify()
    assert second["verified"] == "health" and verified.chats == ["asked", "streamed"]
    assert second["shown"][1].endswith("(by its health; nothing changed since its last chat)")
    assert "first token" not in rows(second)


@pytest.mark.parametrize("why", ["a change", "verify: full"])
def test_a_chat_proves_what_changed_or_whoever_always_wants_one(
    verified: Verified, why: str
) -> None:
    verified.deployment.note_proof(verified.version)
    changed = why == "a change"
    if not changed:
        verified.wanted = verified.settings(verify="full")
    result = verified.verify(options={"changed_before": changed})
    assert result["verified"] == "chat"


def test_a_try_chats_with_nobody_and_notes_nothing(verified: Verified) -> None:
    result = verified.verify(check=True)
    assert result["verified"] == "health" and verified.chats == []
    assert Storage(verified.deployment).known() is None
    assert not verified.deployment.is_proved(verified.version)
    asked = len(verified.worker.calls)
    result = verified.verify(check=True, options={"changed_before": True})
    assert result["skipped"] is True and len(verified.worker.calls) == asked


def test_a_worker_that_lets_strangers_in_is_told_of(verified: Verified) -> None:
    health = verified.answers["GET /api/health"]
    verified.worker.answer = lambda _call: Reply(200, health)
    card = verified.verify()["msg"]
    assert "answers 200 to a request with no token, not 401" in card and verified.chats == []


def test_another_hermes_than_the_one_that_was_asked_for_is_told_of(verified: Verified) -> None:
    verified.answers["GET /api/instance/status"] = {"hermesVersion": "0.0.1"}
    card = verified.verify()["msg"]
    assert card.startswith("alice: Hermes 0.0.1 runs, not ")
    assert not verified.deployment.is_proved(verified.version)
    verified.answers["GET /api/instance/status"] = {}
    assert verified.verify()["verified"] == "chat", "one that does not tell is no other one"


@pytest.mark.parametrize(
    ("health", "words"),
    [
        ({"worker": {"version": "0"}}, "alice: version 0 is running, and the inventory makes"),
        (
            {
                "instance": {
                    "state": "awake",
                    "configuration": {"differs": ["hermes_env"], "restart": "hermes"},
                }
            },
            "alice: hermes_env: not in force in the running Hermes.",
        ),
    ],
    ids=["another version", "not in force"],
)
def test_what_is_not_as_it_was_deployed_is_told(
    verified: Verified, health: dict[str, Any], words: str
) -> None:
    verified.tells(**health)
    result = verified.verify()
    assert result["failed"] and result["msg"].startswith(words) and verified.chats == []


def test_a_worker_that_refuses_is_told_with_what_mends_it(verified: Verified) -> None:
    verified.answers["GET /api/health"] = error(503, "It is starting.")
    assert "/api/health is answered with 503: It is starting." in verified.verify()["msg"]


def test_a_folder_that_was_moved_is_none_to_verify(
    verified: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(verified.deployment), "moved_from", lambda _folder: "/before")
    card = verified.verify()["msg"]
    assert card.startswith("alice: it was moved here from /before while it ran")
    assert verified.worker.calls == []


def test_a_memory_that_began_anew_is_told_until_its_owner_forgets_it(verified: Verified) -> None:
    verified.verify()
    assert Storage(verified.deployment).known() == {"id": "abc", "backups": 2}
    verified.tells(storage=STORAGE | {"id": "new"})
    card = verified.verify()["msg"]
    assert "its storage began anew at 2026-03-01T12:00:00.000Z; the one before had 2" in card
    assert verified.verify(hermes_forget=True)["verified"] == "health"
    assert Storage(verified.deployment).known() == {"id": "new", "backups": 2}


def test_tools_that_hermes_is_not_to_have_are_told(
    verified: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    for reply in (error(500, "Oh."), {"data": None}):
        verified.answers[f"GET {toolsets.TOOLSETS}"] = reply
        card = verified.verify()["msg"]
        assert card.startswith("alice: Hermes does not tell which tools it has")
    verified.answers[f"GET {toolsets.TOOLSETS}"] = {"data": []}
    problem = Problem("hermes_config", "offers a terminal.", "restart it.", "toolsets")
    monkeypatch.setattr(toolsets, "not_refused", lambda *_: [problem])
    assert verified.verify()["msg"].startswith("hermes_config: offers a terminal.")
    assert not verified.deployment.is_proved(verified.version)


SOUL = {"hermes_soul": "You are kind.\nAnd short.\n"}


@pytest.fixture
def declared(verified: Verified) -> Verified:
    """The same with a declared agent, which Hermes has."""
    made = Declaration(SOUL, verified.wanted, {}, Finder([], str)).read()
    verified.wanted = verified.settings(agent=made.label)
    verified.version = render(verified.wanted, Sources()).version
    verified.tells()
    has = {name: [] for name in ("kept", "skills", "jobs", "servers")}
    verified.has = has | {"archive": made.label["archive"], "laid": ["soul"], "environment": []}
    verified.answers[f"GET {agent.AGENT}"] = lambda _call: {"running": verified.has}
    return verified


def test_an_agent_that_is_what_was_declared_is_told_of(declared: Verified) -> None:
    result = declared.verify(**SOUL)
    assert result["verified"] == "chat" and rows(result)["agent"] == "a soul"


def test_servers_that_are_being_connected_are_waited_for(
    declared: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "POLL_SECONDS", 0.0)
    states = ["connecting"] * 3 + ["connected"]

    def told(_call: Call) -> dict[str, Any]:
        state = states.pop(0) if len(states) > 1 else states[0]
        servers = [{"name": "wiki", "status": state, "tools": []}]
        return {"running": declared.has | {"servers": servers}}

    declared.answers[f"GET {agent.AGENT}"] = told
    assert declared.verify(**SOUL)["verified"] == "chat" and states == ["connected"]


def test_an_agent_that_is_otherwise_is_no_proof(declared: Verified) -> None:
    declared.has["laid"] = []
    card = declared.verify(**SOUL)["msg"]
    assert card.startswith("hermes_soul: is not laid.") and "Deployed, not verified." in card
    assert not declared.deployment.is_proved(declared.version)


def test_what_was_declared_otherwise_meanwhile_is_not_verified(declared: Verified) -> None:
    card = declared.verify(hermes_soul="You are another.\nAnd long.\n")["msg"]
    assert card.startswith("alice: what is declared of the agent has changed since the plan")
    assert declared.chats == []


@pytest.mark.parametrize("there", [True, False])
def test_packages_are_looked_at_in_the_running_hermes(
    verified: Verified, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    seen: list[Any] = []
    problem = Problem("hermes_packages.python", "numpy 1 is not there.", "restart it.", "packages")

    def missing(wanted: Any, running: Any, _remedy: str) -> list[Problem]:
        seen.append((wanted, running))
        return [] if there else [problem]

    monkeypatch.setattr(verify_deployment.declared, "packages", lambda *_: {"python": ["numpy"]})
    monkeypatch.setattr(verify_deployment.packages, "missing", missing)
    verified.answers[f"GET {agent.AGENT}"] = {"running": {"archive": "x"}}
    result = verified.verify()
    assert seen == [({"python": ["numpy"]}, {"archive": "x"})]
    assert bool(result.get("failed")) is not there
    assert verified.deployment.is_proved(verified.version) is there
    assert there or result["msg"].startswith("hermes_packages.python: numpy 1 is not there.")


def test_the_card_tells_of_risks_jobs_and_the_rehearsal(verified: Verified) -> None:
    job = {"message": "no\nroom", "at": STORAGE["since"], "job": "news"}
    verified.wanted = verified.settings(default_model=REHEARSAL_MODEL)
    verified.version = render(verified.wanted, Sources()).version
    verified.tells(
        hermes={"gateway": "running", "lastJobError": job},
        stateAtRisk={"since": STORAGE["since"], "why": "it is too large"},
    )
    verified.deployment.note_proof(verified.version)
    result = verified.verify()
    shown = rows(result)
    assert "news: no room" in shown["jobs"] and "it is too large" in shown["AT RISK"]
    assert shown["model"].startswith("rehearsal: answers come from this machine")


def test_of_many_deployments_only_what_must_not_be_overlooked_is_shown(verified: Verified) -> None:
    verified.tells(stateAtRisk={"since": STORAGE["since"], "why": "it is too large"})
    hosts = [f"host{n}" for n in range(30)]
    result = verified.verify(ansible_play_hosts_all=hosts)
    assert "shown" not in result
    assert any("AT RISK" in line and "it is too large" in line for line in verified.lines)


def test_a_deployment_without_a_token_says_who_may_use_it(verified: Verified) -> None:
    verified.wanted = verified.settings(allow_unauthenticated=True)
    verified.version = render(verified.wanted, Sources()).version
    verified.tells()
    verified.deployment.drop_token()
    verified.worker.answer = lambda call: Reply(
        200, verified.answers.get(f"{call.method} {call.path}", {})
    )
    shown = rows(verified.verify())
    assert shown["token"].startswith("none: anyone on this machine may use it")


def test_what_a_container_left_behind_goes_once_the_next_one_is_proved(
    verified: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified.wanted = verified.settings(engine="docker", docker_socket="/run/docker.sock")
    verified.version = render(verified.wanted, Sources()).version
    verified.tells()
    kept: list[str] = []
    monkeypatch.setattr(service.ContainerImage, "prune", lambda image, keep: kept.append(keep))
    monkeypatch.setattr(service.Containers, "network_words", lambda *_: "open")
    shown = rows(verified.verify())
    assert (
        len(kept) == 1 and shown["sandbox"] == "container (docker)" and shown["network"] == "open"
    )


@pytest.mark.parametrize(
    ("settings", "health", "row", "words"),
    [
        ({"dashboard": False}, {}, "dashboard", "off (hermes_dashboard)"),
        ({}, {"confined": False}, "dashboard", "not served: bubblewrap is not installed"),
        ({"host_tools": True}, {"confined": False}, "confined", "no (bubblewrap missing or not"),
        ({}, {"confined": True}, "confined", "by bubblewrap, no host tools"),
        ({}, {}, "confined", "decided when Hermes wakes, no host tools"),
    ],
)
def test_the_card_tells_how_hermes_is_confined(
    verified: Verified, settings: Any, health: Any, row: str, words: str
) -> None:
    verified.wanted = verified.settings(**settings)
    verified.version = render(verified.wanted, Sources()).version
    verified.deployment.note_proof(verified.version)
    verified.tells(**health)
    assert rows(verified.verify())[row].startswith(words)


def needs(verified: Verified, restart: str) -> None:
    """Have a running Hermes lack something until it is refreshed."""
    differs = {"differs": ["hermes_env"], "restart": restart}
    verified.tells(instance={"state": "awake", "configuration": differs})
    verified.answers["POST /api/instance/refresh"] = lambda _call: verified.tells() or {}


def test_what_has_its_settings_is_not_refreshed(verified: Verified) -> None:
    assert verified.refresh(check=True, planned=True) == {"changed": True}
    assert verified.worker.calls == []
    verified.deployment.note_proof(verified.version)
    result = verified.refresh()
    assert result["changed"] is False and result["restarted"] == "nothing"
    assert verified.asked == [] and verified.deployment.is_proved(verified.version)


@pytest.mark.parametrize(("restart", "verb"), [("content", "bringing"), ("hermes", "restarting")])
def test_a_hermes_that_lacks_something_gets_it(verified: Verified, restart: str, verb: str) -> None:
    needs(verified, restart)
    verified.deployment.note_proof(verified.version)
    result = verified.refresh()
    assert result["changed"] is True and result["restarted"] == restart
    assert verified.asked == ["POST /api/instance/refresh"]
    assert not verified.deployment.is_proved(verified.version)
    assert any(verb in line for line in verified.lines)


@pytest.mark.parametrize("changed", [True, False])
def test_platforms_are_told_where_to_send_messages(verified: Verified, changed: bool) -> None:
    verified.wanted = verified.settings(bots={"telegram": "123"})
    told = {"telegram": {"changed": changed, "bot": "b", "address": ""}}
    verified.answers[REGISTER] = {"registered": told}
    result = verified.refresh()
    assert result["changed"] is changed and result["channels"] == told
    assert verified.worker.writes[-1].body["look"] is False
    said = any("told where to send messages" in line for line in verified.lines)
    assert said is changed

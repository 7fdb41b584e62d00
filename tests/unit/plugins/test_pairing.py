# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Who is let in by a code, and let go again: what the Worker is asked for it, and what is told when it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.action.pairing import ActionModule
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import WorkerClient
from ansible_collections.hermes.workers.plugins.plugin_utils.actions import deployment_action
from api_server import Reply
from deployed_here import TOKEN, DeployedHere, error, here

__all__ = ["here"]

PAIR, UNPAIR = "POST /api/instance/channels/pair", "POST /api/instance/channels/unpair"
ANNA = {"user": "123", "name": "Anna"}
PEOPLE = {
    "channels": {
        "telegram": {
            "paired": [ANNA],
            "asking": [{"user": "7", "name": "", "until": "2001-03-01T12:00:00.000Z"}],
            "waiting": 0,
        }
    }
}


@pytest.fixture
def paired(here: DeployedHere) -> DeployedHere:
    """The deployment of a channel that let somebody in, and whom somebody asks."""
    here.answers |= {
        "GET /api/instance/channels": PEOPLE,
        PAIR: ANNA | {"channel": "telegram"},
        UNPAIR: {},
    }
    return here


def test_who_asks_and_who_was_let_in_is_told(paired: DeployedHere) -> None:
    result = paired.run(ActionModule)
    assert result["changed"] is False
    assert result["people"] == {
        "telegram": {key: PEOPLE["channels"]["telegram"][key] for key in ("paired", "asking")}
    }
    asks, writes = result["shown"][2], result["shown"][1]
    assert writes == "alice: 123 (Anna) may write by telegram"
    assert asks.startswith("alice: 7 asks by telegram, with a code that is good until ")
    assert "2001-03-01" in asks
    assert paired.asked == []


def test_one_elsewhere_is_asked_at_its_address(
    paired: DeployedHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[tuple[str, str | None]] = []

    def remote(host: str, token: str | None) -> WorkerClient:
        reached.append((host, token))
        return WorkerClient(paired.worker.server_address[1], token)

    monkeypatch.setattr(deployment_action, "RemoteClient", remote)
    paired.deployment.keep_note("host", "alice.example.com")
    assert paired.run(ActionModule)["changed"] is False
    assert set(reached) == {("alice.example.com", TOKEN)}


def test_where_nobody_asks_that_is_said(paired: DeployedHere) -> None:
    paired.answers["GET /api/instance/channels"] = {"channels": {}}
    (_, line) = paired.run(ActionModule)["shown"]
    assert line == "alice: nobody asks, and nobody was let in by a code"


def test_a_code_is_brought_to_the_worker_and_a_try_brings_nothing(paired: DeployedHere) -> None:
    assert paired.run(ActionModule, {"code": " 4711 "}, check=True)["changed"] is True
    assert paired.asked == []
    result = paired.run(ActionModule, {"code": " 4711 "})
    assert result["changed"] is True and paired.asked == [PAIR]
    assert paired.worker.writes[0].body == {"code": "4711"}
    assert result["shown"] == ["", "alice: 123 (Anna) may write by telegram"]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (error(404, "no"), "hermes_pair: nobody was given this code, or it is older than an hour."),
        (
            error(429, "no"),
            "hermes_pair: too many wrong codes were said; none is taken for an hour",
        ),
        (error(503, "It is busy."), "alice: It is busy."),
        (Reply(drop=True), "alice: Remote end closed connection"),
        (error(401, "no"), "alice: no"),
    ],
    ids=["unknown", "too many", "busy", "gone", "refused"],
)
def test_a_code_that_is_not_taken_is_told_with_why(
    paired: DeployedHere, reply: Reply, words: str
) -> None:
    paired.answers[PAIR] = reply
    result = paired.run(ActionModule, {"code": "4711"})
    assert result["failed"] and result["msg"].startswith(words)
    assert "shown" not in result


def test_who_is_let_go_is_named_to_the_worker(paired: DeployedHere) -> None:
    assert paired.run(ActionModule, {"remove": "telegram:123"}, check=True)["changed"] is True
    assert paired.asked == []
    result = paired.run(ActionModule, {"remove": "telegram:123"})
    assert result["changed"] is True and paired.asked == [UNPAIR]
    assert paired.worker.writes[0].query == {"channel": "telegram", "user": "123"}
    assert result["shown"] == ["", "alice: 123 (Anna) writes by telegram no longer"]


@pytest.mark.parametrize("remove", ["telegram:9", "discord:123"])
def test_who_was_not_let_in_is_not_let_go(paired: DeployedHere, remove: str) -> None:
    result = paired.run(ActionModule, {"remove": remove})
    assert result["changed"] is False and paired.asked == []
    assert "does not write by a code of" in result["shown"][1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"code": "1", "remove": "telegram:1"}, "hermes_pair: and hermes_unpair are both set."),
        ({"remove": "123"}, "hermes_unpair: '123' is not a channel, a colon and an id."),
        ({"remove": "telegram:"}, "hermes_unpair: 'telegram:' is not a channel"),
    ],
)
def test_what_says_nothing_asks_nothing(
    paired: DeployedHere, options: dict[str, Any], words: str
) -> None:
    result = paired.run(ActionModule, options)
    assert result["failed"] and result["msg"].startswith(words)
    assert paired.worker.calls == []


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (error(401, "no"), "alice: the Worker does not take the token in state/alice/api_token."),
        (error(500, "Oh."), "alice: Oh."),
        (Reply(drop=True), "alice: Remote end closed connection"),
    ],
    ids=["another token", "broken", "gone"],
)
def test_a_worker_that_does_not_tell_who_writes_is_told_of(
    paired: DeployedHere, reply: Reply, words: str
) -> None:
    paired.answers["GET /api/instance/channels"] = reply
    result = paired.run(ActionModule)
    assert result["failed"] and result["msg"].startswith(words)

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What is said of the platforms by which people write: when one does not work, when it goes, on the card."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.action import check_inventory
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.settings.platforms import PLATFORMS
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import (
    Answer,
    Unreachable,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.actions.status_words import (
    channel_rows,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.proof import channels

URL = "https://hermes.example.com"


class Client:
    """A Worker that answers what it is told to."""

    def __init__(self, status: int, body: Any) -> None:
        self.asked: list[str] = []
        self.answer = Answer(status, {}, json.dumps(body).encode())

    def request(self, method: str, path: str, *_: Any, **__: Any) -> Answer:
        self.asked.append(f"{method} {path}")
        if self.answer.status == 0:
            raise Unreachable("nobody is there")
        return self.answer


def settings(*names: str) -> Settings:
    return Settings(bots=dict.fromkeys(names, "worker"))


@pytest.mark.parametrize("name", sorted(PLATFORMS.keys() - {"email"}))
def test_a_platform_that_refuses_is_named_with_its_own_words(name: str) -> None:
    error = {"message": "its own words", "param": name}
    client: Any = Client(502, {"error": error})
    with pytest.raises(Card) as caught:
        channels.register(client, settings("telegram", name), URL, look=False)
    (problem,) = caught.value.problems
    label = PLATFORMS[name].label
    assert problem.subject == f"hermes_channels.{name}"
    assert problem.sentence.startswith(f"{label} was asked") and "its own words" in problem.sentence
    assert f"reaches {label};" in problem.remedy


def test_a_worker_that_cannot_send_mails_is_told_with_its_words_and_where_to_write_otherwise() -> (
    None
):
    refused = {"email": "the Worker has no binding that sends mails"}
    client: Any = Client(200, {"registered": {}, "refused": refused})
    with pytest.raises(Card) as caught:
        channels.register(client, settings("email"), URL, look=False)
    (problem,) = caught.value.problems
    assert problem.subject == "hermes_channels.email" and refused["email"] in problem.sentence
    told = {"bot": "hermes@example.com", "address": ""}
    assert channels.row("email", told, URL) == ("email", "write to hermes@example.com")


def test_all_platforms_that_refuse_are_named_at_once() -> None:
    told = {"registered": {"telegram": {"changed": False}}}
    refused = {"sms": "Twilio: Authenticate", "slack": "Slack: invalid_auth"}
    client: Any = Client(200, told | {"refused": refused})
    with pytest.raises(Card) as caught:
        channels.register(client, settings("telegram", "sms", "slack"), URL, look=False)
    found = {one.subject: (one.sentence, one.remedy) for one in caught.value.problems}
    assert list(found) == ["hermes_channels.slack", "hermes_channels.sms"]
    sentence, remedy = found["hermes_channels.sms"]
    assert "Twilio: Authenticate" in sentence
    assert remedy.startswith("mend hermes_channels.sms.auth_token (")
    well: Any = Client(200, told | {"refused": {}})
    assert channels.register(well, settings("telegram"), URL, look=False) == told["registered"]


@pytest.mark.parametrize(("status", "body"), [(0, None), (500, []), (502, {"error": "no mapping"})])
def test_a_worker_that_says_nothing_of_use_is_told_of_too(status: int, body: Any) -> None:
    client: Any = Client(status, body)
    with pytest.raises(Card) as caught:
        channels.register(client, settings("slack"), URL, look=True)
    assert caught.value.problems[0].subject == "hermes_channels.slack"


def test_a_platform_that_goes_is_told_and_no_other() -> None:
    there = {"channels": {"telegram": {}, "slack": {}, "hooks/ci": {}}}
    client: Any = Client(200, there)
    channels.withdraw(client, {"telegram": "1"})
    assert client.asked[1:] == ["POST /api/instance/channels/unregister?name=slack"]
    client = Client(200, there)
    channels.withdraw(client, {"telegram": "1", "slack": "worker"})
    assert client.asked == ["GET /api/instance/channels"]


def test_where_a_person_has_to_say_the_address_is_told() -> None:
    told = {"bot": "hermes", "address": f"{URL}/channels/slack"}
    name, words = channels.row("slack", told, URL)
    assert (name, "api.slack.com/apps" in words, told["address"] in words) == ("slack", True, True)
    assert "to be said" not in channels.row("telegram", told, URL)[1]


def test_a_webhooks_address_is_told_whole() -> None:
    assert channels.row("hooks/ci", {"address": "/hooks/ci"}, URL) == ("webhook", f"{URL}/hooks/ci")
    elsewhere = {"address": "https://else.example/hooks/ci"}
    assert channels.row("hooks/ci", elsewhere, URL) == ("webhook", elsewhere["address"])


def test_the_status_says_all_that_a_channel_counts() -> None:
    quiet = {"waiting": 0, "lastIn": None, "lastOut": None, "trouble": None}
    counts = {"dropped": 1, "again": 2, "twice": 3, "refused": 4}
    busy = {**quiet, **counts, "waiting": 5, "trouble": "Telegram: Unauthorized"}
    ago = (datetime.now(UTC) - timedelta(minutes=2)).isoformat()
    told = {
        "channels": {
            "slack": quiet | dict.fromkeys(counts, 0),
            "telegram": busy | {"lastIn": ago, "lastOut": ago},
            "discord": quiet | {"paired": [{"user": "7"}], "asking": [{"user": "8", "name": "Bo"}]},
        },
        "unanswered": [{"received": ago, "why": "no image"}],
    }
    rows = dict(channel_rows(told))
    assert rows["slack"] == "nothing yet"
    assert rows["telegram"].startswith("5 waiting, last in 2 minutes ago (")
    assert rows["telegram"].endswith(
        "1 dropped, 2 again, 3 twice, 4 refused, does not work: Telegram: Unauthorized"
    )
    assert rows["discord"] == "1 let in by a code, 8 (Bo) asks to be let in"
    assert rows["unanswered"].startswith("1, the last one 2 minutes ago (")
    assert rows["unanswered"].endswith("): no image")


def test_two_hosts_that_are_one_bot_are_refused_before_anything_is_looked_at() -> None:
    given = {"telegram": {"token": f"4242:{'x' * 35}", "allow": [77], "receive": "poll"}}
    hosts = {name: {"hermes_channels": given} for name in ("ada", "bob")}
    action = object.__new__(check_inventory.ActionModule)
    action.task_vars = {"ansible_play_hosts_all": list(hosts), "hostvars": hosts}
    with pytest.raises(Card) as caught:
        action.execute({})
    (problem,) = caught.value.problems
    assert problem.subject == "hermes_channels.telegram"
    assert "ada and bob" in problem.sentence

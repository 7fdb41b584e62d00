# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Requests wait for a new version for as long as its upload takes, and no longer than somebody asks for it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible_collections.hermes.workers.plugins.action import cloudflare_worker
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import (
    Answer,
    Unreachable,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare import deployed
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.deployed import held_back

HOLD = "/api/instance/hold"
HEALTH = "GET /api/health"
HELD = {"held": True, "hold": "h1"}
STARTED_OVER = {"held": False, "hold": "h1"}
OF_BEFORE = {"held": True}
"""What a Worker of an earlier release answers, which holds back once."""


class Worker:
    """Answers as it is told; the last of it again and again. A None is no answer."""

    def __init__(self, *answers: dict[str, Any] | int | None) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.patience: list[float] = []
        self.has_asked = threading.Condition()

    def request(self, method: str, path: str, *, timeout: float, **_more: Any) -> Answer:
        told = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        with self.has_asked:
            self.asked.append(f"{method} {path}")
            self.patience.append(timeout)
            self.has_asked.notify_all()
        if told is None:
            raise Unreachable("cut")
        status, body = (told, {}) if isinstance(told, int) else (200, told)
        return Answer(status, {}, json.dumps(body).encode())

    def was_asked(self, times: int) -> bool:
        with self.has_asked:
            return self.has_asked.wait_for(lambda: len(self.asked) >= times, timeout=60)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployed, "RENEWED_SECONDS", 0.001)


def renewing() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if "_renew" in one.name]


def test_they_are_held_back_as_long_as_it_takes_though_an_answer_is_lost() -> None:
    worker = Worker(HELD, HELD, None, HELD)
    with held_back(worker, 5):
        assert worker.asked[0] == f"POST {HOLD}"
        assert worker.was_asked(10)
    asked = len(worker.asked)
    assert {*worker.asked[1:]} == {f"POST {HOLD}?again=h1"}
    assert not renewing()
    assert len(worker.asked) == asked, "nobody asks for it any more"


def test_an_object_that_was_started_over_is_not_asked_further() -> None:
    worker = Worker(HELD, HELD, STARTED_OVER)
    with held_back(worker, 5):
        assert worker.was_asked(3)
        for one in renewing():
            one.join(60)
        assert not renewing()
    assert len(worker.asked) == 3


@pytest.mark.parametrize("told", [OF_BEFORE, 409, 401])
def test_what_does_not_hold_them_back_is_asked_once(told: dict[str, Any] | int | None) -> None:
    worker = Worker(told)
    with held_back(worker, 5):
        assert not renewing()
    assert worker.asked == [f"POST {HOLD}"]


@pytest.mark.parametrize(
    "instance", [None, {"bootId": None}, {"bootId": "b", "starting": {"why": "the image"}}]
)
def test_one_that_is_starting_is_not_waited_for(instance: dict[str, Any] | None) -> None:
    worker = Worker(None, instance and {"instance": instance})
    with held_back(worker, 5):
        assert not renewing()
    assert worker.asked == [f"POST {HOLD}", HEALTH]


def test_what_began_with_a_start_has_its_time_too() -> None:
    """The start took longer than they are held back for, and was over when that was given up."""
    worker = Worker(None, {"instance": {"bootId": "b", "starting": None}}, HELD)
    with held_back(worker, 5):
        assert worker.was_asked(4)
    assert worker.asked[:3] == [f"POST {HOLD}", HEALTH, f"POST {HOLD}"]
    assert {*worker.asked[3:]} == {f"POST {HOLD}?again=h1"}
    first, second = worker.patience[0], worker.patience[2]
    assert second >= first + 5 + deployed.HELD_SECONDS, (
        "of those of before, and of those after them"
    )


def test_a_failed_upload_ends_it_and_a_first_one_holds_nothing() -> None:
    worker = Worker(HELD)
    with pytest.raises(ValueError), held_back(worker, 5):
        raise ValueError
    assert not renewing()
    with held_back(None, 5):
        assert not renewing()


@pytest.mark.parametrize(
    ("extra", "token"),
    [(set(), {"API_TOKEN": "t"}), ({"OLD_KEY"}, {"API_TOKEN": "t"}), ({"API_TOKEN"}, {})],
    ids=["", "with a secret to take away", "with the token to take away"],
)
def test_what_may_take_minutes_is_done_before_and_each_version_is_held_back_for(
    monkeypatch: pytest.MonkeyPatch, extra: set[str], token: dict[str, str]
) -> None:
    done: list[str] = []

    def does(what: str) -> Any:
        return lambda *_, **__: done.append(what) or MagicMock()

    @contextlib.contextmanager
    def holding(*_: Any) -> Iterator[None]:
        done.append("hold back")
        yield
        done.append("over")

    monkeypatch.setattr(cloudflare_worker, "held_back", holding)
    for name in ("note_use", "client_for", "withdraw", "RemoteClient", "scripts"):
        monkeypatch.setattr(cloudflare_worker, name, MagicMock())
    monkeypatch.setattr(cloudflare_worker, "prepare", does("image"))
    monkeypatch.setattr(cloudflare_worker, "wait_until_served", does("served"))
    monkeypatch.setattr(cloudflare_worker, "write_secrets", does("secrets"))
    monkeypatch.setattr(cloudflare_worker, "Budget", lambda *_: MagicMock(take=does("calls")))
    monkeypatch.setattr(
        cloudflare_worker, "Wrangler", lambda *_: MagicMock(deploy=does("wrangler deploys"))
    )
    action = cloudflare_worker.ActionModule.__new__(cloudflare_worker.ActionModule)
    action.settings = MagicMock(uploader="wrangler")
    action.deployment, action.deployed = MagicMock(), MagicMock(secrets=extra, tags=[])
    action.runtime = MagicMock(install_wrangler=does("wrangler's installation"))
    action.options, action.progress, action.api = {"image": "i"}, MagicMock(), MagicMock()
    for name in ("_build", "cloudflare_token"):
        monkeypatch.setattr(cloudflare_worker.ActionModule, name, MagicMock())
    action._deploy(MagicMock(), token)
    # Nobody could ask a Worker that still wants a token that is no longer known.
    upload = ["hold back", "wrangler deploys", "over", *(["served"] if token else [])]
    taken_away = ["hold back", "secrets", "served", "over"] if extra else []
    assert done == ["image", "wrangler's installation", "calls", *upload, *taken_away]

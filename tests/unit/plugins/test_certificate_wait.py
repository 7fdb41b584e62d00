# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A certificate that takes its time is waited for, with a word now and then; what never is ours is told."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.hermes.workers.plugins.action import cloudflare_routes as routes
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import Owner


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Wait(routes.ActionModule):
    """The action's wait on its own, for a hostname that is ours after so many seconds."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        seconds: float,
        before: Owner = Owner.NOBODY,
        access: str = "",
    ) -> None:
        """before: who answers until then; access: the domain of a team at Cloudflare Access."""
        self.clock = clock = Clock()
        monkeypatch.setattr(routes, "time", clock)
        found = SimpleNamespace(owner=lambda: Owner.OURS if clock.now >= seconds else before)
        monkeypatch.setattr(routes, "RemoteClient", lambda *_a, **_m: found)
        self.deployment = SimpleNamespace(token=lambda: None)
        self.settings = SimpleNamespace(name="alice", access_team_domain=access)
        self.said: list[str] = []

    def progress(self, text: str) -> None:
        self.said.append(text)


def test_a_slow_certificate_is_waited_for_with_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Wait(monkeypatch, 65)
    waiting._wait("a.example.com")
    assert waiting.said[0] == "waiting for the certificate of a.example.com ..."
    still = [line for line in waiting.said if line.startswith("still no certificate")]
    assert len(still) == 4, "about each fifteen seconds"


def test_a_certificate_that_never_comes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Wait(monkeypatch, float("inf"))
    with pytest.raises(Card) as failed:
        waiting._wait("a.example.com")
    assert "a.example.com does not answer over https after 10 minutes" in str(failed.value)
    assert failed.value.changed == "Changed: worker, hostname."


def test_what_something_else_answers_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Wait(monkeypatch, float("inf"), Owner.ANOTHER)
    with pytest.raises(Card) as failed:
        waiting._wait("a.example.com")
    assert "a.example.com is answered by something else, not by Worker alice" in str(failed.value)
    assert failed.value.changed == "Changed: worker, hostname."


def test_a_change_takes_its_time_until_it_is_known_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = Wait(monkeypatch, 100, Owner.ANOTHER)
    waiting._wait("a.example.com")
    assert waiting.clock.now >= 100


def test_access_asks_us_to_sign_in_too(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Wait(monkeypatch, float("inf"), Owner.ANOTHER, "team.cloudflareaccess.com")
    waiting._wait("a.example.com")
    assert waiting.clock.now == 0

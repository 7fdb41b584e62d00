# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A certificate that takes its time is waited for, with a word now and then; one that never comes is told."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.hermes.workers.plugins.action import cloudflare_routes as routes
from ansible_collections.hermes.workers.plugins.module_utils.errors import Card


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Wait(routes.ActionModule):
    """The action's wait on its own, for a hostname that answers after so many seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        clock = Clock()
        monkeypatch.setattr(routes, "time", clock)
        monkeypatch.setattr(
            routes, "health", lambda *_a, **_m: True if clock.now >= seconds else None
        )
        self.deployment = SimpleNamespace(token=lambda: None)
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

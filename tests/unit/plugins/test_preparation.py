# SPDX-License-Identifier: Apache-2.0
"""The patience with an image that Cloudflare gets ready to start: as long as that may take, and with words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare import upload, wrangler


class Cloudflare:
    """Gets an image ready after so many seconds of its own clock, or says why it does not."""

    def __init__(self, ready_after: float, reason: str = "") -> None:
        self.now = 0.0
        self.ready_after = ready_after
        self.reason = reason
        self.told: list[str] = []

    def account(self, path: str) -> str:
        return path

    def post(self, _path: str, _body: Any, **_more: Any) -> dict[str, Any]:
        if self.now < self.ready_after:
            return {"status": "pending"}
        return {"status": "error", "reason": self.reason} if self.reason else {"status": "ready"}

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def prepare(api: Cloudflare, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic=lambda: api.now, sleep=api.sleep)
    monkeypatch.setattr(upload, "time", clock)
    settings = Settings(name="alice", platform="cloudflare", engine="cloudflare")
    upload.prepare(api, settings, "image@sha256:0", api.told.append)


def test_fifteen_minutes_are_waited_for_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Cloudflare(ready_after=890)
    prepare(api, monkeypatch)
    assert len(api.told) > 30, "somebody watches, and hears of it"
    assert "880 s" in " ".join(api.told)
    never = Cloudflare(ready_after=1e9)
    with pytest.raises(Card, match="status pending after 9"):
        prepare(never, monkeypatch)
    assert 900 <= never.now < 910


def test_the_reason_of_a_failure_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Card, match="The image has no amd64 variant"):
        prepare(Cloudflare(60, reason="The image has no amd64 variant"), monkeypatch)


def test_wrangler_may_say_itself_that_it_waited_for_fifteen_minutes() -> None:
    assert wrangler.SECONDS >= 900 + 120

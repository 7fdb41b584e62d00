# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A hostname in a zone that cannot serve it is refused before anything is changed, not after ten minutes of waiting."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import Cloudflare
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.account import Account
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.hostname import problems

HOSTNAME = "a.example.com"
SOUND = {"id": "z", "name": "example.com", "status": "active", "type": "full", "paused": False}
NOBODY = Cloudflare("token", "account", base_url="http://127.0.0.1:9/nobody-is-asked")
SERVED = {HOSTNAME: {"id": "d", "service": "alice", "zone_id": "z"}}


def sentences(zone: dict[str, Any], domains: dict[str, dict[str, str]]) -> list[str]:
    """What stands against the hostname in a zone that differs from a sound one. domains: those that exist."""
    account = Account(zones=[{**SOUND, **zone}], domains=domains)
    settings = Settings(name="alice", dashboard_hostname=HOSTNAME)
    return [one.sentence for one in problems(NOBODY, settings, account)]


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        ({"paused": True}, "is paused: Cloudflare leads no request to a Worker there"),
        ({"type": "partial"}, "(a partial setup), so that no record can be made there"),
        ({"status": "pending"}, "is pending, not active"),
    ],
)
def test_a_zone_that_cannot_serve_it(zone: dict[str, Any], words: str) -> None:
    (sentence,) = sentences(zone, {})
    assert words in sentence


def test_what_is_served_needs_no_record() -> None:
    assert sentences({}, SERVED) == []
    assert sentences({"type": "partial"}, SERVED) == []
    assert "is paused" in sentences({"paused": True}, SERVED)[0]

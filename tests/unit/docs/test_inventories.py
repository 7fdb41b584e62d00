# SPDX-License-Identifier: Apache-2.0
"""What the page on channels shows of an inventory is taken as it stands, once its secrets are there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.hermes.workers.plugins.module_utils.settings.checks import Checker

PAGE = Path(__file__).parents[3] / "docs" / "channels.md"
SECRETS = {
    "vault_telegram_token": f"4242:{'x' * 35}",
    "vault_slack_token": f"xoxb-1-2-{'x' * 20}",
    "vault_slack_signing_secret": "a" * 32,
    "vault_whatsapp_token": "x" * 30,
    "vault_whatsapp_app_secret": "a" * 32,
    "vault_whatsapp_verify_token": "made-up-word",
    "vault_twilio_auth_token": "b" * 32,
    "vault_discord_token": "x" * 60,
    "vault_github_secret": "x" * 20,
}
"""As the platforms give them; the page tells where."""
HERE = {"hermes_platform": "workerd", "hermes_public_url": "https://hermes.example.com"}
THERE = {
    "hermes_platform": "cloudflare",
    "hermes_account_id": "0123456789abcdef0123456789abcdef",
    "cloudflare_api_token": "cf-token",
}


def blocks() -> list[dict[str, Any]]:
    """Return what the page shows, with its secrets in their places."""
    shown = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [
        yaml.safe_load(re.sub(r"\{\{ (\w+) \}\}", lambda found: SECRETS[found[1]], block))
        for block in shown
    ]


def is_of(block: dict[str, Any], name: str) -> bool:
    return name in block["hermes_channels"]


@pytest.mark.parametrize("block", blocks(), ids=lambda block: "-".join(block["hermes_channels"]))
def test_each_is_taken_as_it_stands(block: dict[str, Any]) -> None:
    given = dict(block)
    if is_of(block, "hooks"):
        # It speaks in a chat of the channel that stands first on the page.
        given["hermes_channels"] = blocks()[0]["hermes_channels"] | block["hermes_channels"]
    place = THERE if is_of(block, "email") else HERE
    checker = Checker({"hermes_name": "alice", **place, **given}).check()
    assert checker.problems == []
    assert json.loads(checker.secrets["HERMES_CHANNELS"]).keys() == given["hermes_channels"].keys()

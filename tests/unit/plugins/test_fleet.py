# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""The deployments of an account are found by their tag, whatever else a token may see."""

from __future__ import annotations

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import (
    Cloudflare,
    CloudflareError,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare import fleet
from api_server import ApiServer, refused
from fake_account import FakeAccount


def states(api: Cloudflare) -> dict[str, str]:
    return {one["worker"]: one["state"] for one in fleet.survey(lambda: api)}


def test_an_account_without_deployments_is_asked_once(
    api: Cloudflare, server: ApiServer, account: FakeAccount
) -> None:
    account.tags["alice"] = ["team"]
    assert fleet.survey(lambda: api) == []
    assert len(server.calls) == 1


def test_one_that_is_deleted_while_it_is_looked_at_is_left_out(
    api: Cloudflare, account: FakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.secrets["bob"] = {}
    account.tags["bob"] = ["hermes.workers", "hermes.workers:bob"]
    listing = account.all_scripts

    def listed(call: object) -> object:
        told = listing(call)
        account.secrets.pop("bob", None)
        return told

    monkeypatch.setattr(account, "all_scripts", listed)
    assert list(states(api)) == ["alice"]


def test_a_token_that_may_not_see_applications_calls_none_incomplete(
    api: Cloudflare, account: FakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert states(api) == {"alice": "incomplete"}
    account.denied = {"all_applications"}
    assert states(api) == {"alice": "ready"}
    broken = refused(400, 7003, "Could not route")
    monkeypatch.setattr(account, "all_applications", lambda _call: broken)
    account.denied = set()
    with pytest.raises(CloudflareError, match="7003"):
        states(api)

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""An account at Cloudflare in memory, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import Cloudflare
from api_server import ApiServer
from cloudflare_play import Play
from fake_account import ACCOUNT, TOKEN, FakeAccount, Images


@pytest.fixture
def account() -> FakeAccount:
    return FakeAccount()


@pytest.fixture
def server(account: FakeAccount) -> Iterator[ApiServer]:
    with ApiServer(account) as running:
        yield running


@pytest.fixture
def api(server: ApiServer) -> Cloudflare:
    return Cloudflare(TOKEN, ACCOUNT, server.url)


@pytest.fixture
def play(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    monkeypatch.chdir(tmp_path)
    return Play(server, tmp_path, monkeypatch)


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch, account: FakeAccount) -> Iterator[Images]:
    """Three images, of which "new" is in use by a Worker and "odd" by an application."""
    kept = Images({name: f"sha256:{name}" for name in ("old", "new", "odd")})
    account.images["alice"] = {"hermes": f"registry.cloudflare.com/{ACCOUNT}/hermes@sha256:new"}
    odd = f"registry.cloudflare.com/{ACCOUNT}/hermes:odd"
    account.applications = [{"id": "a", "name": "odd-hermes", "configuration": {"image": odd}}]
    with ApiServer(kept) as server:
        monkeypatch.setenv("CLOUDFLARE_CONTAINER_REGISTRY", server.url.split("/")[2])
        yield kept

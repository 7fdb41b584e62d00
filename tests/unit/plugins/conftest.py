# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""An account at Cloudflare in memory, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import Cloudflare
from api_server import ApiServer
from fake_account import ACCOUNT, TOKEN, FakeAccount


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

# SPDX-License-Identifier: Apache-2.0
"""A control plane for each test, and the product's own client for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import Cloudflare

from tests.cloudflare import ControlPlane
from tests.cloudflare.uploading import ACCOUNT, TOKEN


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlPlane]:
    """A control plane with one account that has everything; this process's requests lead to it."""
    with ControlPlane(tmp_path / "cloudflare") as made:
        made.add_account(ACCOUNT, TOKEN, zones=["example.com"])
        for name, value in made.env.items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def client(plane: ControlPlane) -> Callable[..., Cloudflare]:
    """Make a client for a token and an account."""

    def make(token: str = TOKEN, account: str = ACCOUNT) -> Cloudflare:
        return Cloudflare(token, account)

    return make

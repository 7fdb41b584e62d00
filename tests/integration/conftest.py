# SPDX-License-Identifier: Apache-2.0
"""Real plays against real workerd and real Hermes, each in a state folder of the test's own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from plays import Deployment
from runtimes import furnished, share_wrangler

from tests.standins.provider import Provider
from tests.standins.telegram import Telegram


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One state folder for all that this process runs, so that its runtime is installed once."""
    with furnished(tmp_path_factory.mktemp("hermes-home")) as folder:
        yield folder


@pytest.fixture(scope="session")
def wrangler(home: Path) -> list[str]:
    """The command that starts the pinned wrangler."""
    return share_wrangler(home)


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """A model's provider that takes one key; wherever else that is found, it should not be."""
    with Provider(key="sk-canary-" + secrets.token_hex(16)) as running:
        yield running


@pytest.fixture(scope="module")
def telegram() -> Iterator[Telegram]:
    """Telegram, as its bots see it."""
    with Telegram() as running:
        yield running


@pytest.fixture(scope="module")
def make_deployment(home: Path) -> Iterator[Callable[..., Deployment]]:
    """Describe deployments; those that exist at the end of the module are destroyed."""
    made: list[Deployment] = []

    def make(name: str, **variables: Any) -> Deployment:
        deployment = Deployment(name, home, variables=variables)
        made.append(deployment)
        return deployment

    yield make
    for deployment in made:
        if deployment.state.exists():
            confirm = ("-e", "hermes_confirm=yes", "-e", "hermes_forget=true")
            play = deployment.play("destroy", *confirm)
            assert play.code == 0, play.output


@pytest.fixture(scope="module")
def deployment(
    make_deployment: Callable[..., Deployment], request: pytest.FixtureRequest
) -> Deployment:
    """A verified deployment, named after the module that uses it."""
    made = make_deployment(request.module.__name__.removeprefix("test_").replace("_", "-"))
    made.deploy()
    return made

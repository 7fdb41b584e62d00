# SPDX-License-Identifier: Apache-2.0
"""Jobs that are due while Hermes sleeps, with every provider, here and at the stand-in for Cloudflare.

The provider is asked once, and its answer is in what is saved. What else is told of jobs: test_keys.py, on containers:
test_docker_state.py and test_podman.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from appointments import keeps_its_own
from clouds import Clouded, open_account
from plays import Deployment

from tests.cloudflare import ControlPlane
from tests.standins.provider import Provider

ERRAND = "Water the ferns."
MODELS = ("anthropic/stand-in", "openrouter/stand-in", "openai/stand-in", "custom/stand-in")


@pytest.fixture(scope="module")
def busy(make_deployment: Callable[..., Deployment], provider: Provider) -> Deployment:
    """A Hermes that rehearses, and has every provider's key."""
    keys = {f"{model.partition('/')[0]}_api_key": provider.key for model in MODELS}
    made = make_deployment("busy", hermes_default_model="rehearsal/rehearsal", **keys)
    made.deploy()
    return made


def test_it_runs_in_a_rehearsal(busy: Deployment) -> None:
    keeps_its_own(busy, None, ERRAND)


@pytest.mark.parametrize("model", MODELS)
def test_it_runs_with_every_provider(busy: Deployment, provider: Provider, model: str) -> None:
    base = provider.url if model.startswith("anthropic/") else provider.url + "/v1"
    busy.variables |= {"hermes_default_model": model, "hermes_provider_base_url": base}
    busy.deploy()
    keeps_its_own(busy, provider, f"{ERRAND} ({model})")


def test_it_runs_at_cloudflare(
    provider: Provider, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with ControlPlane(tmp_path_factory.mktemp("jobs") / "plane", home / "stand-in") as plane:
        open_account(plane)
        plane.edge.internet = provider.url.removeprefix("http://")
        keys = {"anthropic_api_key": provider.key}
        it = Clouded("busy-there", home, plane=plane, variables=keys)
        it.deploy()
        keeps_its_own(it, provider, ERRAND)

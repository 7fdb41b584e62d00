# SPDX-License-Identifier: Apache-2.0
"""Jobs that are due while Hermes sleeps, with every provider, here and at the stand-in for Cloudflare.

The provider is asked once, and its answer is in what is saved. What else is told of jobs, and with a key that Hermes
holds: test_keys.py, on containers: test_docker_state.py and test_podman.py.
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
MODELS_HOST = "models.example.net"
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


def test_it_runs_at_cloudflare_with_a_key_that_is_sealed_and_with_one_that_hermes_holds(
    provider: Provider, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with ControlPlane(tmp_path_factory.mktemp("jobs") / "plane") as plane:
        open_account(plane)
        plane.edge.internet = provider.url.removeprefix("http://")
        keys = {"anthropic_api_key": provider.key}
        it = Clouded("busy-there", home, plane=plane, variables=keys)
        it.deploy()
        hermes = it.gateway()
        assert provider.key not in hermes.environment.values()
        # By which this machine stands in for the internet of a sandbox; it travels with Hermes' state.
        trusted = f"{hermes.environment['HERMES_HOME']}/authority.pem"
        bundle = Path(plane.env["SSL_CERT_FILE"]).read_bytes()
        Path(f"/proc/{hermes.process.pid}/root{trusted}").write_bytes(bundle)
        keeps_its_own(it, provider, ERRAND)

        with Provider(provider.key, tls=plane.certified(MODELS_HOST)) as reached:
            plane.elsewhere[MODELS_HOST] = reached.port
            it.variables = {
                "custom_api_key": reached.key,
                "hermes_default_model": "custom/stand-in",
                "hermes_env": {
                    "HTTPS_PROXY": plane.env["HTTPS_PROXY"],
                    "NO_PROXY": plane.env["NO_PROXY"],
                    "SSL_CERT_FILE": trusted,
                },
                "hermes_provider_base_url": f"https://{MODELS_HOST}/v1",
                "hermes_provider_keys": "environment",
            }
            it.deploy()
            assert reached.key in it.environment().values()
            keeps_its_own(it, reached, f"{ERRAND} With a key of your own.")

# SPDX-License-Identifier: Apache-2.0
"""A container of a new image takes seconds or minutes to start at Cloudflare, and may be refused for the moment.

HERMES_TEST_STARTS is a list of further times, in seconds and by comma: 5,21,60,200 take twenty minutes.
"""

from __future__ import annotations

import os
import re

import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import (
    REPOSITORY,
    Sources,
)
from clouds import ACCOUNT, Cloud, cloud, hermes_with, provider

from tests.cloudflare.edge import NO_INSTANCE

__all__ = ["cloud", "provider"]

# Longer than what is far too long on one machine.
SECONDS = [31, *map(int, filter(None, os.environ.get("HERMES_TEST_STARTS", "").split(",")))]
MODE = {"hermes_provider_keys": "environment", "hermes_models": ["anthropic/stand-in"]}


@pytest.fixture(params=SECONDS)
def slow(cloud: Cloud, request: pytest.FixtureRequest) -> int:
    """A Cloudflare that takes so many seconds to start a container, and then refuses two starts."""
    edge = cloud.plane.edge
    before = edge.start_seconds, edge.refusals
    edge.start_seconds, edge.refusals = request.param, [NO_INSTANCE] * 2
    yield request.param
    edge.start_seconds, edge.refusals = before


def test_a_first_deploy_an_upgrade_and_a_change_end_as_they_were_asked_for(
    cloud: Cloud, slow: int
) -> None:
    name = f"slow-{slow}"
    play = cloud.deploy(name, **MODE)
    assert f"{name}: deployed and verified" in play.output
    waited = re.findall(r"Cloudflare is still distributing the image, (\d+) s", play.output)
    assert waited or slow < 20, play.output
    assert [int(one) for one in waited] == sorted(map(int, waited)), "time goes on"
    assert cloud.chat(name, "Hello")[0] == 200
    assert cloud.told(name, "instance/status")["boots"] == 1, "what was starting was left to start"

    base = f"registry.example.com/slow/base:{slow}"
    image = Sources().container_image(base)
    cloud.plane.registry.add_image(f"{ACCOUNT}/{REPOSITORY}", image, note=f"slow {slow}")
    play = cloud.deploy(name, **MODE, hermes_base_image=base)
    assert f"{name}: deployed and verified" in play.output
    assert cloud.told(name)["instance"]["image"] == f"{REPOSITORY}:{image}"

    secret = {"hermes_secrets": {"MARK": f"marked-{name}-canary"}}
    cloud.deploy(name, **MODE, hermes_base_image=base, **secret)
    assert hermes_with(f"marked-{name}-canary")
    assert "changed=0" in cloud.deploy(name, **MODE, hermes_base_image=base, **secret).output
    assert cloud.play("destroy", name, "-e", "hermes_confirm=yes").code == 0

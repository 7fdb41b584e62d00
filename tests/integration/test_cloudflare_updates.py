# SPDX-License-Identifier: Apache-2.0
"""An object that is in use keeps old code, settings and secrets at Cloudflare for minutes, unless it is told otherwise.

So what a play calls verified is judged here by what reaches the provider afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import (
    REPOSITORY,
    Sources,
)
from clouds import ACCOUNT, KEY, Cloud, busy, cloud, hermes_with, key_used, provider

from tests.standins.provider import Provider

__all__ = ["cloud", "provider"]

DIRECT = {"hermes_provider": None, "hermes_drain_timeout": "2m"}


def test_an_upgrade_under_traffic_is_in_force_once_it_is_verified(
    cloud: Cloud, provider: Provider
) -> None:
    cloud.deploy("upgraded", **DIRECT)
    base = "registry.example.com/another/base:1"
    image = Sources().container_image(base)
    cloud.plane.registry.add_image(f"{ACCOUNT}/{REPOSITORY}", image, note="another")
    change = {"hermes_base_image": base, "hermes_default_model": "anthropic/another-model"}
    with busy(cloud, "upgraded", provider):
        play = cloud.deploy("upgraded", **DIRECT, **change)
        start = len(provider.seen)
        assert "upgraded: deployed and verified" in play.output
        told = cloud.told("upgraded")
        assert cloud.chat("upgraded", "Who are you?")[0] == 200
    assert told["instance"]["image"] == f"{REPOSITORY}:{image}"
    assert told["instance"]["version"] == told["worker"]["version"]
    assert told["instance"]["inStep"]
    models = {one.body["model"] for one in provider.seen[start:] if one.body}
    assert models == {"another-model"}, "a chat was answered with the settings of before"


@pytest.fixture(params=[True, False], ids=["deferred", "at-once"])
def deferred(cloud: Cloud, request: pytest.FixtureRequest) -> Iterator[str]:
    """Whether Cloudflare defers changes of secrets is not certain: both ways, and a name for each."""
    cloud.plane.defers_secrets = request.param
    yield "deferred" if request.param else "at-once"
    cloud.plane.defers_secrets = True


def test_a_rotated_key_is_in_force_and_one_that_is_refused_is_taken_back(
    cloud: Cloud, provider: Provider, deferred: str
) -> None:
    name = f"sealed-{deferred}"
    cloud.deploy(name, **DIRECT)
    provider.also = KEY + "-2"
    keys = ("-e", "hermes_keys=provider_keys")
    play = cloud.play("rotate_keys", name, *keys, **DIRECT, anthropic_api_key=KEY + "-2")
    assert play.code == 0, play.output
    assert key_used(cloud, name, provider) == KEY + "-2"

    play = cloud.play("rotate_keys", name, *keys, **DIRECT, anthropic_api_key=KEY + "-refused")
    assert play.code != 0
    assert "Taken back: anthropic_api_key." in play.output, play.output
    assert key_used(cloud, name, provider) == KEY + "-2"
    assert cloud.told(name)["instance"]["inStep"]


def test_a_key_in_the_environment_is_rotated_and_taken_back_in_the_process(cloud: Cloud) -> None:
    mode = {"hermes_provider_keys": "environment", "hermes_models": ["anthropic/stand-in"]}
    keys = ("-e", "hermes_keys=provider_keys")
    cloud.deploy("environment", **mode)
    assert hermes_with(KEY)
    changed = {**mode, "anthropic_api_key": KEY + "-2"}
    play = cloud.play("rotate_keys", "environment", *keys, **changed)
    assert play.code == 0, play.output
    assert hermes_with(KEY + "-2")
    assert not hermes_with(KEY)

    cloud.plane.faults.on("POST", r"environment\..*/v1/chat/completions", "error", times=1)
    play = cloud.play(
        "rotate_keys", "environment", *keys, **{**mode, "anthropic_api_key": KEY + "-3"}
    )
    cloud.plane.faults.clear()
    assert "Taken back: anthropic_api_key." in play.output, play.output
    assert not hermes_with(KEY + "-3")
    assert cloud.chat("environment", "With the key of before.")[0] == 200
    assert hermes_with(KEY + "-2")

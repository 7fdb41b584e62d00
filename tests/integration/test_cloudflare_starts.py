# SPDX-License-Identifier: Apache-2.0
"""A container of a new image takes seconds or minutes to start at Cloudflare, and may be refused for the moment.

HERMES_TEST_STARTS is a list of further times, in seconds and by comma: 5,21,60,200 take an hour.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import (
    REPOSITORY,
    Sources,
)
from clouds import ACCOUNT, KEY, Cloud, cloud, hermes_with, home_of, key_used, provider

from tests.cloudflare.edge import NO_INSTANCE
from tests.standins.provider import Provider

__all__ = ["cloud", "provider"]

ASKED = [*map(int, filter(None, os.environ.get("HERMES_TEST_STARTS", "").split(",")))]
# Longer than what is far too long on one machine.
SECONDS = [31, *ASKED]
# Seconds of a start, and bytes of the state that a restore brings; more than gets in at once.
STATES = [(3, 1_000), *((seconds, 150_000_000) for seconds in ASKED)]
MODE = {"hermes_provider_keys": "environment", "hermes_models": ["anthropic/stand-in"]}


@contextlib.contextmanager
def starts_in(cloud: Cloud, seconds: int) -> Iterator[None]:
    """A Cloudflare that takes so many seconds to start a container, and then refuses two starts."""
    edge = cloud.plane.edge
    before = edge.start_seconds, edge.refusals
    edge.start_seconds, edge.refusals = seconds, [NO_INSTANCE] * 2
    try:
        yield
    finally:
        edge.start_seconds, edge.refusals = before


@pytest.fixture(params=SECONDS)
def slow(cloud: Cloud, request: pytest.FixtureRequest) -> Iterator[int]:
    """How long a container takes to start."""
    with starts_in(cloud, request.param):
        yield request.param


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


@pytest.mark.parametrize(("seconds", "size"), STATES)
def test_a_sleeping_one_is_rotated_and_restored(
    cloud: Cloud, provider: Provider, seconds: int, size: int
) -> None:
    name = f"asleep-{seconds}"
    provider.also = KEY + "-2"
    keys = ("-e", "hermes_keys=provider_keys")
    with starts_in(cloud, seconds):
        cloud.deploy(name, **MODE)
        kept = home_of(cloud, name) / "memories" / "kept.bin"
        kept.parent.mkdir(exist_ok=True)
        content = os.urandom(size)
        kept.write_bytes(content)
        play = cloud.play("backup", name, **MODE)
        assert play.code == 0, play.output
        (backup,) = (cloud.home / "backups").glob(f"{name}-*.hermes")
        kept.write_bytes(b"something else")

        sleep(cloud, name)
        second = {**MODE, "anthropic_api_key": KEY + "-2"}
        play = cloud.play("rotate_keys", name, *keys, **second)
        assert play.code == 0, play.output
        assert cloud.chat(name, "Hello")[0] == 200
        assert hermes_with(KEY + "-2")

        sleep(cloud, name)
        third = {**MODE, "anthropic_api_key": KEY + "-3"}
        cloud.plane.faults.on("POST", rf"{name}\..*/v1/chat/completions", "error", times=1)
        play = cloud.play("rotate_keys", name, *keys, **third)
        cloud.plane.faults.clear()
        assert "Taken back: anthropic_api_key." in play.output, play.output
        assert cloud.chat(name, "Hello")[0] == 200
        assert hermes_with(KEY + "-2")
        assert not hermes_with(KEY + "-3")

        sleep(cloud, name)
        play = cloud.play("restore", name, "-e", f"hermes_backup={backup}", **second)
        assert play.code == 0, play.output
        assert cloud.chat(name, "Hello")[0] == 200
        assert (home_of(cloud, name) / "memories" / "kept.bin").read_bytes() == content
        assert "changed=0" in cloud.deploy(name, **second).output
        destroyed = cloud.play("destroy", name, "-e", "hermes_confirm=yes", **second)
        assert destroyed.code == 0, destroyed.output


@pytest.mark.parametrize("seconds", [3, *ASKED])
def test_a_sealed_key_of_a_sleeping_one_is_rotated_and_taken_back(
    cloud: Cloud, provider: Provider, seconds: int
) -> None:
    name = f"sealed-{seconds}"
    provider.also = KEY + "-2"
    sealed: dict[str, Any] = {"hermes_provider": None}
    keys = ("-e", "hermes_keys=provider_keys")
    with starts_in(cloud, seconds):
        cloud.deploy(name, **sealed)
        sleep(cloud, name)
        second = {**sealed, "anthropic_api_key": KEY + "-2"}
        play = cloud.play("rotate_keys", name, *keys, **second)
        assert play.code == 0, play.output
        assert key_used(cloud, name, provider) == KEY + "-2"

        sleep(cloud, name)
        refused = {**sealed, "anthropic_api_key": KEY + "-refused"}
        play = cloud.play("rotate_keys", name, *keys, **refused)
        assert play.code != 0
        assert "Taken back: anthropic_api_key." in play.output, play.output
        assert key_used(cloud, name, provider) == KEY + "-2"
        assert cloud.told(name)["instance"]["inStep"]
        assert "changed=0" in cloud.deploy(name, **second).output
    # Content that it wakes with is no reason to start a container, nor to ask a provider.
    sleep(cloud, name)
    boots, asked = cloud.told(name, "instance/status")["boots"], len(provider.seen)
    second["hermes_soul"] = {"text": "You live in a lighthouse."}
    assert (
        "not its new content: Hermes sleeps, and wakes with it"
        in cloud.deploy(name, **second).output
    )
    assert "changed=0" in cloud.deploy(name, **second).output
    told = cloud.told(name, "instance/status")
    assert (told["state"], told["boots"], len(provider.seen)) == ("asleep", boots, asked)
    assert cloud.chat(name, "Where do you live?")[0] == 200
    assert "lighthouse" in str(provider.seen[-1].body)


def sleep(cloud: Cloud, name: str) -> None:
    """Put Hermes to sleep, so that what comes next starts a container."""
    assert cloud.deployment(name).call("POST", "/api/instance/sleep").status == 200

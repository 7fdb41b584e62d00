# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What somebody said and does nothing is told by the plan, each once; what has an effect is not."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.action.show_plan import noted
from ansible_collections.hermes.workers.plugins.module_utils.settings.checks import Checker
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.inputs.notes import (
    CHANNELS,
    installed,
    notes,
)

LOCK = Sources().lock_text
CLOUD = {
    "hermes_platform": "cloudflare",
    "hermes_account_id": "0" * 32,
    "cloudflare_api_token": "cf-token",
}


def told(lock: str = LOCK, sources: dict[str, str] | None = None, **given: Any) -> list[str]:
    raw = {"hermes_name": "alice", "hermes_platform": "workerd"} | given
    sources = dict.fromkeys(raw, "inventory") | (sources or {})
    return notes(Checker(raw, sources=sources).check(), raw, lock)


WITHOUT_EFFECT = [
    ({"hermes_instance_type": "lite"}, "hermes_instance_type", "on workerd"),
    ({"hermes_location": "weur"}, "hermes_location", "on workerd"),
    ({"cloudflare_api_token": "cf-canary"}, "cloudflare_api_token", "on workerd"),
    (
        {"hermes_route_mode": "zone_route", "hermes_prune_images": True},
        "hermes_route_mode, hermes_prune_images",
        "on workerd",
    ),
    (CLOUD | {"hermes_port": 9000}, "hermes_port", "on Cloudflare"),
    ({"hermes_serial": 5}, "hermes_serial", "in an inventory; say -e hermes_serial=5"),
    ({"hermes_serial": "\t5 "}, "hermes_serial", "in an inventory; say -e hermes_serial=5"),
    (
        {"hermes_serial": [1, "50%"]},
        "hermes_serial",
        """in an inventory; say -e '{"hermes_serial":[1,"50%"]}'""",
    ),
    (CLOUD | {"hermes_engine": "docker"}, "hermes_engine", "on Cloudflare"),
    ({"hermes_base_image": "python:3.12"}, "hermes_base_image", "with the process engine"),
    (
        {"hermes_engine": "docker", "hermes_host_tools": True},
        "hermes_host_tools",
        "with the docker engine",
    ),
    (
        {"hermes_dashboard": False, "hermes_dashboard_port": 9787},
        "hermes_dashboard_port",
        "without hermes_dashboard",
    ),
    (
        CLOUD | {"hermes_take_over_hostname": True},
        "hermes_take_over_hostname",
        "without hermes_dashboard_hostname",
    ),
    (
        {"hermes_ai_gateway_token": "aig-canary"},
        "hermes_ai_gateway_token",
        "without hermes_ai_gateway",
    ),
]


@pytest.mark.parametrize(("given", "names", "where"), WITHOUT_EFFECT, ids=lambda v: str(v)[:40])
def test_a_variable_without_a_meaning_is_told(
    given: dict[str, Any], names: str, where: str
) -> None:
    assert told(**given) == [f"{names}: without effect {where}."]


def test_how_a_play_goes_through_its_hosts_is_said_on_its_command_line() -> None:
    assert told(sources={"hermes_serial": "-e"}, hermes_serial=5) == []


def test_a_hostname_on_this_machine_is_told() -> None:
    (note,) = told(hermes_dashboard_hostname="hermes.example.com")
    assert note.startswith("hermes_dashboard_hostname: on workerd nothing leads it here")


def test_a_container_in_which_hermes_has_hardly_room_is_told() -> None:
    (note,) = told(**CLOUD, hermes_instance_type="lite")
    assert note.startswith("hermes_instance_type: lite has 256 MiB")
    (note,) = told(**CLOUD, hermes_instance_type="basic")
    assert note.startswith("hermes_instance_type: basic may not be started")
    assert told(**CLOUD, hermes_instance_type="standard-2") == []


def test_what_has_an_effect_or_says_the_default_is_not_told() -> None:
    assert told(hermes_port=9000, hermes_prune_images=False, hermes_dashboard_hostname="") == []
    exported = dict.fromkeys(("cloudflare_api_token", "hermes_account_id"), "environment")
    assert told(sources=exported, cloudflare_api_token="cf", hermes_account_id="0" * 32) == []


@pytest.mark.parametrize("where", ["hermes_secrets", "hermes_env"])
@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("TELEGRAM_BOT_TOKEN", "python-telegram-bot"),
        ("DISCORD_BOT_TOKEN", "discord-py"),
        ("SLACK_APP_TOKEN", "slack-bolt"),
    ],
)
def test_a_channel_that_the_image_lacks_is_told(where: str, name: str, package: str) -> None:
    given = {where: {name: "canary-5b0c"}}
    (note,) = told(**given)
    assert note.startswith(f"{name}: Hermes is installed without {package}, so its channel")
    assert "canary" not in note
    full = LOCK + "".join(f"{each}==1.0\n" for _, each in CHANNELS.values())
    (note,) = told(full, **given)
    assert "hears nothing while Hermes sleeps" in note
    assert "canary" not in note
    relayed = {where: given[where] | {"GATEWAY_RELAY_URL": "https://relay.example"}}
    assert told(**relayed) == []


def test_a_channel_that_a_feature_brings_is_not_told_as_missing() -> None:
    """What was chosen is installed; of Telegram there is a channel besides that wakes Hermes."""
    brought = Sources(features=["messaging"]).lock_text
    given = {"TELEGRAM_BOT_TOKEN": "canary-5b0c"}
    (note,) = told(brought, hermes_features=["messaging"], hermes_secrets=given)
    assert note == (
        "TELEGRAM_BOT_TOKEN: Hermes' own channel Telegram hears nothing while Hermes sleeps. hermes_channels does."
    )
    (note,) = told(hermes_secrets=given)
    assert note.endswith("hermes_channels reaches it, asleep too.")


def test_the_lock_is_read() -> None:
    assert {"hermes-agent", "aiohttp", "ruamel-yaml"} <= installed(LOCK)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("antropic_api_key", "anthropic_api_key"),
        ("cloudflare_token", "cloudflare_api_token"),
        ("dashboard_hostname", "hermes_dashboard_hostname"),
        ("default_model", "hermes_default_model"),
        ("herms_sleep_after", "hermes_sleep_after"),
    ],
)
def test_a_name_that_is_nearly_ours_is_told(name: str, meant: str) -> None:
    assert told(**{name: "x"}) == [f"{name}: nothing here reads it; did you mean {meant}?"]


def test_names_of_other_things_are_not_told() -> None:
    others = ("port", "name", "env", "inventory_dir", "vault_openai_api_key", "ansible_port")
    assert told(**dict.fromkeys(others, "x")) == []
    # A value that ours is made of.
    assert told(hermes_default_model="rehearsal/rehearsal", default_model="x") == []


def test_each_note_comes_once_with_its_hosts() -> None:
    plans = {
        "alice": {"notes": ["a", "b"]},
        "bob": {"notes": ["a"]},
        "carol": {},
    }
    assert noted(plans) == ["Note: a (alice, bob)", "Note: b (alice)"]
    assert noted({"alice": plans["alice"]}) == ["Note: a", "Note: b"]

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Inputs: what is refused, under which name, and what is made of what is accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.addresses import (
    origin,
    special_networks,
)
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.settings.catalogue import (
    SETTINGS,
    WORKER_SECRETS,
)
from ansible_collections.hermes.workers.plugins.module_utils.settings.channels import (
    Channels,
    read_channels,
    shared_bots,
)
from ansible_collections.hermes.workers.plugins.module_utils.settings.checks import (
    Checker,
    collisions,
    unknown_variables,
)
from ansible_collections.hermes.workers.plugins.module_utils.settings.kinds import (
    Kind,
    Number,
    Secret,
    Texts,
)
from ansible_collections.hermes.workers.plugins.module_utils.settings.values import Reader
from hypothesis import HealthCheck, given
from hypothesis import settings as tests
from hypothesis import strategies as st

GOOD: dict[str, Any] = {"hermes_name": "alice", "hermes_platform": "workerd"}
DOCKER: dict[str, Any] = {"hermes_engine": "docker"}
CLOUD: dict[str, Any] = {
    "hermes_platform": "cloudflare",
    "hermes_account_id": "0123456789abcdef0123456789abcdef",
    "cloudflare_api_token": "cf-token",
}
ORIGINS = json.loads((Path(__file__).parents[2] / "standins" / "origins.json").read_text())
KEY = "sk-canary-5b0c"
GATEWAY = f"{'0a' * 16}/hermes"


def bot(**said: Any) -> dict[str, Any]:
    """A channel of Telegram, right but for what is said."""
    telegram = {"token": f"4242:{'x' * 35}", "allow": [77]} | said
    return {"hermes_channels": {"telegram": telegram}}


def slack(**said: Any) -> dict[str, Any]:
    """A channel of Slack, right but for what is said."""
    app = {"token": f"xoxb-1-2-{'x' * 20}", "signing_secret": "a" * 32, "allow": ["U0ANN00"]} | said
    return {"hermes_channels": {"slack": app}, "hermes_public_url": "https://hermes.example.com"}


def at(name: str, **said: Any) -> dict[str, Any]:
    """A channel of one of these, right but for what is said."""
    right: dict[str, dict[str, Any]] = {
        "whatsapp_cloud": {"token": "x" * 30, "app_secret": "a" * 32, "allow": ["+491701234567"]}
        | {"verify_token": "made-up-word", "phone_number_id": 106540352242922},
        "sms": {"account_sid": "AC" + "a" * 32, "auth_token": "b" * 32, "allow": ["+491701234567"]}
        | {"number": "+15005550006"},
        "discord": {"token": "x" * 60, "application_id": 123456789012345678}
        | {"public_key": "a" * 64, "allow": [123456789012345678]},
        "email": {"address": "hermes@example.com", "allow": ["ann@example.net"]},
    }
    if name == "email":
        return CLOUD | {"hermes_channels": {name: right[name] | said}}
    return {
        "hermes_channels": {name: right[name] | said},
        "hermes_public_url": "https://hermes.example.com",
    }


def hook(**said: Any) -> dict[str, Any]:
    """A webhook, right but for what is said."""
    return {"hermes_channels": {"hooks": {"ci": {"kind": "github", "secret": "x" * 20} | said}}}


def beside_bot(**said: Any) -> dict[str, Any]:
    """The same beside a channel of Telegram."""
    return {"hermes_channels": bot()["hermes_channels"] | hook(**said)["hermes_channels"]}


def told(checker: Checker) -> dict[str, Any]:
    """What the Worker is told of channels that are all right."""
    assert checker.problems == []
    channels: dict[str, Any] = json.loads(checker.secrets["HERMES_CHANNELS"])
    return channels


def check(**inputs: Any) -> Checker:
    raw = GOOD | inputs
    return Checker(raw).check()


def subjects(checker: Checker) -> list[str]:
    return [problem.subject for problem in checker.problems]


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"hermes_name": "Alice"}, "hermes_name", "lower-case"),
    ({"hermes_name": "alice_1"}, "hermes_name", "alice-1"),
    ({"hermes_name": "-alice"}, "hermes_name", "letter or digit"),
    ({"hermes_name": "a" * 55}, "hermes_name", "54"),
    ({"hermes_name": ""}, "hermes_name", "lower-case"),
    ({"hermes_name": "../x"}, "hermes_name", "lower-case"),
    ({"hermes_name": 7}, "hermes_name", "in quotes"),
    ({"hermes_engine": False}, "hermes_engine", "process, docker"),
    ({"hermes_egress": False}, "hermes_egress", "names nothing"),
    ({"hermes_egress": []}, "hermes_egress", "names nothing"),
    ({"hermes_env": False}, "hermes_env", "mapping"),
    ({"hermes_token_command": 7}, "hermes_token_command", "list"),
    ({"hermes_token_vault_file": ["a"]}, "hermes_token_vault_file", "in quotes"),
    ({"hermes_state_dir": "a" * 256}, "hermes_state_dir", "longer"),
    (CLOUD | {"cloudflare_api_base_url": "api"}, "cloudflare_api_base_url", "URL"),
    ({"hermes_serial": "lots"}, "hermes_serial", "number of hosts"),
    ({"hermes_serial": [1, "0"]}, "hermes_serial", "number of hosts"),
    ({"hermes_serial": True}, "hermes_serial", "number of hosts"),
    ({"hermes_serial": []}, "hermes_serial", "number of hosts"),
    ({"hermes_max_fail_percentage": "some"}, "hermes_max_fail_percentage", "0 to 100"),
    ({"hermes_max_fail_percentage": -1}, "hermes_max_fail_percentage", "0 to 100"),
    ({"hermes_max_fail_percentage": "101"}, "hermes_max_fail_percentage", "0 to 100"),
    ({"hermes_max_fail_percentage": True}, "hermes_max_fail_percentage", "0 to 100"),
    ({"hermes_name": "backups"}, "hermes_name", "folder of the state folder's own"),
    ({"hermes_engine": "podman"}, "hermes_engine", "process, docker"),
    (DOCKER | {"hermes_docker_socket": "tcp://10.0.0.1:2375"}, "hermes_docker_socket", "unix"),
    (DOCKER | {"hermes_docker_socket": 'unix:/a"b'}, "hermes_docker_socket", "unix"),
    (DOCKER | {"hermes_base_image": "Upper/case"}, "hermes_base_image", "image"),
    (DOCKER | {"hermes_sidecar_image": 7}, "hermes_sidecar_image", "image"),
    ({"hermes_port": 80}, "hermes_port", "1024"),
    ({"hermes_port": 65536}, "hermes_port", "65535"),
    ({"hermes_port": "x"}, "hermes_port", "whole number"),
    ({"hermes_port": 8787.5}, "hermes_port", "whole number"),
    ({"hermes_port": True}, "hermes_port", "whole number"),
    ({"hermes_port": 9000, "hermes_providers_port": 9000}, "hermes_providers_port", "9000"),
    ({"hermes_port": 9000, "hermes_dashboard_port": 9000}, "hermes_dashboard_port", "9000"),
    ({"hermes_dashboard_port": 18787}, "hermes_dashboard_port", "hermes_providers_port"),
    ({"hermes_dashboard": "perhaps"}, "hermes_dashboard", "neither true nor false"),
    ({"hermes_provider_keys": "open"}, "hermes_provider_keys", "environment"),
    ({"hermes_ai_gateway": "my gateway"}, "hermes_ai_gateway", "'my gateway' is no gateway"),
    (
        {"hermes_ai_gateway": GATEWAY, "hermes_default_model": "openai/gpt-5-mini"},
        "openai_api_key",
        "not set",
    ),
    (
        {"hermes_ai_gateway_token": "aig-token", "hermes_default_model": "openai/gpt-5-mini"},
        "openai_api_key",
        "not set",
    ),
    ({"hermes_version": "newest"}, "hermes_version", "'newest' is no version"),
    (
        {"hermes_token_vault_file": "vault.yml", "hermes_token_command": ["keep"]},
        "hermes_token_command",
        "one home",
    ),
    ({"hermes_ai_gateway": "http://gateway.example/v1"}, "hermes_ai_gateway", "no gateway"),
    (
        {"hermes_ai_gateway": GATEWAY, "hermes_provider_keys": "environment"},
        "hermes_ai_gateway",
        "hermes_provider_keys",
    ),
    ({"hermes_egress": "providers"}, "hermes_egress", "process engine"),
    ({"hermes_egress": "everything", **DOCKER}, "hermes_egress", "list"),
    ({"hermes_egress": ["http://wiki.example"], **DOCKER}, "hermes_egress", "http://wiki.example"),
    (
        {"hermes_egress": "providers", "hermes_provider_keys": "environment", **DOCKER},
        "hermes_egress",
        "sealed",
    ),
    (
        {
            "hermes_default_model": "custom/llama",
            "hermes_provider_base_url": "http://localhost:11434/v1",
            "hermes_provider_keys": "environment",
            **DOCKER,
        },
        "hermes_provider_base_url",
        "sealed",
    ),
    ({"hermes_default_model": "acme/large"}, "hermes_default_model", "known provider"),
    ({"hermes_default_model": "antropic/x"}, "hermes_default_model", "anthropic/x"),
    ({"hermes_default_model": "claude"}, "hermes_default_model", "known provider"),
    ({"hermes_default_model": "openai/"}, "hermes_default_model", "names no model"),
    ({"hermes_default_model": "rehearsal/x"}, "hermes_default_model", "rehearsal/rehearsal"),
    ({"hermes_default_model": ["a"]}, "hermes_default_model", "known provider"),
    ({"hermes_default_model": "openai/gpt-5-mini"}, "openai_api_key", "not set"),
    ({"hermes_models": "openai/x"}, "hermes_models", "not a list"),
    ({"hermes_models": ["openai/gpt-5-mini"]}, "openai_api_key", "hermes_models"),
    ({"openai_api_key": KEY}, "hermes_default_model", "openai/"),
    ({"openrouter_api_key": KEY}, "hermes_default_model", "openrouter/"),
    ({"custom_api_key": KEY}, "hermes_default_model", "custom/"),
    ({"hermes_provider": "openai"}, "hermes_provider", "rehearsal"),
    ({"hermes_default_model": "custom/m"}, "hermes_provider_base_url", "custom/"),
    ({"hermes_models": ["custom/m"]}, "hermes_provider_base_url", "custom/"),
    (
        {
            "anthropic_api_key": KEY,
            "hermes_models": ["custom/m"],
            "hermes_provider_base_url": "http://127.0.0.1:1/v1",
        },
        "hermes_models",
        "beside",
    ),
    ({"hermes_provider_base_url": "http://127.0.0.1/v1"}, "hermes_default_model", "custom/"),
    ({"hermes_sleep_after": "7h"}, "hermes_sleep_after", "6h"),
    ({"hermes_sleep_after": "59s"}, "hermes_sleep_after", "1m"),
    ({"hermes_sleep_after": "soon"}, "hermes_sleep_after", "duration"),
    ({"hermes_sleep_after": 14400}, "hermes_sleep_after", "s, m or h"),
    ({"hermes_drain_timeout": "11m"}, "hermes_drain_timeout", "10m"),
    ({"hermes_token_overlap": "25h"}, "hermes_token_overlap", "24h"),
    ({"hermes_features": ["serach"]}, "hermes_features", "Did you mean search?"),
    ({"hermes_features": ["zzzz"]}, "hermes_features", "'zzzz' is not one of"),
    ({"hermes_features": "search"}, "hermes_features", "not a list"),
    ({"hermes_cors_origins": "https://a.example"}, "hermes_cors_origins", "not a list"),
    ({"hermes_cors_origins": ["https://a.example/"]}, "hermes_cors_origins", "origin like"),
    ({"hermes_cors_origins": ["*"]}, "hermes_cors_origins", "'*' is not an origin like"),
    ({"hermes_cors_origins": ["*", "+"]}, "hermes_cors_origins", "nor are 1 more"),
    ({"hermes_cors_origins": ["https://a.example:443"]}, "hermes_cors_origins", "origin like"),
    (
        {"hermes_cors_origins": ["null"], "hermes_allow_unauthenticated": True},
        "hermes_cors_origins",
        "no token keeps them out",
    ),
    ({"hermes_dashboard_origin": "hermes.example"}, "hermes_dashboard_origin", "origin like"),
    ({"hermes_dashboard_origin": "app://x"}, "hermes_dashboard_origin", "origin like"),
    ({"hermes_context_length": 32768}, "hermes_context_length", "no fewer"),
    ({"hermes_context_length": "128K"}, "hermes_context_length", "number of tokens"),
    ({"hermes_context_length": True}, "hermes_context_length", "number of tokens"),
    ({"hermes_access_team_domain": "t.example"}, "hermes_access_audiences", "not set"),
    ({"hermes_access_audiences": ["audience-1"]}, "hermes_access_team_domain", "not set"),
    ({"hermes_access_team_domain": "https://t.example"}, "hermes_access_team_domain", "domain"),
    ({"hermes_dashboard_idle": "25h"}, "hermes_dashboard_idle", "24h"),
    ({"hermes_on_disconnect": "end"}, "hermes_on_disconnect", "stop, finish"),
    ({"hermes_after_reboot": "yes"}, "hermes_after_reboot", "stay_down, start, start_with_keys"),
    (
        {"hermes_provider_base_url": "\0http://localhost/v1", "hermes_default_model": "custom/m"},
        "hermes_provider_base_url",
        "http",
    ),
    ({"hermes_host_tools": "perhaps"}, "hermes_host_tools", "true nor false"),
    ({"hermes_allow_unauthenticated": 2}, "hermes_allow_unauthenticated", "true nor false"),
    ({"hermes_verify": "no"}, "hermes_verify", "auto, full"),
    ({"hermes_env": ["a"]}, "hermes_env", "mapping"),
    ({"hermes_env": {"a b": "c"}}, "hermes_env.a b", "rename hermes_env.a b"),
    ({"hermes_env": {"a b": "c"}}, "hermes_env.a b", "is not a name for"),
    ({"hermes_env": {"a\nb": "c"}}, "hermes_env", "rename it"),
    ({"hermes_secrets": {"a b": "c"}}, "hermes_secrets", "rename it"),
    ({"hermes_env": {"A": "b\nc"}}, "hermes_env.A", "one line"),
    ({"hermes_env": {"API_SERVER_KEY": "x"}}, "hermes_env.API_SERVER_KEY", "itself"),
    ({"hermes_secrets": {"HERMES_HOME": "/"}}, "hermes_secrets.HERMES_HOME", "itself"),
    ({"hermes_secrets": {"A": "b\nc"}}, "hermes_secrets.A", "line break"),
    ({"hermes_secrets": "x"}, "hermes_secrets", "mapping"),
    ({"hermes_secrets": {"A": "..."}}, "hermes_secrets.A", "placeholder"),
    ({"hermes_env": {"A": True}, "hermes_secrets": {"A": "x"}}, "hermes_env.A", "hermes_secrets"),
    ({"hermes_api_token": "short"}, "hermes_api_token", "16"),
    ({"hermes_channels": [1]}, "hermes_channels", "mapping"),
    ({"hermes_channels": {"telegran": {}}}, "hermes_channels", "Did you mean telegram?"),
    ({"hermes_channels": {"zzzz": {}}}, "hermes_channels", "that there is not."),
    ({"hermes_channels": {"telegram": "x"}}, "hermes_channels.telegram", "mapping"),
    ({"hermes_channels": {"telegram": None}}, "hermes_channels.telegram", "says nothing"),
    ({"hermes_channels": {"slack": None}}, "hermes_channels.slack", "says nothing"),
    ({"hermes_channels": {"hooks": None}}, "hermes_channels.hooks", "says nothing"),
    (bot(tokn="x"), "hermes_channels.telegram", "Did you mean token?"),
    ({"hermes_channels": {"hooks": [1]}}, "hermes_channels.hooks", "mapping"),
    ({"hermes_channels": {"hooks": {"A b": {}}}}, "hermes_channels.hooks", "no part of an address"),
    ({"hermes_channels": {"hooks": {"ci": 1}}}, "hermes_channels.hooks.ci", "mapping"),
    (hook(scret="x"), "hermes_channels.hooks.ci", "Did you mean secret?"),
    (hook(kind="gitea"), "hermes_channels.hooks.ci.kind", "how a webhook is signed"),
    (hook(secret="short"), "hermes_channels.hooks.ci.secret", "at least 8"),
    (hook(secret=["x" * 20, None]), "hermes_channels.hooks.ci.secret", "at least 8"),
    (hook(secret=["x" * 20] * 4), "hermes_channels.hooks.ci.secret", "more than 3"),
    (hook(kind="svix", secret="whsec_cutoff"[:-1]), "hermes_channels.hooks.ci.secret", "no base64"),
    (hook(secret=[]), "hermes_channels.hooks.ci.secret", "at least 8"),
    (hook(deliver_only=1), "hermes_channels.hooks.ci.deliver_only", "neither true nor false"),
    (hook(prompt=0), "hermes_channels.hooks.ci.prompt", "no text"),
    (hook(events=False), "hermes_channels.hooks.ci.events", "no list"),
    (hook(session=False), "hermes_channels.hooks.ci.session", "no name"),
    (hook(chat=0), "hermes_channels.hooks.ci.chat", "no channel that is declared"),
    (hook(prompt=[1]), "hermes_channels.hooks.ci.prompt", "no text"),
    (hook(events="push"), "hermes_channels.hooks.ci.events", "no list"),
    (hook(session="a b"), "hermes_channels.hooks.ci.session", "no name"),
    (hook(chat="telegram:77"), "hermes_channels.hooks.ci.chat", "no channel that is declared"),
    (beside_bot(chat="telegram:ann"), "hermes_channels.hooks.ci.chat", "no chat of telegram"),
    (hook(deliver_only=True), "hermes_channels.hooks.ci.deliver_only", "there is no chat"),
    (hook(deliver_only="yes"), "hermes_channels.hooks.ci.deliver_only", "neither true nor false"),
    (bot(token="4242"), "hermes_channels.telegram.token", "no token of a bot"),
    (bot(token=None), "hermes_channels.telegram.token", "no token of a bot"),
    (bot(token=f"4242:{'x' * 35}\n"), "hermes_channels.telegram.token", "no token of a bot"),
    (bot(token=f"4242: {'x' * 35}"), "hermes_channels.telegram.token", "no token of a bot"),
    (bot(token=f"xoxb-1-2-{'x' * 20}"), "hermes_channels.telegram.token", "no token of a bot"),
    (bot(token=[f"4242:{'x' * 35}"]), "hermes_channels.telegram.token", "no token of a bot"),
    (bot(allow=[]), "hermes_channels.telegram.allow", "nobody who may write"),
    (bot(allow="77"), "hermes_channels.telegram.allow", "is no list"),
    (bot(allow=77), "hermes_channels.telegram.allow", "is no list"),
    (bot(allow={"77": True}), "hermes_channels.telegram.allow", "is no list"),
    (bot(allow=[7.7e1]), "hermes_channels.telegram.allow", "other than numbers"),
    (bot(allow="77", pairing=True), "hermes_channels.telegram.allow", "is no list"),
    (bot(allow=[77, "@ann"]), "hermes_channels.telegram.allow", "other than numbers"),
    (bot(allow=[True]), "hermes_channels.telegram.allow", "other than numbers"),
    (bot(pairing="yes"), "hermes_channels.telegram.pairing", "not true or false"),
    (bot(pairing=False, allow=[]), "hermes_channels.telegram.allow", "nobody who may write"),
    (bot(pairing=True, allow=["@ann"]), "hermes_channels.telegram.allow", "other than numbers"),
    (bot(receive=False), "hermes_channels.telegram.receive", "webhook, poll"),
    (bot(receive=[]), "hermes_channels.telegram.receive", "webhook, poll"),
    (bot(receive="push"), "hermes_channels.telegram.receive", "webhook, poll"),
    (bot(home="@ann"), "hermes_channels.telegram.home", "no chat of Telegram"),
    (bot(home=True), "hermes_channels.telegram.home", "no chat of Telegram"),
    (bot(receive="webhook"), "hermes_channels.telegram.receive", "does not reach this machine"),
    (slack(token="xoxp-1-2-3456789012"), "hermes_channels.slack.token", "begins with xoxb-"),
    (slack(token=f"xapp-1-A0-2-{'x' * 20}"), "hermes_channels.slack.token", "begins with xoxb-"),
    (slack(api_url=False), "hermes_channels.slack.api_url", "URL"),
    (slack(signing_secret="A" * 32), "hermes_channels.slack.signing_secret", "no signing secret"),
    (slack(signing_secret=[]), "hermes_channels.slack.signing_secret", "no signing secret"),
    (slack(allow=["ann"]), "hermes_channels.slack.allow", "other than ids"),
    (slack(receive="poll"), "hermes_channels.slack", "that there is not"),
    (slack(api_url="slack"), "hermes_channels.slack.api_url", "URL"),
    (slack() | {"hermes_public_url": ""}, "hermes_channels.slack", "cannot be asked for messages"),
    (at("whatsapp_cloud", token="x"), "hermes_channels.whatsapp_cloud.token", "no access token"),
    (
        at("whatsapp_cloud", verify_token="short"),
        "hermes_channels.whatsapp_cloud.verify_token",
        "at least 8",
    ),
    (
        at("whatsapp_cloud", phone_number_id="+49"),
        "hermes_channels.whatsapp_cloud.phone_number_id",
        "no ID",
    ),
    (at("whatsapp_cloud", allow=["ann"]), "hermes_channels.whatsapp_cloud.allow", "phone numbers"),
    (at("sms", account_sid="AB"), "hermes_channels.sms.account_sid", "begins with AC"),
    (at("sms", auth_token=["b" * 32, "x"]), "hermes_channels.sms.auth_token", "no auth token"),
    (at("sms", auth_token=int("1" * 32)), "hermes_channels.sms.auth_token", "no auth token"),
    (at("sms", number=15005550006), "hermes_channels.sms.number", "with a plus"),
    (at("discord", public_key="x"), "hermes_channels.discord.public_key", "no public key"),
    (at("discord", allow=["ann"]), "hermes_channels.discord.allow", "IDs"),
    (at("email", address="hermes"), "hermes_channels.email.address", "no mail address"),
    (at("email", address="a&b@example.com"), "hermes_channels.email.address", "no mail address"),
    (at("email", allow=["Ann <a@example.net>"]), "hermes_channels.email.allow", "mail addresses"),
    (at("email", allow=["HERMES@example.com"]), "hermes_channels.email.allow", "own address"),
    (at("email", allow=[]), "hermes_channels.email.allow", "nobody who may write"),
    (at("email", home="bob@example.net"), "hermes_channels.email.home", "nobody else"),
    (at("email", home="hermes@example.com"), "hermes_channels.email.home", "nobody else"),
    (at("email", pairing=True), "hermes_channels.email", "that there is not"),
    (at("email", api_url="https://a.example"), "hermes_channels.email", "that there is not"),
    (
        {**at("email"), "hermes_platform": "workerd", "hermes_public_url": "https://a.example"},
        "hermes_channels.email",
        "to none on this machine",
    ),
    (CLOUD | bot(receive="poll"), "hermes_channels.telegram.receive", "never rests"),
    ({"hermes_public_url": "http://hermes.example.com"}, "hermes_public_url", "unencrypted"),
    ({"hermes_public_url": "http://127.0.0.1:8787"}, "hermes_public_url", "without TLS"),
    ({"hermes_telegram_api_url": "telegram"}, "hermes_telegram_api_url", "URL"),
    ({"hermes_instance_type": "huge"}, "hermes_instance_type", "standard-1, lite"),
    ({"hermes_location": "weurope"}, "hermes_location", "not one of wnam, enam"),
    ({"hermes_route_mode": "dns"}, "hermes_route_mode", "custom_domain, zone_route"),
    ({"hermes_dashboard_hostname": "https://a.example"}, "hermes_dashboard_hostname", "hostname"),
    ({"hermes_dashboard_hostname": "localhost"}, "hermes_dashboard_hostname", "hostname"),
    (CLOUD | {"hermes_account_id": "acme"}, "hermes_account_id", "32 hexadecimal digits"),
    (CLOUD | {"hermes_account_id": ""}, "hermes_account_id", "CLOUDFLARE_ACCOUNT_ID"),
    (CLOUD | {"cloudflare_api_token": None}, "cloudflare_api_token", "CLOUDFLARE_API_TOKEN"),
    (CLOUD | {"cloudflare_api_token": "cf\n"}, "cloudflare_api_token", "line break"),
    (
        CLOUD
        | {"hermes_default_model": "custom/m", "hermes_provider_base_url": "http://127.0.0.1:1/v1"},
        "hermes_provider_base_url",
        "Cloudflare does not reach",
    ),
    (
        CLOUD
        | {"hermes_default_model": "custom/m", "hermes_provider_base_url": "http://m.example/v1"},
        "hermes_provider_base_url",
        "unencrypted",
    ),
    (CLOUD | {"hermes_env": {"A": "ü" * 2560}}, "hermes_env", "5128 bytes"),
    (CLOUD | {"hermes_secrets": {"A": "x" * 5120}}, "hermes_secrets", "5128 bytes"),
    ({"hermes_state_dir": "a\nb"}, "hermes_state_dir", "character"),
    ({"hermes_state_dir": 'a"b'}, "hermes_state_dir", "character"),
]


@pytest.mark.parametrize(("inputs", "subject", "words"), BAD, ids=lambda value: str(value)[:50])
def test_bad_input_is_named(inputs: dict[str, Any], subject: str, words: str) -> None:
    checker = check(**inputs)
    assert subjects(checker) == [subject]
    assert words in Card(checker.problems).render()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (KEY + "\n", "line break"),
        (KEY + "\r\nx", "line break"),
        (" " + KEY, "space"),
        ("   ", "blank"),
        (KEY + "é", "ASCII"),
        (KEY + "\x07", "control"),
        (KEY + " " + KEY, "blank inside"),
        ("...", "placeholder"),
        ("sk-ant-api03-...0123456789", "placeholder"),
        (5, "text"),
    ],
)
@pytest.mark.parametrize("variable", ["anthropic_api_key", "hermes_api_token"])
def test_a_malformed_secret_is_named_and_not_shown(
    variable: str, value: object, words: str
) -> None:
    checker = check(**{variable: value})
    card = Card(checker.problems).render()
    assert subjects(checker) == [variable]
    assert words in card
    assert KEY not in card


def test_a_key_from_the_environment_is_named_as_there() -> None:
    raw = GOOD | {"anthropic_api_key": KEY + "\n"}
    sources = {"anthropic_api_key": "environment"}
    assert subjects(Checker(raw, sources=sources).check()) == ["ANTHROPIC_API_KEY"]


def test_every_problem_comes_at_once() -> None:
    checker = check(hermes_port="x", hermes_sleep_after="1s", hermes_default_model="acme/large")
    assert set(subjects(checker)) == {"hermes_port", "hermes_sleep_after", "hermes_default_model"}


URLS = [
    ("ftp://x", "http or https"),
    ("http://", "http or https"),
    ("https://user:hunter2@host/v1", "credentials"),
    ("https://hunter2@host/v1", "credentials"),
    ("https://:hunter2@host/v1", "credentials"),
    ("https://host/v1?key=hunter2", "query"),
    ("http://8.8.8.8/v1", "unencrypted"),
    ("http://[2606:4700::1111]/v1", "unencrypted"),
    ("http://100.128.0.1/v1", "unencrypted"),
    ("https://host:99999/v1", "not a URL"),
    ("https://ho st/v1", "http or https"),
    (7, "text"),
]


@pytest.mark.parametrize(("url", "words"), URLS, ids=str)
def test_a_bad_provider_url_is_refused_without_its_secrets(url: object, words: str) -> None:
    checker = check(anthropic_api_key=KEY, hermes_provider_base_url=url)
    card = Card(checker.problems).render()
    assert subjects(checker) == ["hermes_provider_base_url"]
    assert words in card
    assert "hunter2" not in card


@pytest.mark.parametrize(
    ("url", "networks"),
    [
        ("https://api.example.com/v1", ["public", "private"]),
        ("http://ollama:11434/v1", ["private"]),
        ("http://gpu.local/v1", ["private"]),
        ("http://100.101.102.103:11434/v1", ["private"]),
        ("http://[fd7a:115c:a1e0::1]/v1", ["private"]),
        ("http://127.0.0.2:11434/v1", ["private"]),
        ("https://8.8.8.8/v1", []),
        ("http://127.0.0.1:11434/v1", ["127.0.0.1/32", "::1/128"]),
        ("http://localhost:11434/v1", ["127.0.0.1/32", "::1/128"]),
        ("http://192.168.1.7:11434/v1", ["private"]),
        ("", []),
    ],
)
def test_networks_beyond_the_internet(url: str, networks: list[str]) -> None:
    assert special_networks(url) == networks


@pytest.mark.parametrize(
    ("host", "refused"),
    [
        ("8.8.8.8", True),
        ("[2606:4700::1111]", True),
        ("134744072", True),
        ("0x8.8.8.0x8", True),
        ("10.1.2.3", True),
        ("100.101.102.103", True),
        ("ollama", True),
        ("gpu.local", True),
        ("localhost", True),
        ("models.example.com", False),
        ("8.8.8.8.example.com", False),
    ],
)
def test_cloudflare_reaches_no_provider_by_its_address(host: str, refused: bool) -> None:
    """Its Workers answer such a request themselves, with error 1003; on this machine it is as good as a name."""
    url = f"https://{host}/v1"
    given = {"hermes_default_model": "custom/m", "hermes_provider_base_url": url}
    checker = check(**CLOUD, **given)
    assert subjects(checker) == (["hermes_provider_base_url"] if refused else [])
    assert not check(**given, custom_api_key=KEY).problems


@pytest.mark.parametrize("value", ORIGINS["good"])
def test_an_origin_is_taken_as_browsers_and_programs_send_it(value: str) -> None:
    assert origin(value)
    assert not check(hermes_cors_origins=[value]).problems


@pytest.mark.parametrize("value", ORIGINS["bad"], ids=lambda value: value[:40])
def test_what_no_page_sends_is_no_origin(value: str) -> None:
    assert not origin(value)


def test_defaults() -> None:
    checker = check()
    assert not checker.problems
    settings = checker.settings
    assert settings.default_model == "rehearsal/rehearsal"
    assert checker.sources["hermes_default_model"] == "no provider key is set"
    assert (settings.port, settings.providers_port) == (8787, 18787)
    assert (settings.sleep_after, settings.drain_timeout) == (14400, 60)
    assert not settings.host_tools
    assert not settings.allow_unauthenticated


def test_chosen_words_are_taken_in_their_own_order() -> None:
    checker = check(hermes_features=["web", "mcp"])
    assert not checker.problems
    assert [*checker.settings.features] == ["mcp", "web"]


def test_the_model_follows_the_key() -> None:
    checker = check(anthropic_api_key=KEY)
    assert checker.settings.default_model == "anthropic/claude-sonnet-4-5"
    assert checker.secrets == {"ANTHROPIC_API_KEY": KEY}


def test_servers_of_tools_bring_along_what_they_need() -> None:
    servers = {"hermes_mcp_servers": {"time": {"command": "python3"}}}
    assert check(**servers).settings.features == ["mcp"]
    checker = check(**servers, hermes_features=["web"])
    assert (checker.settings.features, checker.problems) == (["mcp", "web"], [])
    assert check(**servers, hermes_features=["web", "mcp"]).settings.features == ["mcp", "web"]
    assert check(hermes_mcp_servers={}).settings.features == []


def test_rehearsal_can_be_chosen_beside_keys() -> None:
    checker = check(openai_api_key=KEY, hermes_provider="rehearsal")
    assert not checker.problems
    assert checker.settings.default_model == "rehearsal/rehearsal"


def test_a_custom_endpoint_needs_no_key() -> None:
    checker = check(
        hermes_default_model="custom/m", hermes_provider_base_url="http://127.0.0.1:11434/v1/"
    )
    assert not checker.problems
    assert checker.settings.provider_base_url == "http://127.0.0.1:11434/v1"


LIMITS: list[dict[str, Any]] = [
    {"hermes_serial": [1, "10%", "100%"]},
    {"hermes_max_fail_percentage": 0},
    {"hermes_max_fail_percentage": "100"},
    {"hermes_token_vault_file": "vault.yml"},
    {"hermes_token_command": ["keep"]},
    {"hermes_telegram_api_url": "http://localhost:8081"},
    {"hermes_telegram_api_url": "http://192.168.1.7:8081"},
    {"hermes_default_model": "custom/m", "hermes_provider_base_url": "http://ollama:11434/v1"},
    {"hermes_name": "a" * 54},
    {"hermes_port": 1024},
    {"hermes_port": 65535},
    {"hermes_api_token": "t" * 16},
    CLOUD | {"hermes_secrets": {"A": "x" * 5112}},
]


@pytest.mark.parametrize("inputs", LIMITS, ids=lambda value: str(value)[:50])
def test_what_just_reaches_a_limit_is_taken(inputs: dict[str, Any]) -> None:
    assert not check(**inputs).problems


def test_every_bad_name_of_an_environment_is_told_once_and_is_not_handed_on() -> None:
    names = {"in both": 1, "BOTH": 1, "HERMES_HOME": 1, "ANTHROPIC_API_KEY": 1, "GOOD": 1}
    checker = check(hermes_env=names, hermes_secrets={"BOTH": "sixteen letters."})
    bad = ["ANTHROPIC_API_KEY", "BOTH", "HERMES_HOME", "in both"]
    assert subjects(checker) == [f"hermes_env.{name}" for name in bad]
    assert checker.settings.env == {"GOOD": "1"}
    assert check(hermes_env={"A": True, "B": False}).settings.env == {"A": "true", "B": "false"}


def test_values_are_kept_as_they_were_said() -> None:
    for length in (64_000, "131072", 10_000_000):
        checker = check(hermes_context_length=length)
        assert (checker.problems, checker.settings.context_length) == ([], int(length))
    assert check(hermes_version="0.18.2").settings.version == "0.18.2"
    api = "https://api.example/v4/"
    assert check(**CLOUD, cloudflare_api_base_url=api).settings.api_base_url == api[:-1]
    assert check(**CLOUD).settings.api_base_url == "https://api.cloudflare.com/client/v4"


def test_the_highest_ports_keep_their_second_port_in_range() -> None:
    assert check(hermes_port="55535").settings.providers_port == 65535
    assert check(hermes_port="60000").settings.providers_port == 50000
    assert check(hermes_port="65000").settings.dashboard_port == 64000


def test_a_gateway_is_an_address_and_may_hold_the_keys() -> None:
    checker = check(
        hermes_ai_gateway=GATEWAY,
        hermes_ai_gateway_token="aig-canary-token",
        hermes_default_model="openai/gpt-5-mini",
    )
    assert checker.settings.ai_gateway == f"https://gateway.ai.cloudflare.com/v1/{GATEWAY}"
    assert checker.problems == []
    assert checker.secrets == {"AI_GATEWAY_TOKEN": "aig-canary-token"}


def test_a_key_that_is_malformed_is_not_missing_too() -> None:
    checker = check(openai_api_key=f"{KEY}\n", hermes_default_model="openai/gpt-5-mini")
    assert subjects(checker) == ["openai_api_key"]


@pytest.mark.parametrize(
    ("value", "rendered"),
    [
        ("open", "open"),
        ("providers", "providers"),
        (["wiki.example", ".github.com"], "wiki.example,.github.com"),
    ],
)
def test_what_a_container_may_reach(value: object, rendered: str) -> None:
    assert check(hermes_egress=value, **DOCKER).settings.egress == rendered


def test_each_engine_takes_the_ports_that_it_needs() -> None:
    three = {"http": 8787, "providers": 18787, "dashboard": 9787}
    assert check().settings.ports == three
    assert check(hermes_dashboard=False).settings.ports == {"http": 8787, "providers": 18787}
    assert check(**DOCKER).settings.ports == {"http": 8787, "dashboard": 9787}


@pytest.mark.parametrize("value", ["yes", "true", True, "1", "On"])
def test_words_for_true(value: object) -> None:
    assert check(hermes_host_tools=value).settings.host_tools is True


def test_unknown_variables_get_a_suggestion() -> None:
    names = [
        "hermes_defualt_model",
        "hermes_port",
        "hermes__mine",
        "other",
        "hermes_quux",
        "hermes_api_tokn",
        "HERMES_EGRESS",
        "preflight_egres",
        "preflight_result",
    ]
    found = {problem.subject: problem.sentence for problem in unknown_variables(names)}
    assert found == {
        "hermes_defualt_model": "unknown; did you mean hermes_default_model?",
        "hermes_quux": "unknown.",
        "hermes_api_tokn": "unknown; did you mean hermes_api_token?",
        "HERMES_EGRESS": "unknown; did you mean hermes_egress?",
        "preflight_egres": "unknown; did you mean preflight_egress?",
    }


@pytest.mark.parametrize("given", ["unix:///x/s", "unix:/x/s", "/x/s"])
def test_a_socket_may_be_written_as_docker_writes_it(given: str) -> None:
    checker = check(**DOCKER, hermes_docker_socket=given)
    assert checker.problems == []
    assert checker.settings.docker_socket == "/x/s"


def test_docker_host_means_nothing_to_the_process_engine() -> None:
    checker = check(hermes_docker_socket="tcp://10.0.0.1:2375")
    assert checker.problems == []
    assert checker.settings.docker_socket == ""


@pytest.mark.parametrize("name", ["a", "a/b:1", "localhost:5000/a@sha256:" + "0" * 64, "x.y/a:V1"])
def test_names_of_images_are_taken(name: str) -> None:
    assert check(**DOCKER, hermes_base_image=name).settings.base_image == name


@pytest.mark.parametrize(
    "source",
    [
        "x.whl",
        {"file": "x.whl"},
        {"file": "x.exe", "sha256": "a" * 64},
        {"file": "x.whl", "sha256": "a" * 63},
        {"file": "https://me:secret@a.example/x.whl", "sha256": "a" * 64},
        {"git": "ext::sh -c id", "commit": "a" * 40},
        {"git": "--upload-pack=id", "commit": "a" * 40},
        {"git": "https://a.example/x", "commit": "v1"},
        {"git": "https://a.example/x", "commit": "a" * 40, "ref": "--upload-pack=id"},
        {"git": "https://a.example/x", "commit": "a" * 40, "sha256": "a" * 64},
        {"image": "a/b:1.2.3"},
        {"image": "a/b"},
        {"image": "a/b@sha256:" + "a" * 63},
        {"image": "a/b@sha256:" + "a" * 64, "sha256": "a" * 64},
    ],
)
def test_what_names_no_source_of_hermes_is_refused(source: object) -> None:
    assert subjects(check(hermes_source=source)) == ["hermes_source"]


def test_a_source_of_hermes_is_a_file_or_a_commit() -> None:
    for source in (
        {"file": "files/x.whl", "sha256": "a" * 64},
        {"file": "https://a.example/x.tar.gz?raw=1", "sha256": "a" * 64},
        {"git": "git@a.example:x/y.git", "commit": "a" * 40},
        {"git": "../x", "commit": "a" * 40, "ref": "release/v1"},
    ):
        checker = check(hermes_source=source)
        assert (checker.problems, checker.settings.source) == ([], source)


OF_UPSTREAM = {"hermes_source": {"image": f"registry.example:5000/a/b@sha256:{'a' * 64}"}}


def test_an_image_is_a_source_of_hermes_by_its_digest_alone() -> None:
    for name in ("a/b", "a/b:1.2.3", "registry.example:5000/a/b", "registry.example:5000/a/b:1"):
        checker = check(**DOCKER, hermes_source={"image": f"{name}@sha256:{'a' * 64}"})
        assert checker.problems == []
        found = checker.settings.source["image"]
        assert found == f"{name.removesuffix(':1.2.3').removesuffix(':1')}@sha256:{'a' * 64}"
    (refused,) = check(**DOCKER, hermes_source={"image": "a/b:1.2.3"}).problems
    assert "'a/b:1.2.3' names no image by its digest" in refused.sentence
    assert "@sha256:" in refused.remedy


def test_an_image_needs_containers() -> None:
    (refused,) = check(**OF_UPSTREAM).problems
    assert "the process engine runs Hermes as processes" in refused.sentence
    assert "hermes_engine: docker" in refused.remedy
    elsewhere = check(hermes_platform="cloudflare", **OF_UPSTREAM)
    assert "hermes_source" not in subjects(elsewhere)


@pytest.mark.parametrize(
    ("variable", "given"),
    [
        ("hermes_features", ["web"]),
        ("hermes_packages", {"python": ["pandas==2.2.3"]}),
        ("hermes_lazy_installs", True),
        ("hermes_browser_url", "http://browser.example:9222"),
        ("hermes_base_image", "a/b:1"),
    ],
)
def test_what_is_ours_is_not_laid_into_upstreams_image(variable: str, given: object) -> None:
    (refused,) = check(**DOCKER, **OF_UPSTREAM, **{variable: given}).problems
    assert (refused.subject, refused.code) == (variable, "hermes-source")
    assert "cannot be had with the image of hermes_source" in refused.sentence


def test_what_another_setting_would_bring_along_is_upstreams_own() -> None:
    servers = {"time": {"command": "mcp-server-time"}}
    checker = check(**DOCKER, **OF_UPSTREAM, hermes_mcp_servers=servers)
    assert (checker.problems, checker.settings.features) == ([], [])


@pytest.mark.parametrize(
    "packages",
    [
        {"python": ["pandas"]},
        {"python": ["pandas>=2"]},
        {"python": ["pandas==2.*"]},
        {"python": ["pandas==2 ; python_version < '3'"]},
        {"python": ["x @ https://me:canary-1@a.example/x.whl"]},
        {"python": ["-r x==1"]},
        {"python": "pandas==2.2.3"},
        {"python": [2]},
        {"python": ["a.b==1", "A-b==2"]},
        {"python": ["hermes_agent==0.20.0"]},
        {"debian": ["jq"]},
        {"debian": ["jq=*"]},
        {"debian": ["jq/sid=1"]},
        {"npm": ["left-pad@1.0.0"]},
    ],
)
def test_what_names_no_pinned_package_is_refused(packages: object) -> None:
    checker = check(hermes_packages=packages)
    assert subjects(checker) == ["hermes_packages"]
    assert checker.settings.packages == {} and "canary" not in checker.problems[0].sentence


def test_pinned_packages_are_the_same_in_whatever_order() -> None:
    packages = {"debian": ["jq=1.6-2.1+deb12u2"], "python": ["b[x,y]==1.0rc1", "A==1!2.3+mine"]}
    checker = check(hermes_packages=packages)
    assert checker.problems == []
    assert [*checker.settings.packages.items()] == [
        ("debian", packages["debian"]),
        ("python", sorted(packages["python"])),
    ]
    assert check(hermes_packages={"python": []}).settings.packages == {}


def test_lazy_installs_bring_what_fetches_them_and_need_a_registry() -> None:
    checker = check(hermes_lazy_installs=True)
    assert (checker.problems, checker.settings.features) == ([], ["installs"])
    registry = {"UV_DEFAULT_INDEX": "https://simple.packages.example/simple"}
    held = {**DOCKER, "hermes_lazy_installs": True, "hermes_env": registry}
    for hosts in (["simple.packages.example"], [".packages.example", "a.example"]):
        assert check(**held, hermes_egress=hosts).problems == []
    for refused in (
        {**held, "hermes_egress": "providers"},
        {**held, "hermes_egress": ["packages.example"]},
        {**held, "hermes_egress": ["a.example"], "hermes_env": {}},
    ):
        assert subjects(check(**refused)) == ["hermes_lazy_installs"]
    assert subjects(check(hermes_features=["installs"])) == ["hermes_features"]
    assert subjects(check(hermes_env={"HERMES_LAZY_INSTALL_TARGET": "/"})) == [
        "hermes_env.HERMES_LAZY_INSTALL_TARGET"
    ]


def test_a_browser_is_named_by_an_address_and_brings_what_speaks_to_it() -> None:
    url = "wss://a.example/?token=canary"
    checker = check(**DOCKER, hermes_browser_url=url)
    assert checker.problems == []
    assert (checker.secrets["BROWSER_URL"], checker.settings.features) == (url, ["browser"])
    on_the_machine = {"hermes_browser_url": "http://127.0.0.1:9222"}
    assert check(**on_the_machine, hermes_host_tools=True).problems == []
    for refused in (
        on_the_machine,
        {**DOCKER, "hermes_browser_url": "chromium"},
        {**DOCKER, "hermes_features": ["browser"]},
    ):
        (problem,) = check(**refused).problems
        assert problem.code == "browser"


def test_a_browser_of_the_image_needs_an_image_and_no_other_browser() -> None:
    chromium = {"hermes_features": ["chromium"]}
    checker = check(**DOCKER, **chromium)
    assert checker.problems == []
    assert checker.settings.features == ["browser", "chromium"]
    address = {"hermes_browser_url": "http://127.0.0.1:9222"}
    for refused, subject in (
        ({**DOCKER, **chromium, **address}, "hermes_browser_url"),
        (chromium, "hermes_features"),
        ({**chromium, "hermes_host_tools": True}, "hermes_features"),
    ):
        (problem,) = check(**refused).problems
        assert (problem.subject, problem.code) == (subject, "browser")


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"hermes_features": ["git"]},
        {"hermes_features": ["chromium"]},
        {"hermes_egress": "providers"},
        {"hermes_egress": ["github.com"]},
        OF_UPSTREAM,
        {"hermes_browser_url": "http://127.0.0.1:9222"},
        {"hermes_browser_url": "http://127.0.0.1:9222", "hermes_host_tools": True},
    ],
)
def test_processes_are_offered_instead_of_containers_where_the_settings_take_them(
    inputs: dict[str, Any],
) -> None:
    in_a_container = check(**DOCKER, **inputs)
    assert in_a_container.problems == []
    assert in_a_container.settings.may_be_processes is (check(**inputs).problems == [])


def test_each_secret_is_read_by_who_reads_the_secrets_alone() -> None:
    """As the tasks do that deliver them; a secret of another place would never reach the Worker."""
    values: dict[str, object] = {
        one.variable: "wss://a.example/0123456789abcdef0123456789"
        for one in SETTINGS
        if isinstance(one.kind, Secret) and one.kind.of_worker.isupper()
    }
    values |= {"hermes_secrets": {"A": "b"}, "hermes_channels": {}}
    checker = Checker(values)
    checker.read_secrets()
    assert {*WORKER_SECRETS} - {*checker.secrets} == {"API_TOKEN_PREVIOUS", "HERMES_CHANNELS"}


def test_what_the_gateway_key_is_made_of_is_too_long_to_be_found_by_trying() -> None:
    assert subjects(check(hermes_gateway_token="x" * 31)) == ["hermes_gateway_token"]
    checker = check(hermes_gateway_token="x" * 32)
    assert (checker.problems, checker.secrets["GATEWAY_TOKEN"]) == ([], "x" * 32)


def test_a_misspelled_platform_is_named_with_what_was_meant() -> None:
    checker = check(hermes_platform="worker")
    assert subjects(checker)[0] == "hermes_platform"
    assert "Did you mean workerd?" in Card(checker.problems).render()


def test_cloudflare_is_where_it_runs_by_default() -> None:
    checker = Checker(CLOUD | {"hermes_name": "alice", "hermes_platform": None}).check()
    assert checker.problems == []
    assert (checker.settings.platform, checker.settings.engine) == ("cloudflare", "cloudflare")
    assert checker.settings.ports == {}
    assert checker.cloudflare_token not in str(checker.settings.as_dict())


def test_hosts_that_take_each_others_place() -> None:
    hosts = {
        "a": ("/s", "one", (8787, 18787)),
        "b": ("/s", "one", (9000, 19000)),
        "c": ("/s", "two", (18787, 28787)),
        "d": ("/t", "one", (9100, 19100)),
    }
    assert [str(problem) for problem in collisions(hosts)] == [
        "hermes_name: a and b both are one.",
        "hermes_port: a and c both use port 18787.",
    ]


def test_hosts_that_take_one_port_are_one_line() -> None:
    """Their other ports follow it, and would say the same again."""
    found = {f"h{number}": ("/s", f"h{number}", (8787, 18787, 9787)) for number in range(100)}
    (three,) = collisions(dict(list(found.items())[:3]))
    assert str(three) == "hermes_port: h0, h1 and h2 all use port 8787."
    assert three.remedy.startswith("set another hermes_port for each of them ")
    (all_of_them,) = collisions(found)
    assert str(all_of_them) == "hermes_port: h0, h1, h2 and 97 more all use port 8787."


# Building hypothesis' tables of characters is slow, once per machine.
@tests(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "hermes_name",
                "hermes_port",
                "hermes_default_model",
                "hermes_models",
                "hermes_env",
                "hermes_secrets",
                "hermes_sleep_after",
                "hermes_provider_base_url",
                "hermes_host_tools",
                "anthropic_api_key",
                "hermes_state_dir",
            ]
        ),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.text(),
            st.lists(st.text()),
            st.dictionaries(st.text(), st.text()),
        ),
    )
)
def test_no_input_whatever_breaks_the_check(inputs: dict[str, Any]) -> None:
    checker = check(**inputs)
    if checker.problems:
        Card(checker.problems).render()


def test_what_a_play_hands_on_is_text() -> None:
    checker = Checker(GOOD | {"hermes_backup_dir": ["a"], "hermes_action": {"wake": True}})
    checker.check_place()
    assert subjects(checker) == ["hermes_action", "hermes_backup_dir"]


def test_a_platform_is_told_what_its_owner_said_under_the_workers_names() -> None:
    checker = check(**at("whatsapp_cloud", api_url="http://127.0.0.1:7/v1/"))
    assert checker.problems == []
    assert json.loads(checker.secrets["HERMES_CHANNELS"])["whatsapp_cloud"] == {
        "token": "x" * 30,
        "appSecret": "a" * 32,
        "verifyToken": "made-up-word",
        "phoneNumberId": "106540352242922",
        "allow": ["491701234567"],
        "apiUrl": "http://127.0.0.1:7/v1",
    }
    assert checker.settings.bots == {"whatsapp_cloud": "106540352242922"}
    assert checker.settings.channel_apis == ["http://127.0.0.1:7/v1"]
    for name in ("sms", "discord"):
        assert check(**at(name)).problems == []
    rotated = check(**at("sms", auth_token=["c" * 32, "b" * 32]))
    assert json.loads(rotated.secrets["HERMES_CHANNELS"])["sms"]["authTokens"] == [
        "c" * 32,
        "b" * 32,
    ]


def test_who_lets_people_in_by_codes_need_name_nobody() -> None:
    for allow in ({"allow": []}, {"allow": None}):
        checker = check(**bot(pairing=True, **allow))
        assert checker.problems == []
        telegram = told(checker)["telegram"]
        assert (telegram["allow"], telegram["pairing"]) == ([], True)


def test_telegrams_messages_come_as_was_said() -> None:
    assert told(check(**bot()))["telegram"]["receive"] == ""
    assert told(check(**bot(receive="poll", home=77)))["telegram"] == {
        "token": f"4242:{'x' * 35}",
        "allow": ["77"],
        "home": "77",
        "receive": "poll",
    }
    for receive in (None, "webhook"):
        assert told(check(**CLOUD, **bot(receive=receive)))["telegram"]["receive"] == (
            receive or ""
        )


def test_a_webhook_is_told_as_it_was_said() -> None:
    plain = told(check(**hook(deliver_only=False)))["hooks"]["ci"]
    assert plain == {
        "kind": "github",
        "secrets": ["x" * 20],
        "prompt": "",
        "events": [],
        "session": "",
        "chat": None,
        "deliverOnly": False,
    }
    chosen = told(check(**beside_bot(chat="telegram:77", deliver_only=True)))["hooks"]["ci"]
    assert chosen == plain | {"chat": {"platform": "telegram", "id": "77"}, "deliverOnly": True}


def test_what_is_no_base64_is_a_secret_to_whom_it_is_none() -> None:
    for kind, secret in (
        ("github", "whsec_cutof"),
        ("svix", "whsec_d2hvbGU="),
        ("svix", "plain-0123456789"),
    ):
        assert told(check(**hook(kind=kind, secret=secret)))["hooks"]["ci"]["secrets"] == [secret]


@pytest.mark.parametrize(
    "brings", [{"hermes_features": ["messaging"]}, {"hermes_lazy_installs": True}]
)
@pytest.mark.parametrize("variable", ["hermes_secrets", "hermes_env"])
def test_a_bot_that_hermes_would_be_by_itself_too_is_refused(
    brings: dict[str, Any], variable: str
) -> None:
    token = bot()["hermes_channels"]["telegram"]["token"]
    given = bot() | {variable: {"TELEGRAM_BOT_TOKEN": token, "OTHER": "x"}}
    assert check(**given).problems == [], "Hermes has nothing to listen with"
    (problem,) = check(**given, **brings).problems
    assert problem.subject == f"{variable}.TELEGRAM_BOT_TOKEN"
    assert "hermes_channels.telegram" in problem.sentence and token not in str(problem)
    given[variable] = {"TELEGRAM_BOT_TOKEN": f"4343:{'x' * 35}"}
    assert check(**given, **brings).problems == [], "another bot"


@pytest.mark.parametrize("variable", ["hermes_secrets", "hermes_env"])
@pytest.mark.parametrize(
    ("channel", "part", "name"),
    [
        ("sms", "auth_token", "TWILIO_AUTH_TOKEN"),
        ("whatsapp_cloud", "token", "WHATSAPP_CLOUD_ACCESS_TOKEN"),
        ("email", "address", "EMAIL_ADDRESS"),
    ],
)
def test_what_hermes_would_be_by_itself_without_any_library_is_refused(
    channel: str, part: str, name: str, variable: str
) -> None:
    digits = "0123456789abcdef" * 2
    channels = {
        "sms": {"account_sid": f"AC{digits}", "auth_token": digits, "number": "+15005550006"}
        | {"allow": ["+491701234567"]},
        "whatsapp_cloud": {"token": "EAAG" + "x" * 40, "app_secret": digits}
        | {"verify_token": "a-verify-token", "phone_number_id": "106540352242922"}
        | {"allow": ["491701234567"]},
        "email": {"address": "hermes@example.com", "allow": ["ann@x.test"]},
    }
    given = CLOUD | {"hermes_channels": {channel: channels[channel]}}
    same = channels[channel][part]
    said = same.title() if channel == "email" else same
    (problem,) = check(**given, **{variable: {name: said, "OTHER": "x"}}).problems
    assert problem.subject == f"{variable}.{name}"
    assert f"hermes_channels.{channel}" in problem.sentence
    assert channel == "email" or same not in str(problem)
    other = {name: "another@example.com"}
    assert check(**given, **{variable: other}).problems == []


def reads(**said: Any) -> Channels:
    return read_channels(Reader(said), on_cloudflare=False)


def test_mail_addresses_are_known_by_small_letters_and_written_to_by_nobody_else() -> None:
    email = {"address": "Hermes@Example.com", "allow": ["Bob@x.test", "ann@x.test", "ANN@x.test"]}
    hooks = {"ci": {"kind": "github", "secret": "x" * 20, "chat": "email:bob@x.test"}}
    given = CLOUD | {"hermes_channels": {"email": email | {"home": "ANN@x.test"}, "hooks": hooks}}
    checker = check(**given)
    assert checker.problems == []
    assert told(checker)["email"] == {
        "address": "hermes@example.com",
        "allow": ["bob@x.test", "ann@x.test", "ann@x.test"],
        "home": "ann@x.test",
    }
    settings = checker.settings
    assert (settings.mail_address, settings.mail_people) == (
        "hermes@example.com",
        ["ann@x.test", "bob@x.test"],
    )
    assert settings.bots["email"] == "hermes@example.com"
    hooks["ci"]["chat"] = "email:eve@x.test"
    (problem,) = check(**given).problems
    assert problem.subject == "hermes_channels.hooks.ci.chat"


@pytest.mark.parametrize("name", ["telegram", "slack", "whatsapp_cloud", "sms", "discord", "email"])
def test_hosts_that_are_the_same_bot(name: str) -> None:
    right = {"telegram": bot(), "slack": slack()}.get(name) or at(name)
    hosts = {"a": reads(**right), "b": reads(**hook()), "c": reads(**right)}
    (problem,) = shared_bots(hosts)
    assert problem.subject == f"hermes_channels.{name}"
    assert problem.sentence.startswith("a and c both have the same one")
    for part in right["hermes_channels"][name].values():
        assert str(part) not in f"{problem.sentence} {problem.remedy}"


def test_hosts_with_bots_of_their_own_or_with_none_share_none() -> None:
    other = {
        "telegram": bot(token=f"4343:{'x' * 35}"),
        "slack": slack(token=f"xoxb-3-4-{'x' * 20}"),
        "whatsapp_cloud": at("whatsapp_cloud", phone_number_id=206540352242922),
        "sms": at("sms", number="+15005550007"),
        "discord": at("discord", application_id=223456789012345678),
        "email": at("email", address="other@example.com"),
    }
    for name, one in other.items():
        right = {"telegram": bot(), "slack": slack()}.get(name) or at(name)
        empty = {"hermes_channels": {name: {}}}
        hosts = {"a": reads(**right), "b": reads(**one), "c": reads(**empty), "d": reads(**empty)}
        assert shared_bots(hosts) == [], name


def test_channels_in_another_order_are_the_same() -> None:
    """Or a deploy would deliver them again."""
    hooks = {name: {"kind": "github", "secret": "x" * 20} for name in ("a", "b")}
    turned = dict(reversed(hooks.items()))
    one, other = (check(hermes_channels={"hooks": each}) for each in (hooks, turned))
    assert one.secrets == other.secrets
    assert told(one)["hooks"].keys() == {"a", "b"}


PUBLIC = {"account_sid", "application_id", "number", "phone_number_id", "public_key"}
"""What platforms give their owners that may be shown; all else is a secret."""


@pytest.mark.parametrize("name", ["slack", "whatsapp_cloud", "sms", "discord"])
def test_a_bad_secret_of_a_platform_is_said_to_be_hidden(name: str) -> None:
    right = slack() if name == "slack" else at(name)
    for part in right["hermes_channels"][name].keys() - {"allow"}:
        bad = slack(**{part: "?"}) if name == "slack" else at(name, **{part: "?"})
        (problem,) = check(**bad).problems
        assert problem.subject == f"hermes_channels.{name}.{part}"
        hidden = "not shown" in problem.sentence, "vaulted" in problem.remedy
        assert hidden == ((part not in PUBLIC),) * 2, part


def test_a_signing_secret_may_be_listed_with_the_one_before() -> None:
    both = ["b" * 32, "a" * 32]
    assert told(check(**slack(signing_secret=both)))["slack"]["signingSecrets"] == both


@pytest.mark.parametrize(
    "said",
    [
        {"hermes_source": {"git": "https://me:canary-1@git.example/x", "commit": "3" * 40}},
        {"hermes_source": "https://me:canary-1@git.example/x"},
        {"hermes_public_url": "ftp://me:canary-1@h.example"},
        {"hermes_cors_origins": ["https://me:can/ary-1@h.example"]},
        {"hermes_ai_gateway": "me:canary-1@h.example"},
    ],
    ids=["a repository", "a word", "an address", "an origin", "a gateway"],
)
def test_credentials_in_an_address_are_not_shown(said: dict[str, Any]) -> None:
    problems = check(**said).problems
    assert problems
    assert "ary-1" not in str(problems)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (Number(least=1, most=9), 0, ""),
        (Number(least=1, most=9), 7, "7"),
        (Texts(), ["a", "b"], "a,b"),
        (Texts(as_json=True), ["a,b", "c"], '["a,b","c"]'),
        (Texts(as_json=True), [], "[]"),
    ],
    ids=["no number", "a number", "texts", "texts with commas", "no texts"],
)
def test_the_worker_is_given_what_it_can_tell_apart(kind: Kind, value: Any, text: str) -> None:
    assert kind.for_worker(value) == text

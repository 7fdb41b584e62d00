# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What is uploaded to Cloudflare: readable, by digest, and without a secret where people look."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.upload import metadata
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.wrangler_config import (
    render,
    worker_variables,
)

IMAGE = f"registry.cloudflare.com/{'0a' * 16}/hermes-workers@sha256:{'1b' * 32}"
SECRETS = {"API_TOKEN": "hw_canary-token", "ANTHROPIC_API_KEY": "sk-canary-key"}


@pytest.fixture
def settings() -> Settings:
    return Settings(
        name="alice",
        platform="cloudflare",
        engine="cloudflare",
        account_id="0a" * 16,
        env={"NOTE": 'a "quoted" line \\ with more'},
    )


@pytest.fixture
def written(settings: Settings) -> dict[str, Any]:
    return tomllib.loads(render(settings, Sources(), IMAGE, SECRETS).text)


def test_the_file_says_what_becomes_of_the_worker(written: dict[str, Any]) -> None:
    assert (written["name"], written["account_id"]) == ("alice", "0a" * 16)
    assert (written["workers_dev"], written["preview_urls"]) == (True, False)
    assert written["secrets"]["required"] == sorted(SECRETS)
    assert written["migrations"] == [{"tag": "v1", "new_sqlite_classes": ["HermesInstance"]}]
    (container,) = written["containers"]
    assert container["scheduling_policy"] == "durable_object"
    assert container["images"] == {"hermes": {"image": IMAGE}}
    assert "quoted" in written["vars"]["HERMES_ENV"]
    assert written["durable_objects"]["code_update_strategy"] == {"mode": "immediate"}


def test_what_is_declared_of_the_agent_is_uploaded_as_data(
    settings: Settings, written: dict[str, Any]
) -> None:
    assert "rules" not in written
    settings.agent = {"format": 1, "archive": "a" * 64, "parts": {}}
    told = tomllib.loads(render(settings, Sources(), IMAGE, SECRETS).text)
    assert told["rules"] == [{"type": "Data", "globs": ["agent.tar.gz"]}]
    assert json.loads(told["vars"]["HERMES_AGENT"]) == settings.agent
    assert told["vars"]["WORKER_VERSION"] != written["vars"]["WORKER_VERSION"]


def test_an_upload_has_code_configuration_and_secrets_in_one_version(
    settings: Settings, written: dict[str, Any]
) -> None:
    texts = worker_variables(settings, Sources(), IMAGE)
    told = metadata(settings, texts, SECRETS, IMAGE, migration_tag="")
    bindings = {one["name"]: one for one in told["bindings"]}
    kept = {name: one["text"] for name, one in bindings.items() if one["type"] == "secret_text"}
    assert kept == SECRETS
    shown = {name: one["text"] for name, one in bindings.items() if one["type"] == "plain_text"}
    assert shown == texts == written["vars"]
    assert set(told["keep_bindings"]) == {"secret_text", "secret_key"}
    assert told["migrations"]["new_tag"] == "v1"
    assert "migrations" not in metadata(settings, texts, SECRETS, IMAGE, migration_tag="v1")
    (container,) = told["containers"]
    assert container["images"] == {"hermes": IMAGE}
    assert told["code_update_strategy"] == {"mode": "immediate"}

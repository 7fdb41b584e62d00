# SPDX-License-Identifier: Apache-2.0
"""A key that its provider refuses is told before anything is deployed; a provider that is away proves nothing."""

from __future__ import annotations

from ansible_collections.hermes.workers.plugins.module_utils.errors import Problem
from ansible_collections.hermes.workers.plugins.module_utils.settings import Checker
from ansible_collections.hermes.workers.plugins.plugin_utils.provider_check import refused_keys

from tests.standins.provider import Provider

KEY = "canary-key-0123456789"


def problems(url: str, key: str, *, asked: bool = True) -> list[Problem]:
    raw = {
        "hermes_name": "alice",
        "hermes_platform": "workerd",
        "hermes_default_model": "custom/model",
        "hermes_provider_base_url": url,
        "hermes_check_provider_key": asked,
        "custom_api_key": key,
    }
    checker = Checker(raw).check()
    assert checker.problems == []
    return refused_keys(checker.settings, checker.secrets)


def test_a_refused_key_is_named_and_not_shown() -> None:
    with Provider(KEY) as provider:
        assert problems(f"{provider.url}/v1", KEY) == []
        (found,) = problems(f"{provider.url}/v1", "canary-of-another-key")
    assert found.subject == "custom_api_key"
    assert "refuses it with 401" in found.sentence
    assert "canary" not in str(found) + found.remedy


def test_it_is_asked_on_request_only_and_silence_proves_nothing() -> None:
    with Provider(KEY) as provider:
        assert problems(f"{provider.url}/v1", "canary-of-another-key", asked=False) == []
        assert provider.seen == []
        url = provider.url
    assert problems(f"{url}/v1", KEY) == []

# SPDX-License-Identifier: Apache-2.0
"""A key that its provider refuses is told before anything is deployed; a provider that is away proves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.errors import Problem
from ansible_collections.hermes.workers.plugins.module_utils.settings import Checker, Settings
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


@pytest.mark.parametrize("kind", ["custom", "anthropic"])
def test_a_netrc_does_not_replace_the_key(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key that was given is the one that is judged, and the only one that is sent."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password another-key\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with Provider(KEY) as provider:
        url = f"{provider.url}/v1" if kind == "custom" else provider.url
        settings = Settings(
            default_model=f"{kind}/model", provider_base_url=url, check_provider_key=True
        )
        assert refused_keys(settings, {f"{kind.upper()}_API_KEY": KEY}) == []
        (asked,) = provider.seen
    sent = {name: asked.headers.get(name) for name in ("authorization", "x-api-key")}
    own = {"authorization": f"Bearer {KEY}", "x-api-key": None}
    assert sent == (own if kind == "custom" else {"authorization": None, "x-api-key": KEY})


def test_it_is_asked_on_request_only_and_silence_proves_nothing() -> None:
    with Provider(KEY) as provider:
        assert problems(f"{provider.url}/v1", "canary-of-another-key", asked=False) == []
        assert provider.seen == []
        url = provider.url
    assert problems(f"{url}/v1", KEY) == []

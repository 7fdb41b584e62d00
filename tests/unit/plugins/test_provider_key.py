# SPDX-License-Identifier: Apache-2.0
"""A key that its provider refuses is told before anything is deployed; a provider that is away proves nothing."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Problem
from ansible_collections.hermes.workers.plugins.module_utils.settings.checks import Checker
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.proof.provider_key import (
    not_served_here,
    provider_problems,
    refused_keys,
    why_refused,
)

from tests.standins.provider import Provider

KEY = "canary-key-0123456789"
REFUSALS = json.loads((Path(__file__).parents[2] / "standins" / "refusals.json").read_text())


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


@pytest.mark.parametrize(
    ("url", "leads", "words"),
    [
        ("http://ollama:11434/v1", ["172.18.0.2"], ""),
        ("http://gpu.local/v1", ["192.168.1.7", "fd00::7"], ""),
        ("http://box.tail1234.ts.net/v1", ["100.101.102.103"], ""),
        ("http://vm/v1", ["127.0.1.1"], ""),
        ("http://models.example/v1", ["8.8.8.8"], "to models.example (8.8.8.8) unencrypted"),
        ("http://both.example/v1", ["10.0.0.1", "8.8.8.8"], "unencrypted"),
        ("http://ollama:11434/v1", socket.EAI_NONAME, "this machine finds no ollama."),
        ("http://gpu.local/v1", socket.EAI_AGAIN, "this machine finds no gpu.local."),
        ("https://models.example/v1", ["8.8.8.8"], ""),
        ("https://models.corp.example/v1", ["10.0.0.1"], ""),
        ("https://modles.example/v1", socket.EAI_NONAME, "this machine finds no modles.example."),
        ("https://models.example/v1", socket.EAI_AGAIN, ""),
    ],
    ids=str,
)
def test_a_name_leads_somewhere_where_a_key_may_go(
    url: str, leads: list[str] | int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is asked for its opinion of the key before."""

    def resolve(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        assert host in url
        if isinstance(leads, int):
            raise socket.gaierror(leads, "no")
        return [(0, 0, 0, "", (address, 0)) for address in leads]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    settings = Settings(platform="workerd", default_model="custom/m", provider_base_url=url)
    found = provider_problems(settings, {"CUSTOM_API_KEY": KEY})
    assert [problem.subject for problem in found] == ["hermes_provider_base_url"] * bool(words)
    assert words in "".join(problem.sentence for problem in found)
    settings.platform = "cloudflare"
    assert provider_problems(settings, {}) == [], "there, the names of here mean nothing"


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


@pytest.mark.parametrize("answer", REFUSALS, ids=lambda answer: answer["what"])
def test_what_is_refused_is_judged_as_the_worker_judges_it(answer: dict[str, Any]) -> None:
    assert why_refused(answer["status"], answer["body"]) == answer["why"]


@pytest.mark.parametrize("answer", REFUSALS, ids=lambda answer: answer["what"])
def test_a_place_that_is_not_served_is_not_laid_to_the_key(answer: dict[str, Any]) -> None:
    with Provider(KEY, refusal=(answer["status"], answer["body"])) as provider:
        found = problems(f"{provider.url}/v1", KEY)
        settings = Settings(
            platform="cloudflare",
            default_model="custom/model",
            provider_base_url=f"{provider.url}/v1",
            check_provider_key=True,
        )
        # From Cloudflare the answer may be another one.
        there = refused_keys(settings, {"CUSTOM_API_KEY": KEY})
    expected = {"key": "custom_api_key", "region": "hermes_default_model"}.get(answer["why"])
    assert [problem.subject for problem in found] == ([expected] if expected else [])
    assert [problem.code for problem in there] == (
        ["provider-refused"] if answer["why"] == "key" else []
    )


def test_where_a_place_is_not_served_the_way_to_another_is_told() -> None:
    told = not_served_here(Settings(platform="cloudflare"), "openai", 403, "Country not supported")
    assert told.subject == "hermes_location"
    assert "refuses with 403: Country not supported. The key is not at fault." in told.sentence
    assert "hermes_location" in told.remedy
    assert "restore" in told.remedy
    assert (
        "hermes_location" not in not_served_here(Settings(platform="workerd"), "openai", 403).remedy
    )

# SPDX-License-Identifier: Apache-2.0
"""Provider keys: they reach the provider, and nothing and nobody else."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from plays import Deployment

from tests.standins.provider import Provider


@pytest.fixture(scope="module")
def keyed(make_deployment: Callable[..., Deployment], provider: Provider) -> Deployment:
    made = make_deployment(
        "keyed",
        anthropic_api_key=provider.key,
        hermes_default_model="anthropic/claude-sonnet-4-5",
        hermes_provider_base_url=provider.url,
    )
    made.deploy()
    return made


def files_below(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path


def test_the_provider_gets_its_key_and_the_answer_comes_back(
    keyed: Deployment, provider: Provider
) -> None:
    answer = keyed.chat("Is the key right?")
    assert answer.said.strip() == "The stand-in heard: Is the key right?"
    assert answer.headers["x-hermes-model"] == "anthropic/claude-sonnet-4-5"
    assert [s.headers["x-api-key"] for s in provider.seen if s.body][-1] == provider.key


def test_the_key_is_in_no_file_no_argv_and_not_with_hermes(
    keyed: Deployment, provider: Provider
) -> None:
    keyed.chat("Wake up and leave traces.")
    keyed.call("POST", "/api/instance/backups")
    canary = provider.key.encode()

    holding = [str(p) for p in files_below(keyed.state) if canary in p.read_bytes()]
    assert holding == [], "the key lies in a file"

    everyone = [keyed.supervisor(), *keyed.supervisor().children(recursive=True)]
    assert len(everyone) >= 4
    for process in everyone:
        assert provider.key not in " ".join(process.cmdline())
    holders = {p.name() for p in everyone if provider.key in "".join(p.environ().values())}
    assert holders == {"workerd"}, "workerd alone may hold the key"
    # What a sandbox keeps in memory, as its own processes see it.
    runs = {Path(f"/proc/{p.pid}/root/run/hermes") for p in everyone}
    runs |= set(Path("/dev/shm").glob("hermes-run-*"))
    kept = [path for run in runs if run.is_dir() for path in files_below(run)]
    assert any(path.name == "env.json" for path in kept)
    assert [str(path) for path in kept if canary in path.read_bytes()] == []


def test_no_play_prints_the_key_or_the_token(keyed: Deployment, provider: Provider) -> None:
    rotated = provider.key + "-2"
    before, provider.key = provider.key, rotated
    keyed.variables["anthropic_api_key"] = rotated
    play = keyed.deploy("-vvv", "--diff")
    assert play.changed(keyed.name) > 0
    assert "changed anthropic_api_key" in play.output
    for secret in (before, rotated, keyed.token):
        assert secret not in play.output
    assert keyed.chat("With the new key").status == 200
    assert keyed.deploy().changed(keyed.name) == 0


def test_a_wrong_key_names_the_variable_to_mend(
    make_deployment: Callable[..., Deployment], provider: Provider
) -> None:
    wrong = make_deployment(
        "wrong-key",
        openai_api_key="sk-wrong-" + secrets.token_hex(8),
        hermes_default_model="openai/gpt-5-mini",
        hermes_provider_base_url=provider.url + "/v1",
    )
    asked = wrong.play("deploy", "-e", "hermes_check_provider_key=true")
    assert asked.code != 0
    assert "openai_api_key: openai refuses it with 401" in asked.output
    assert "Nothing was changed." in asked.output
    assert not wrong.state.exists()

    play = wrong.play("deploy")
    assert play.code != 0
    assert "openai_api_key" in play.output
    assert "401" in play.output or "Incorrect API key" in play.output
    assert wrong.variables["openai_api_key"] not in play.output

    wrong.variables["openai_api_key"] = provider.key
    assert "deployed and verified" in wrong.deploy().output


def test_a_request_may_choose_among_the_further_models(
    make_deployment: Callable[..., Deployment], provider: Provider
) -> None:
    several = make_deployment(
        "several-models",
        custom_api_key=provider.key,
        hermes_default_model="rehearsal/rehearsal",
        hermes_models=["custom/stand-in-large"],
        hermes_provider_base_url=provider.url + "/v1",
    )
    several.deploy()
    assert "Rehearsal" in several.chat("Who are you?").said
    chosen = several.chat("And you?", model="custom/stand-in-large")
    assert chosen.said.strip() == "The stand-in heard: And you?"
    assert chosen.headers["x-hermes-model"] == "custom/stand-in-large"
    asked = [seen.body["model"] for seen in provider.seen if seen.body]
    assert asked[-1] == "stand-in-large"


def test_keys_in_the_environment_are_with_hermes_and_in_no_file(
    make_deployment: Callable[..., Deployment], provider: Provider
) -> None:
    """The owner's choice: Hermes speaks to the provider by itself."""
    direct = make_deployment(
        "direct",
        custom_api_key=provider.key,
        hermes_provider_keys="environment",
        hermes_default_model="custom/stand-in",
        hermes_provider_base_url=provider.url + "/v1",
    )
    direct.deploy()
    assert direct.chat("By yourself?").said.strip() == "The stand-in heard: By yourself?"
    direct.call("POST", "/api/instance/backups")
    everyone = direct.supervisor().children(recursive=True)
    holders = {p.name() for p in everyone if provider.key in "".join(p.environ().values())}
    assert holders - {"workerd"}
    canary = provider.key.encode()
    assert [str(p) for p in files_below(direct.state) if canary in p.read_bytes()] == []

    running = direct.hermes_pids()
    provider.key = direct.variables["custom_api_key"] = "sk-canary-" + secrets.token_hex(16)
    play = direct.play("rotate_keys", "-e", "keys=provider_keys")
    assert play.code == 0, play.output
    assert "Restarts: direct." in play.output
    assert direct.hermes_pids() != running, "Hermes has its environment from its start"
    assert direct.chat("With another?").said.strip() == "The stand-in heard: With another?"

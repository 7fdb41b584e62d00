# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What is set but cannot be read is told, at any depth, and never taken for what is not set."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.hermes.workers.plugins.module_utils.settings.catalogue import (
    INPUTS,
    KNOWN_VARIABLES,
    SECRET_INPUTS,
    role_argument,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.inputs import inventory

CANARY = "sk-canary-5b0c"


def trusted(value: Any) -> Any:
    """Values as an inventory gives them: its texts may be templates."""
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {name: trusted(entry) for name, entry in value.items()}
    return [trusted(entry) for entry in value] if isinstance(value, list) else value


def read(extra: tuple[str, ...] = (), **variables: Any) -> inventory.Inputs:
    variables = trusted(variables)
    templar = Templar(loader=DataLoader(), variables=variables)
    return inventory.read(INPUTS, variables, lambda n: templar.template(variables[n]), extra)


@pytest.fixture(autouse=True)
def nobody_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in inventory.ENVIRONMENT.values():
        monkeypatch.delenv(name, raising=False)


UNDEFINED: list[dict[str, Any]] = [
    {"hermes_egress": "{{ typo }}"},
    {"hermes_egress": ["wiki.example", "{{ typo }}"]},
    {"hermes_env": {"A": {"B": ["{{ typo }}"]}}},
    {"hermes_access_team_domain": "{{ team }}", "team": "{{ base }}", "base": "{{ typo }}.example"},
    {"hermes_secrets": {"TELEGRAM_BOT_TOKEN": "{{ typo }}"}},
    {"anthropic_api_key": "{{ typo }}"},
    {"cloudflare_api_token": "{{ vaulted }}", "vaulted": "{{ typo }}"},
    {"hermes_name": "{{ typo }}"},
    {"preflight_egress": "{{ typo }}"},
]


@pytest.mark.parametrize("variables", UNDEFINED, ids=str)
def test_a_name_that_is_not_defined_is_told_with_the_variable(variables: dict[str, Any]) -> None:
    found = read(**variables)
    (problem,) = found.problems
    assert problem.subject == next(iter(variables))
    assert problem.sentence == "cannot be read: 'typo' is undefined."
    assert problem.subject in problem.remedy
    assert found.values == {}, "neither a default nor an empty text stands for it"


def test_the_environment_does_not_step_in_for_what_the_inventory_mentions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", CANARY)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setenv("OPENROUTER_API_KEY", CANARY)
    found = read(anthropic_api_key="{{ typo }}", openai_api_key="")
    assert "anthropic_api_key" not in found.values
    assert found.values["openai_api_key"] == ""
    assert found.values["openrouter_api_key"] == CANARY
    assert found.sources["openrouter_api_key"] == "environment"


def test_what_is_not_set_is_left_to_its_default() -> None:
    assert read(hermes_port="{{ omit }}").values == {}
    assert read(hermes_port=None).values == {"hermes_port": None}
    assert read(hermes_sleep_after="{{ typo | default('1h') }}").values == {
        "hermes_sleep_after": "1h"
    }


def test_each_value_says_where_it_was_set() -> None:
    found = read(
        ("hermes_port",),
        hermes_port=9000,
        hermes_name="alice",
        hermes_engine="process",
        preflight_engine="docker",
    )
    assert found.values["hermes_engine"] == "docker"
    assert found.sources == {
        "hermes_port": "-e",
        "hermes_name": "inventory",
        "hermes_engine": "role argument",
    }


FAILING = [
    ("{{ 'x' | nofilter }}", "No filter named 'nofilter'"),
    ("{{ 'x' ", "unexpected end of template"),
    ("{{ lookup('file', '/not/there') }}", "/not/there"),
    ("{{ hermes_egress }}", "Recursive loop"),
]


@pytest.mark.parametrize(("template", "words"), FAILING)
def test_an_expression_that_fails_is_told(template: str, words: str) -> None:
    (problem,) = read(hermes_egress=template).problems
    assert problem.subject == "hermes_egress"
    assert words in problem.sentence


def test_an_expression_of_a_secret_that_fails_shows_nothing_of_it() -> None:
    (problem,) = read(anthropic_api_key=f"{{{{ lookup('pipe', 'false {CANARY}') }}}}").problems
    assert problem.subject == "anthropic_api_key"
    assert "lookup plugin" in problem.sentence
    assert CANARY not in str(problem) + problem.remedy


def test_a_secret_stands_in_its_own_variable_alone() -> None:
    found = read(
        anthropic_api_key=CANARY,
        hermes_name="{{ anthropic_api_key | upper }}",
        hermes_env={"A": ["x{{ anthropic_api_key }}"]},
        hermes_port="{{ {}[anthropic_api_key] }}",
        hermes_secrets={"A": "{{ anthropic_api_key }}"},
    )
    subjects = {problem.subject: problem.code for problem in found.problems}
    assert subjects == {
        "hermes_env": "secret-place",
        "hermes_name": "secret-place",
        "hermes_port": "undefined",
    }
    assert set(found.values) == {"anthropic_api_key", "hermes_secrets"}
    assert CANARY not in str(found.problems).lower()


def test_what_two_entries_of_hermes_environment_have_in_common_may_stand_in_both() -> None:
    address = "somebody@example.com"
    found = read(hermes_env={"EMAIL_FROM": address}, hermes_secrets={"EMAIL_USER": address})
    assert found.problems == []


ODD = [
    ({"hermes_port": 16**5000}, "measure"),
    ({"hermes_sleep_after": float("nan")}, "measure"),
    ({"hermes_env": {"A": "\ud800"}}, "half a character"),
    ({"hermes_secrets": {True: "abc"}}, "quotes"),
    ({"hermes_default_model": datetime.date(2026, 1, 1)}, "date"),
    ({"hermes_models": [b"abc"]}, "neither"),
    ({"hermes_name": "x" * 100_000}, "100000 characters"),
    ({"hermes_env": {"A": [[[[[[[["deep"]]]]]]]]}}, "is nested more than 8 deep"),
]


@pytest.mark.parametrize(("variables", "words"), ODD, ids=lambda value: str(list(value))[:50])
def test_what_nothing_can_be_made_of_is_told(variables: dict[str, Any], words: str) -> None:
    (problem,) = read(**variables).problems
    assert problem.subject == next(iter(variables))
    assert words in problem.sentence


def test_no_secret_is_an_argument_of_the_role() -> None:
    assert [name for name in SECRET_INPUTS if role_argument(name)] == []
    assert role_argument("hermes_egress") == "preflight_egress"
    assert KNOWN_VARIABLES < INPUTS

# SPDX-License-Identifier: Apache-2.0
"""What features bring is used in a turn: the model calls a tool of it, and what the tool found comes back."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from plays import Deployment


@pytest.fixture(scope="module")
def deployment(make_deployment: Callable[..., Deployment]) -> Deployment:
    made = make_deployment(
        "features",
        hermes_provider="rehearsal",
        hermes_host_tools=True,
        hermes_features=["search", "web"],
    )
    made.deploy()
    return made


def called(deployment: Deployment, tool: str, **arguments: str) -> str:
    """Return what a tool answered in a turn of its own."""
    answer = deployment.chat(f"call {tool} {json.dumps(arguments)}")
    assert answer.status == 200
    assert answer.said.startswith("The tool answered: "), answer.said
    return answer.said


def test_search_finds_by_ripgrep(deployment: Deployment) -> None:
    command = "mkdir -p there && echo a needle > there/hay && rg needle there"
    assert "a needle" in called(deployment, "terminal", command=command)
    assert "hay" in called(deployment, "search_files", pattern="needle", path="there")


def test_web_searches_without_a_key(deployment: Deployment) -> None:
    """No network is promised to a test: the client is there, and its own words come back."""
    said = called(deployment, "web_search", query="cats")
    assert "DuckDuckGo" in said or "web" in said
    assert "not installed" not in said
    assert "No web search provider" not in said

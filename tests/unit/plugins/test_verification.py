# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A deployment that lets strangers in does not pass its verification."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.action.verify_deployment import ActionModule
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import Answer


def verification(statuses: dict[str | None, int], **settings: Any) -> ActionModule:
    """Return the action before a Worker that answers each token with a status."""
    action = ActionModule.__new__(ActionModule)
    action.settings = Settings(name="alice", **settings)
    action.command = lambda playbook: f"make {playbook}"
    action.service = SimpleNamespace(stranger=lambda token: token)
    action.chats = SimpleNamespace(
        request=lambda token, _method, _path: Answer(statuses[token], {}, b"{}")
    )
    return action


def test_who_has_no_token_or_a_wrong_one_has_to_be_refused() -> None:
    verification({None: 401, "hw_wrong": 401})._refuses_strangers()


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        ({None: 200, "hw_wrong": 401}, "answers 200 to a request with no token, not 401"),
        ({None: 401, "hw_wrong": 200}, "answers 200 to a request with a wrong token, not 401"),
        ({None: 503, "hw_wrong": 401}, "answers 503"),
    ],
)
def test_a_worker_that_lets_them_in_is_not_safe(
    statuses: dict[str | None, int], words: str
) -> None:
    with pytest.raises(Card) as caught:
        verification(statuses)._refuses_strangers()
    (problem,) = caught.value.problems
    assert words in problem.sentence
    assert "not safe" in problem.remedy


def test_who_goes_without_a_token_is_asked_nothing() -> None:
    verification({}, allow_unauthenticated=True)._refuses_strangers()

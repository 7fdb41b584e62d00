# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A failure of ours is shown as its card, in one piece: other deployments go on and say so meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ansible_collections.hermes.workers.plugins.callback.cards import CallbackModule


class Screen:
    """Keeps each piece that was shown."""

    verbosity = 0

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, text: str, **_more: Any) -> None:
        self.shown.append(text)


def test_a_card_is_shown_in_one_piece() -> None:
    callback = CallbackModule()
    callback._display = Screen()
    host = SimpleNamespace(get_name=lambda: "alice")
    content = {"hermes_card": True, "msg": "alice: no.\nNothing was changed."}
    callback.v2_runner_on_failed(SimpleNamespace(_result=content, _host=host))
    assert callback._display.shown == ["\nalice: FAILED\n  alice: no.\n  Nothing was changed."]

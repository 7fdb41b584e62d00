# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A failure of ours is shown as its card, in one piece: other deployments go on and say so meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.playbook.task_include import TaskInclude
from ansible.plugins.callback.default import CallbackModule as Default
from ansible_collections.hermes.workers.plugins.callback import cards
from ansible_collections.hermes.workers.plugins.callback.cards import CallbackModule
from ansible_collections.hermes.workers.plugins.plugin_utils.display import screen


class Screen:
    """Keeps each piece that was shown."""

    verbosity = 0

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, text: str, **_more: Any) -> None:
        self.shown.append(text)

    def banner(self, text: str, **_more: Any) -> None:
        self.shown.append(f"== {text}")


@pytest.fixture
def callback(monkeypatch: pytest.MonkeyPatch) -> CallbackModule:
    """Ours, before a terminal of 80 columns; what it leaves to Ansible's own is noted."""
    made = CallbackModule()
    made._display = Screen()
    monkeypatch.setattr(screen, "WIDTH", 80)
    for name in (
        "v2_playbook_on_stats",
        "v2_playbook_on_play_start",
        "_print_task_banner",
        "v2_runner_on_ok",
        "v2_playbook_on_include",
    ):
        noted = f"Ansible's {name}"
        monkeypatch.setattr(
            Default, name, lambda _one, *_, noted=noted: made._display.display(noted)
        )
    return made


def test_headings_that_fit_are_ansibles_and_longer_ones_have_more_lines(
    callback: CallbackModule,
) -> None:
    for name in ("Deploy", "Deploy " * 20):
        callback.v2_playbook_on_play_start(SimpleNamespace(get_name=lambda name=name: name))
        task = SimpleNamespace(get_name=lambda name=name: f"role : {name}", name=name, _uuid="7")
        callback._print_task_banner(task)
    play, task, *long = callback._display.shown
    assert (play, task) == ("Ansible's v2_playbook_on_play_start", "Ansible's _print_task_banner")
    assert long[0].startswith("\nPLAY [Deploy") and long[1].startswith("\nTASK [Deploy")
    assert callback._last_task_banner == "7"
    assert max(map(len, "".join(long).splitlines())) <= 80
    callback._display.verbosity = 1
    callback.v2_playbook_on_play_start(SimpleNamespace(get_name=lambda: "Deploy " * 20))
    assert callback._display.shown[-1] == "Ansible's v2_playbook_on_play_start"


def test_the_recap_counts_what_there_is_and_says_how_long_it_took(callback: CallbackModule) -> None:
    nothing = dict.fromkeys(("ok", "changed", "failures", "unreachable", "rescued"), 0)
    counts = {"alice": nothing | {"ok": 3}, "bob": nothing | {"failures": 1, "rescued": 2}}
    stats = SimpleNamespace(processed=counts, summarize=counts.__getitem__)
    callback.v2_playbook_on_stats(stats)
    heading, alice, bob, _empty, took = callback._display.shown
    assert heading == "== PLAY RECAP" and took.startswith("Took ")
    assert alice.split(" : ")[1] == "ok=3  changed=0  failed=0"
    assert bob.split(" : ")[1] == "ok=0  changed=0  failed=1  rescued=2"
    callback._display.verbosity = 1
    callback.v2_playbook_on_stats(stats)
    assert callback._display.shown[-2] == "Ansible's v2_playbook_on_stats"


@pytest.mark.parametrize("verbosity", [0, 1])
def test_what_was_included_is_told_to_those_who_asked_for_details(
    callback: CallbackModule, verbosity: int
) -> None:
    callback._display.verbosity = verbosity
    callback.v2_playbook_on_include(None)
    callback.v2_runner_on_ok(SimpleNamespace(_task=TaskInclude()))
    wanted = ["Ansible's v2_playbook_on_include", "Ansible's v2_runner_on_ok"]
    assert callback._display.shown == wanted[: 2 * verbosity]
    callback.v2_runner_on_ok(SimpleNamespace(_task=None))
    assert callback._display.shown[-1] == "Ansible's v2_runner_on_ok"


def test_what_keeps_every_task_from_its_begin_is_told_once(
    callback: CallbackModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards.outside, "card_of_task", lambda _result: "Ansible: no.")
    result = SimpleNamespace(_result={}, _host=SimpleNamespace(get_name=lambda: "alice"))
    for _ in range(2):
        callback.v2_runner_on_failed(result)
    assert callback._display.shown == ["\nalice: FAILED\n  Ansible: no."]


def test_a_card_is_shown_in_one_piece() -> None:
    callback = CallbackModule()
    callback._display = Screen()
    host = SimpleNamespace(get_name=lambda: "alice")
    content = {"hermes_card": True, "msg": "alice: no.\nNothing was changed."}
    callback.v2_runner_on_failed(SimpleNamespace(_result=content, _host=host))
    assert callback._display.shown == ["\nalice: FAILED\n  alice: no.\n  Nothing was changed."]

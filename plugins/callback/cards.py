# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Standard output for people: this collection's failures are shown as their cards, everything else as usual."""

from __future__ import annotations

DOCUMENTATION = """
name: cards
type: stdout
short_description: Shows failures of this collection as error cards
version_added: 1.0.0
author: hermes.workers contributors (!UNKNOWN)
description:
  - Like P(ansible.builtin.default#callback), but a failure that carries an error card is shown as that card alone,
    without the task's source lines and without its JSON.
  - Lines fit the terminal (C(COLUMNS), or its width), the recap too. At the end stands how long it took.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - set as stdout_callback in the configuration
"""

import time
from typing import Any

from ansible import constants
from ansible.playbook.task_include import TaskInclude
from ansible.plugins.callback.default import CallbackModule as Default

from ..plugin_utils.display import outside, screen

COUNTS = (("ok", "ok"), ("changed", "changed"), ("failed", "failures"))
SELDOM = ("unreachable", "rescued")
ROOM_FOR_COUNTS = 30
"""Columns that the counts of a host take, with what is before them."""


class CallbackModule(Default):
    """ansible.builtin.default with error cards."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "hermes.workers.cards"

    def __init__(self) -> None:
        super().__init__()
        self._shown: set[str] = set()
        self._began = time.monotonic()
        # Ansible's own headings and warnings, which take 79 columns where there are fewer.
        self._display.columns = min(self._display.columns, screen.WIDTH - 1)
        outside.show_cards()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Count for each host what an 80-column terminal has room for, and say how long it took in all."""
        if self._display.verbosity:
            super().v2_playbook_on_stats(stats)
        else:
            self._display.banner("PLAY RECAP")
            for host in sorted(stats.processed):
                self._recap(host, stats.summarize(host))
            self._display.display("")
        took = screen.took(time.monotonic() - self._began)
        self._display.display(f"Took {took}.")

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Show the heading of a play, on more lines where it is longer than the terminal is wide."""
        heading = f"PLAY [{play.get_name().strip()}] ***"
        if self._display.verbosity or len(heading) <= screen.WIDTH:
            super().v2_playbook_on_play_start(play)
            return
        self._play = play
        screen.show(self._display, f"\n{heading}")

    def _print_task_banner(self, task: Any) -> None:
        """Show the heading of a task; one that is longer than the terminal is wide without its role, on more lines."""
        heading = f"TASK [{task.get_name()}] ***"
        if self._display.verbosity or len(heading) <= screen.WIDTH:
            super()._print_task_banner(task)
            return
        screen.show(self._display, f"\nTASK [{task.name}] ***")
        self._last_task_banner = task._uuid

    def _recap(self, host: str, counts: dict[str, int]) -> None:
        told = [f"{name}={counts[key]}" for name, key in COUNTS]
        told += [f"{name}={counts[name]}" for name in SELDOM if counts[name]]
        failed = counts["failures"] or counts["unreachable"]
        colour = constants.COLOR_ERROR if failed else constants.COLOR_OK
        column = min(26, max(0, screen.WIDTH - ROOM_FOR_COUNTS))
        self._display.display(f"{host:<{column}} : {'  '.join(told)}", color=colour)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Show the card when the result carries one, or when a task of ours failed before it could make one."""
        content = result._result
        card = content["msg"] if content.get("hermes_card") else outside.card_of_task(result)
        if not card or (self._display.verbosity >= 3 and not content.get("hermes_card")):
            super().v2_runner_on_failed(result, ignore_errors=ignore_errors)
            return
        lines = [f"  {line}" for line in card.splitlines()]
        text = "\n".join(["", f"{result._host.get_name()}: FAILED", *lines])
        # What kept a task from its begin keeps the ones after it as well.
        if content.get("hermes_card") or text not in self._shown:
            # In one piece: other hosts' progress is shown meanwhile.
            screen.show(self._display, text)
        self._shown.add(text)

    def v2_runner_on_ok(self, result: Any) -> None:
        """Say that tasks were included only to those who asked for details: their own headings follow."""
        if self._display.verbosity or not isinstance(result._task, TaskInclude):
            super().v2_runner_on_ok(result)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        """Say which tasks were included only to those who asked for details: it is one line for each host."""
        if self._display.verbosity:
            super().v2_playbook_on_include(included_file)

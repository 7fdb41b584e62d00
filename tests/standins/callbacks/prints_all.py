# SPDX-License-Identifier: Apache-2.0
"""A callback plugin that writes down all it is told: each task's arguments and attributes, and each result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: prints_all
type: notification
short_description: Writes down tasks and results
description: [For tests.]
"""


class CallbackModule(CallbackBase):
    """Appends to the file that PRINTS_ALL_TO names."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "prints_all"

    def _write(self, *told: Any) -> None:
        with Path(os.environ["PRINTS_ALL_TO"]).open("a", encoding="utf-8") as file:
            file.write("".join(f"{one!r}\n" for one in told))

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Print a play."""
        self._write(play.dump_attrs(), play.get_vars())

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Print a task and its variables."""
        self._write(task.args, task.dump_attrs(), task.get_vars())

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Print the arguments of a task."""
        self._write(task.args)

    def _write_result(self, result: Any, **_more: Any) -> None:
        # As it was rendered for the host, whatever the task's file says.
        self._write(result._task.args, result._task_fields, result._result)

    v2_runner_on_ok = v2_runner_on_failed = v2_runner_on_skipped = _write_result
    v2_runner_on_unreachable = v2_runner_item_on_ok = v2_runner_item_on_failed = _write_result

# SPDX-License-Identifier: Apache-2.0
"""Turns in which the model calls a tool, and what has to come back to it: the same wherever Hermes runs."""

from __future__ import annotations

from typing import Any

Turn = tuple[str, dict[str, Any], str]
"""A tool, its arguments, and words of its answer."""

_ME = "-c user.name=ada -c user.email=ada@localhost"

TOUCHING_NO_MACHINE: tuple[Turn, ...] = (
    ("todo", {"todos": [{"id": "1", "content": "feed Ada", "status": "pending"}]}, "feed Ada"),
    ("memory", {"action": "add", "target": "user", "content": "Likes tea."}, "Entry added."),
    ("skills_list", {}, "skills"),
    ("session_search", {"query": "quokkas"}, "quokkas"),
    ("cronjob", {"action": "list"}, "jobs"),
)
TOUCHING_THE_MACHINE: tuple[Turn, ...] = (
    ("execute_code", {"code": "print(6 * 7)"}, "42"),
    ("delegate_task", {"goal": "Say what a quokka is."}, "Say what a quokka is."),
    ("write_file", {"path": "greeting", "content": "Good morning."}, "bytes_written"),
    ("read_file", {"path": "greeting"}, "Good morning."),
)
BY_RIPGREP: tuple[Turn, ...] = (
    (
        "terminal",
        {"command": "mkdir -p there && echo a needle > there/hay && rg needle there"},
        "a needle",
    ),
    ("search_files", {"pattern": "needle", "path": "there"}, "hay"),
)
BY_GIT: tuple[Turn, ...] = (
    (
        "terminal",
        {
            "command": f"git init -q there-is && git -C there-is {_ME} commit -q --allow-empty -m 'the first one'"
        },
        "",
    ),
    (
        "terminal",
        {"command": "git clone -q there-is here && git -C here log --format=%s"},
        "the first one",
    ),
)

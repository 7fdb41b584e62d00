# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tracks what differs, so that diff mode and check mode tell the same story as the change itself."""

from __future__ import annotations

from typing import Any


class Differences:
    """What is, beside what is wanted. False when nothing differs."""

    def __init__(self) -> None:
        self._before: dict[str, Any] = {}
        self._after: dict[str, Any] = {}

    def add(self, name: str, before: Any, after: Any) -> None:
        """Note a value; equal ones do not count. None is what is not there."""
        if before != after:
            self._before[name] = before
            self._after[name] = after

    def __bool__(self) -> bool:
        return bool(self._before)

    def as_diff(self) -> dict[str, Any]:
        """Return what Ansible shows in diff mode."""
        return {"before": _there(self._before), "after": _there(self._after)}


def _there(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}

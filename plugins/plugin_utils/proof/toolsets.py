# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a running Hermes offers its model no tools that it is not to have: it is asked itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...module_utils.cards import Problem
from ...module_utils.settings.features import FEATURES
from ...module_utils.settings.settings import Settings

TOOLSETS = "/v1/toolsets"
HOST_TOOLSETS = (
    *("terminal", "file", "code_execution", "browser", "computer_use"),
    *("delegation", "vision"),
)
"""Those that reach the machine Hermes runs on."""


def refused(settings: Settings, pinned: Mapping[str, Any]) -> dict[str, str]:
    """Return what Hermes is not to offer, by the variable that says so. pinned: of hermes_config."""
    agent = pinned.get("agent")
    listed = agent.get("disabled_toolsets") if isinstance(agent, Mapping) else None
    said = [one for one in listed or () if isinstance(one, str)]
    of_host = () if settings.has_host_tools else HOST_TOOLSETS
    return dict.fromkeys(said, "hermes_config.pinned.agent.disabled_toolsets") | dict.fromkeys(
        of_host, "hermes_host_tools"
    )


def offered(listed: list[Mapping[str, Any]]) -> set[str]:
    """Return the names of those that are offered. listed: by Hermes."""
    return {one["name"] for one in listed if one["enabled"]}


def not_refused(refused: Mapping[str, str], offered: set[str], restart: str) -> list[Problem]:
    """Return what is offered and not to be. restart: a command that starts Hermes anew."""
    return [
        Problem(
            refused[name],
            f"Hermes offers its model the tools of {name} all the same.",
            f"run `{restart}`, for Hermes reads this when it starts, and run the deploy again.",
            "agent-not-in-force",
        )
        for name in sorted(refused.keys() & offered)
    ]


def rows(
    settings: Settings, refused: Mapping[str, str], offered: set[str]
) -> list[tuple[str, str]]:
    """Return the row of a card on what was asked for by a feature, and Hermes or its owner turned off."""
    wanted = {one.toolset for one in FEATURES if one.name in settings.features and one.toolset}
    off = sorted(wanted - refused.keys() - offered)
    return (
        [("kept", f"tools of {', '.join(off)}: turned off by Hermes or its owner")] if off else []
    )

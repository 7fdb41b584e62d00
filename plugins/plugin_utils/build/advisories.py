# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known to be wrong with a Hermes: a version with an advisory is deployed by who names the advisory only."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version
except ImportError:  # never: ansible-core needs it, and only its own check of imports goes without
    SpecifierSet = Version = None  # type: ignore[assignment,misc]

from ...module_utils.cards import Problem

FILE = "advisories.json"
"""In the collection's folder `container`: looked up by hand, each with its source."""


@dataclass(frozen=True)
class Advisory:
    """One thing that somebody published about some versions."""

    id: str
    aliases: list[str]
    published: str
    affected: str
    """The versions, as Python's packages specify them."""
    what: str
    source: str
    pinned_because: str = ""
    """Why the pinned version is pinned all the same; without it that one is refused, too."""

    def holds_for(self, version: str) -> bool:
        """Tell whether a version is among those affected; a build of one's own counts as what it is built upon."""
        return SpecifierSet(self.affected, prereleases=True).contains(Version(version).public)

    def is_named(self, ids: Collection[str]) -> bool:
        """Tell whether it is among some ids, by any of its own."""
        return not {self.id.upper(), *map(str.upper, self.aliases)}.isdisjoint(map(str.upper, ids))


def known(container: Path) -> list[Advisory]:
    """Return all that are known."""
    content: dict[str, Any] = json.loads((container / FILE).read_text(encoding="utf-8"))
    return [Advisory(**entry) for entry in content["advisories"]]


def problems(
    container: Path, version: str, accepted: Collection[str], *, pinned: bool
) -> list[Problem]:
    """Return a problem for each advisory of a version that nobody accepted.

    pinned: whether the version is installed as this release pins it.
    """
    found = [
        one
        for one in known(container)
        if one.holds_for(version)
        and not (pinned and one.pinned_because)
        and not one.is_named(accepted)
    ]
    ids = ", ".join([*accepted, *(one.id for one in found)])
    remedy = f"name a version without, or accept what is known: hermes_accept_advisories: [{ids}]."
    return [
        Problem(
            "hermes_version",
            f"{version} has {one.id} ({one.published}): {one.what} ({one.source}).",
            remedy,
            "advisory",
        )
        for one in found
    ]

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Hermes that the collection does not pin lacks of what is assumed of it: container/sandbox/in_hermes."""

from __future__ import annotations

import json
from typing import Any

from ...module_utils.cards import Card
from .installer import Progress, telling_lines
from .releases import Release

SUITE = "sandbox/in_hermes/conformance.py"
"""Below an image's own folder; the interpreter of Hermes runs it."""


def judge(release: Release, printed: str, progress: Progress) -> None:
    """Tell by name what a Hermes lacks, and keep it for the plans to come. Raises a Card for what is needed.

    printed: by the suite, run in the image that was just made.
    """
    label = f"Hermes {release.version}"
    try:
        found: list[dict[str, Any]] = json.loads(printed.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise Card.of(
            label,
            "does not load in the environment that was made of its packages.",
            "name another version, or leave it out for the pinned one.",
            "conformance",
            detail=telling_lines(printed),
        ) from None
    needed = [one for one in found if one["needed"]]
    if needed:
        lacks = "; ".join(f"this Hermes has no {one['name']}: {one['lost']}" for one in needed)
        raise Card.of(
            label,
            f"{lacks}.",
            "name another version, or leave it out for the pinned one; a later release of the collection may know it.",
            "conformance",
        )
    release.keep_lacks([f"{one['name']}: {one['lost']}" for one in found])
    for line in notes(release):
        progress(line)


def notes(release: Release | None) -> list[str]:
    """Return a line for each thing that a Hermes was found to lack, and that it does without."""
    if release is None:
        return []
    return [f"Hermes {release.version} has no {lack}." for lack in release.lacks()]

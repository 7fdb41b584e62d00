# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packages a Hermes is to have by its declaration, in which versions."""

from __future__ import annotations

import json
import re

from ...module_utils.settings.features import FEATURES
from ...module_utils.settings.settings import Settings
from . import build_context, debian
from .releases import further
from .sources import Sources

# What is for every machine; the rest of a lock is for some.
LOCKED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)(?: \\)?$", re.MULTILINE)


def packages(settings: Settings, sources: Sources) -> dict[str, dict[str, str]]:
    """Return the versions of further packages and of those of features, by name, by the variable that brings them."""
    locked = {_name(name): version for name, version in LOCKED.findall(sources.lock_text)}
    parts = json.loads((sources.container / build_context.PARTS).read_text(encoding="utf-8"))
    names = {f"hermes_features.{one}": parts[one] for one in settings.features}
    besides = further(settings)
    names["hermes_packages.python"] = [re.split(r"[=\[]", one)[0] for one in besides["python"]]
    found = {
        variable: {_name(one): locked[_name(one)] for one in several if _name(one) in locked}
        for variable, several in names.items()
    }
    found["hermes_packages.debian"] = dict(one.split("=", 1) for one in besides["debian"])
    if settings.engine != "process":
        found |= _programs(settings, sources)
    return {variable: several for variable, several in found.items() if several}


def _programs(settings: Settings, sources: Sources) -> dict[str, dict[str, str]]:
    """Return the versions of what the features bring from Debian, but for what it needs; it is in images alone."""
    locked = debian.read_lock(sources.container)["packages"]
    return {
        f"hermes_features.{one.name}.debian": {name: locked[name]["version"] for name in one.debian}
        for one in FEATURES
        if one.name in settings.features
    }


def _name(name: str) -> str:
    """Return a name as a lock spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a running Hermes has the packages that were declared, in their versions: it is asked itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

try:
    from packaging.version import InvalidVersion, Version
except ImportError:  # never: ansible-core needs it, and only its own check of imports goes without
    InvalidVersion = Version = None  # type: ignore[assignment,misc]

from ...module_utils.cards import Problem
from ...module_utils.settings.features import FEATURES

SHOWN = 5
"""How many of a package's files a card names."""

Declared = dict[str, dict[str, str]]
"""The versions of packages by their names, by the variable that brings them."""


def missing(declared: Declared, running: dict[str, Any] | None, remedy: str) -> list[Problem]:
    """Return what is declared and not there in its version. running: what Hermes has; remedy: for what is otherwise."""
    if not declared:
        return []
    if running is None:
        return [_problem("hermes", "does not tell what it has of what is declared.", remedy)]
    has = running.get("packages")
    if has is None:
        # A Hermes that cannot be asked: the plan said so when its image was made.
        return []
    problems = []
    for label, several in declared.items():
        for name, version in several.items():
            subject = label
            if label.endswith(".debian"):
                of_feature = label.startswith("hermes_features.")
                subject = label.removesuffix(".debian") if of_feature else label
                # A feature's program may be one that the base has already; a package is what was asked for.
                flawed = "gone" if of_feature else "other"
                flaw = _flaw_of_debian(has["debian"].get(name), version, flawed)
            else:
                flaw = _flaw(has["python"].get(name), version)
            if flaw:
                problems.append(_problem(subject, f"{name} {flaw}.", remedy))
    return problems + _parts(declared, has, remedy)


def _parts(declared: Declared, has: dict[str, Any], remedy: str) -> list[Problem]:
    """Return what is gone of features' packages whose notes are still there."""
    problems = []
    for feature in FEATURES:
        label = f"hermes_features.{feature.name}"
        if not {label, f"{label}.debian"} & {*declared}:
            continue
        # A Hermes of an earlier release tells of neither.
        modules, commands = has.get("modules"), has.get("commands")
        gone = [
            *(f"its module {one}" for one in feature.modules if one not in (modules or [one])),
            *(f"its program {one}" for one in feature.commands if one not in (commands or [one])),
        ]
        problems += [_problem(label, f"{one} is not there.", remedy) for one in gone]
    return problems


def _flaw(there: str | None, version: str) -> str:
    if there is None:
        return f"{version} is not there"
    return "" if _equal(there, version) else f"is {there} in the running Hermes, not {version}"


def _flaw_of_debian(there: dict[str, Any] | None, version: str, flawed: str) -> str:
    """Say what is wrong with a package. flawed: which of its files count, those that are "other" or "gone"."""
    if there is None:
        return f"{version} is not there"
    if there["version"] != version:
        return f"is {there['version']} in the sandbox, not {version}"
    # A Worker of an earlier release tells of no files that are gone.
    other = [f"/{path}" for path in there.get(flawed, [])]
    more = [f"{len(other) - SHOWN} more"] if len(other) > SHOWN else []
    named = ", ".join([*other[:SHOWN], *more])
    return f"{version} is there, but not with its own {named}" if other else ""


def _equal(one: str, other: str) -> bool:
    """Tell whether two spell the same version: a lock may spell it otherwise than the package."""
    try:
        return bool(Version(one) == Version(other))
    except InvalidVersion:
        return one == other


def remedy_on(engine: str, image: Path, restart: str, sleep: str, deploy: str) -> str:
    """Return what to do about packages that are otherwise.

    image: what Hermes runs from where it is a process of this machine; the rest: commands.
    """
    if engine == "process":
        return (
            f"somebody changed {image}: run `{sleep}`, remove that folder,"
            f" then run `{deploy}`, which installs it anew."
        )
    return (
        f"a file that hermes_base_image has itself stays; else run `{restart}`:"
        " a new sandbox has what its image has."
    )


def _problem(subject: str, sentence: str, remedy: str) -> Problem:
    return Problem(subject, sentence, remedy, "agent-not-in-force")

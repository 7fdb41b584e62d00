# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an inventory says: each variable is read by itself, from memory, and one that cannot be read is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from typing import Any

from ansible.errors import AnsibleError, AnsibleUndefinedVariable, AnsibleValueOmittedError
from ansible_collections.hermes.workers.plugins.module_utils.errors import Problem
from ansible_collections.hermes.workers.plugins.module_utils.settings import (
    ENVIRONMENT,
    SECRET_INPUTS,
    role_argument,
)

UNDECRYPTABLE = "undecryptable variable"
"""How Ansible calls a value whose vault it has no password for."""


@dataclass
class Inputs:
    """The variables that are set, by their public names.

    sources: where each was set; problems: one for each that cannot be read.
    """

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read(
    names: Iterable[str],
    present: Container[str],
    value_of: Callable[[str], Any],
    extra: Container[str] = (),
) -> Inputs:
    """Read variables. What is not set is left out; the environment is asked only for what nobody mentions.

    present: the names that are set; value_of: renders one of them, or raises AnsibleError; extra: those of `-e`.
    """
    found = Inputs()
    for name in sorted(names):
        argument = role_argument(name)
        chosen = argument if argument and argument in present else name
        if chosen not in present:
            value = os.environ.get(ENVIRONMENT.get(name, ""))
            if value:
                found.values[name], found.sources[name] = value, "environment"
            continue
        try:
            found.values[name] = value_of(chosen)
        except AnsibleValueOmittedError:
            continue  # `omit`: as if it were not set
        except AnsibleError as error:
            found.problems.append(_unreadable(chosen, error, is_secret=name in SECRET_INPUTS))
            continue
        found.sources[name] = _source(chosen, name, extra)
    return found


def _source(chosen: str, name: str, extra: Container[str]) -> str:
    if chosen in extra:
        return "-e"
    return "inventory" if chosen == name else "role argument"


def _unreadable(name: str, error: AnsibleError, *, is_secret: bool) -> Problem:
    """Return the problem of a variable that is set, but has no value."""
    reason = str(error).splitlines()[0].rstrip(".")
    if isinstance(error, AnsibleUndefinedVariable):
        remedy = f"define what {name} refers to; or remove {name}, and its default is taken."
    elif UNDECRYPTABLE in reason:
        reason = "it is encrypted, and no password of this play opens it"
        remedy = "name the vault's password: --vault-password-file, --ask-vault-pass, or vault_identity_list."
    else:
        remedy = f"mend the expression in {name}, or what it reads."
        # What a plugin says further may repeat what it was given.
        reason = reason.split(": ")[0] if is_secret else reason
    return Problem(name, f"cannot be read: {reason}.", remedy, "undefined")

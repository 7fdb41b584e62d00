# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an inventory says: each variable is read by itself, from memory, and one that cannot be read is told.

What comes out is made of texts, numbers, truths, lists and mappings alone, and may be shown: a secret is only in the
variables of secrets.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible.errors import AnsibleError, AnsibleUndefinedVariable, AnsibleValueOmittedError

from ...module_utils.cards import Problem
from ...module_utils.settings.catalogue import ENVIRONMENT, SECRET_INPUTS, role_argument

UNDECRYPTABLE = "undecryptable variable"
"""How Ansible calls a value whose vault it has no password for."""
LONGEST_TEXT = 65_536
"""More than a header, an environment or Cloudflare takes of one value."""
LARGEST_NUMBER = 2**63
DEEPEST = 8
HIDDEN_LENGTH = 8
"""A shorter secret may stand in another value by chance."""
REASON_LENGTH = 160
# How Ansible's own types are called in the words of Python.
INTERNAL = re.compile(r"(ansible[\w.]*\.)?_Ansible(Tagged|LazyTemplate)")


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
    wanted = set(names)
    # Secrets are read in any case: nothing else may hold one.
    everything = Inputs()
    problems = {
        name: problem
        for name in sorted(wanted | SECRET_INPUTS)
        if (problem := _read_one(everything, name, present, value_of, extra))
    }
    values = everything.values
    secrets = list(_secrets(values))
    for name in sorted(values.keys() - SECRET_INPUTS):
        held = next((of for of, text in secrets if _holds(name, values[name], of, text)), "")
        if held:
            problems[name] = _misplaced(_chosen(name, present), held)
    good = wanted & values.keys() - problems.keys()
    return Inputs(
        {name: values[name] for name in sorted(good)},
        {name: everything.sources[name] for name in sorted(good)},
        [_without(secrets, problems[name]) for name in sorted(wanted & problems.keys())],
    )


def _read_one(
    found: Inputs,
    name: str,
    present: Container[str],
    value_of: Callable[[str], Any],
    extra: Container[str],
) -> Problem | None:
    """Read one variable, where it is set; return why that cannot be."""
    chosen = _chosen(name, present)
    if chosen in present:
        source = _source(chosen, name, extra)
        try:
            value = value_of(chosen)
            flaw = oddity(value)
        except AnsibleValueOmittedError:
            return None  # `omit`: as if it were not set
        except AnsibleError as error:
            return _unreadable(chosen, error, is_secret=name in SECRET_INPUTS)
    else:
        chosen, source = ENVIRONMENT.get(name, ""), "environment"
        value = os.environ.get(chosen)
        if not value:
            return None
        flaw = oddity(value)
    if flaw:
        return Problem(chosen, f"{flaw}.", f"mend the value of {chosen}.", "inputs")
    found.values[name], found.sources[name] = value, source
    return None


def oddity(value: Any, depth: int = 0) -> str:
    """Return what nothing can be made of in a value, at any depth; an empty text when all is well."""
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, str):
        return _text_flaw(value)
    if isinstance(value, (int, float)):
        return "" if abs(value) < LARGEST_NUMBER else "is a number beyond all measure"
    if depth == DEEPEST:
        return f"is nested more than {DEEPEST} deep"
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            return "has a name that is no text to YAML: write it in quotes"
        parts: Iterable[Any] = [*value, *value.values()]
    elif isinstance(value, (list, tuple)):
        parts = value
    elif isinstance(value, datetime.date):
        return "is a date to YAML: write it in quotes"
    else:
        return "is neither a text, a number, true or false, a list nor a mapping"
    return next((flaw for part in parts if (flaw := oddity(part, depth + 1))), "")


def _text_flaw(text: str) -> str:
    if len(text) > LONGEST_TEXT:
        return f"is a text of {len(text)} characters, of which {LONGEST_TEXT} are the most"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "has half a character, which no file can hold"
    return ""


def _secrets(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Return the variables of secrets with each of their texts, as they are compared."""
    for name in sorted(SECRET_INPUTS & values.keys()):
        value = values[name]
        for text in _texts(list(value.values()) if isinstance(value, Mapping) else value):
            if len(text) >= HIDDEN_LENGTH:
                yield name, text


def _texts(value: Any) -> Iterator[str]:
    """Return all texts in a value, so that the same letters are the same."""
    if isinstance(value, str):
        yield value.strip().casefold()
    elif isinstance(value, Mapping):
        yield from _texts([*value, *value.values()])
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)


def _holds(name: str, value: Any, of: str, secret: str) -> bool:
    """Tell whether a variable holds the secret of another one.

    What two entries of Hermes' environment have in common, an address of mail say, need not be secret.
    """
    if (name, of) == ("hermes_env", "hermes_secrets"):
        return False
    return any(secret in text for text in _texts(value))


def _misplaced(name: str, of: str) -> Problem:
    return Problem(
        name,
        f"holds the secret of {of}, and would be shown and written to files (the value is not shown).",
        f"take it out of {name}; a further secret for Hermes' environment belongs into hermes_secrets.",
        "secret-place",
    )


def _without(secrets: Iterable[tuple[str, str]], problem: Problem) -> Problem:
    """Return the problem without words that hold a secret: an expression's failure may quote what it was given."""
    sentence = problem.sentence.casefold()
    if not any(text in sentence for _of, text in secrets):
        return problem
    return replace(problem, sentence="cannot be read: its expression fails, about a secret.")


def _chosen(name: str, present: Container[str]) -> str:
    """Return the variable that is read: the role's argument, where there is one, stands in for the inventory's."""
    argument = role_argument(name)
    return argument if argument and argument in present else name


def _source(chosen: str, name: str, extra: Container[str]) -> str:
    if chosen in extra:
        return "-e"
    return "inventory" if chosen == name else "role argument"


def _unreadable(name: str, error: AnsibleError, *, is_secret: bool) -> Problem:
    """Return the problem of a variable that is set, but has no value."""
    reason = INTERNAL.sub("", str(error).strip().partition("\n")[0]).rstrip(".")
    reason = "".join(filter(str.isprintable, reason))[:REASON_LENGTH]
    if isinstance(error, AnsibleUndefinedVariable):
        remedy = f"define what {name} refers to; or remove {name}, and its default is taken."
    elif UNDECRYPTABLE in reason:
        reason = "it is encrypted, and no password of this play opens it"
        remedy = "name the vault's password: --vault-password-file, --ask-vault-pass, or vault_identity_list."
    else:
        remedy = f"mend the expression in {name}, or what it reads."
        # What a plugin says further may repeat what it was given.
        reason = reason.partition(": ")[0] if is_secret else reason
    return Problem(name, f"cannot be read: {reason}.", remedy, "undefined")

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom a play of this collection is for; one that would be for nobody fails, where Ansible itself ends in silence."""

from __future__ import annotations

DOCUMENTATION = """
name: hosts
author: hermes.workers contributors (!UNKNOWN)
version_added: 1.0.0
short_description: The hosts that a play is for, or a failure when there are none
description:
  - Returns the pattern of all hosts of the inventory.
  - Fails when the inventory has no host, and when a source of it does not exist or is no YAML. Ansible warns of these,
    and ends a play for nobody with success.
  - Fails as well when the play would do nothing, or only a part.
  - A check of the syntax alone needs no inventory.
"""

EXAMPLES = """
- name: Tell what the deployments do now
  hosts: "{{ lookup('hermes.workers.hosts') }}"
  gather_facts: false
  tasks: []
"""

RETURN = """
_raw:
  description: A pattern for the keyword C(hosts) of a play.
  type: list
  elements: str
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.splitter import parse_kv
from ansible.plugins.lookup import LookupBase

from ..module_utils.cards import Card, Problem
from ..plugin_utils.display import outside

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = (ROOT / "inventories" / "local", ROOT / "docs" / "sample" / "hosts.yml")
"""An inventory for a first try: that of a checkout, and the one that comes along in an installation."""
READ = (".yml", ".yaml", ".json")
WHOLE = "our playbooks have no tags, and are done whole: what is so already is left as it is."


class LookupModule(LookupBase):
    """The lookup `hermes.workers.hosts`."""

    def run(
        self, terms: list[str], variables: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[str]:
        """Return the pattern of all hosts. Raises AnsibleError with a card."""
        if context.CLIARGS.get("syntax"):
            return [
                "all"
            ]  # whoever imports or lints a collection has no inventory, and runs nothing
        variables = variables or {}
        sources = variables.get("ansible_inventory_sources") or []
        problems = problems_of(sources, variables.get("groups") or {}, self._loader)
        problems += _extra() + _parts()
        if problems:
            card = Card(problems)
            raise AnsibleError(card.render()) from card
        return ["all"]


def problems_of(
    sources: Iterable[str], groups: Mapping[str, Any], loader: DataLoader
) -> list[Problem]:
    """Return what stands against a play for all hosts. sources: paths, or hosts with commas between them."""
    sources = list(sources)
    sample = next(filter(Path.exists, SAMPLES))
    remedy = (
        "name an inventory with a host for each deployment (`-i`, with make `INVENTORY=`);"
        f" {shown(str(sample))} is one."
    )
    missing = [source for source in sources if "," not in source and not os.path.exists(source)]
    if missing:
        return [
            Problem(shown(source), "there is no such inventory.", remedy, "hosts")
            for source in missing
        ]
    unreadable = [problem for source in sources for problem in _unreadable(source, loader)]
    if groups.get("all"):
        # Below a folder there may be what is no inventory: the agent's files, say.
        unparsed = [one for one in outside.unparsed if one in map(os.path.abspath, sources)]
    else:
        unparsed = list(outside.unparsed)
    unreadable += [
        Problem(
            shown(source),
            f"cannot be read: {outside.unparsed[source]}.",
            "mend it, or name another inventory.",
            "inventory",
        )
        for source in unparsed
        if not unreadable
    ]
    if groups.get("all") or unreadable:
        return unreadable
    names = ", ".join(map(shown, sources))
    return [Problem(names or "the inventory", "names no host.", remedy, "hosts")]


def shown(source: str) -> str:
    """Return a source the way a person would type it."""
    relative = source if "," in source else os.path.relpath(source)
    return source if relative.startswith("..") else relative


def _unreadable(source: str, loader: DataLoader) -> Iterator[Problem]:
    """Yield the problems of files that are no YAML: Ansible tries other formats on them, then goes on without."""
    path = Path(source)
    within = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in filter(Path.is_file, within):
        reason = _no_program(file)
        if reason:
            remedy = "mend its first line, or install what that names."
            yield Problem(shown(str(file)), f"cannot be run: {reason}.", remedy, "inventory")
        elif file.suffix in READ:
            try:
                loader.load_from_file(str(file))
            except AnsibleError as error:
                yield from outside.card_of(error).problems
        elif file == path and not _is_text(file):
            remedy = "save it as UTF-8, or name another inventory."
            sentence = f"cannot be read: {outside.NO_TEXT}."
            yield Problem(shown(source), sentence, remedy, "inventory")


def _no_program(file: Path) -> str:
    """Return why a program that tells an inventory cannot be started; empty where it can, and for what is none.

    Ansible reads such a file as an inventory itself, and finds no host in it, or its words.
    """
    if not outside.is_program(file):
        return ""
    with file.open("rb") as opened:
        first = opened.readline(300)
    if first.endswith(b"\r\n"):
        return "its lines end as Windows has them"
    words = os.fsdecode(first[2:]).split()
    if words and not shutil.which(words[0]):
        return f"there is no {words[0]}"
    named = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    if words and Path(words[0]).name == "env" and named and not shutil.which(named[0]):
        return f"there is no {named[0]} on the PATH"
    return ""


def _is_text(file: Path) -> bool:
    try:
        file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _extra() -> list[Problem]:
    """Return the problem of words after `-e` that set nothing, and that Ansible passes over; they may be secret."""
    texts = [str(text) for text in context.CLIARGS.get("extra_vars") or () if text]
    plain = [text for text in texts if text[0] not in "@[{"]
    names = {name for text in plain for name in parse_kv(text)}
    if "_raw_params" in names:
        return [Problem("-e", "a word of it has no value.", outside.EXTRA, "inputs")]
    if not all(map(str.isidentifier, names)):
        sentence = "a word before = is no name of a variable."
        return [Problem("-e", sentence, f"{outside.EXTRA[:-1]}; quotes are straight.", "inputs")]
    return []


def _parts() -> list[Problem]:
    """Return the problems of options that leave tasks out; in a playbook of somebody's own they are theirs."""
    given = context.CLIARGS
    if not all(map(_is_ours, given.get("args") or ("",))):
        return []
    tags, skipped = set(given.get("tags") or ()), set(given.get("skip_tags") or ())
    problems = []
    if tags and not tags & {"all", "untagged"}:
        problems.append(("--tags", f"{', '.join(sorted(tags))} would leave every task out."))
    if skipped & {"all", "untagged"}:
        problems.append(
            ("--skip-tags", f"{', '.join(sorted(skipped))} would leave every task out.")
        )
    if given.get("start_at_task"):
        problems.append(("--start-at-task", "would leave out what checks and plans the rest."))
    if given.get("step"):
        problems.append(("--step", "would leave out what is not answered with yes."))
    return [
        Problem(option, sentence, f"leave {option} out; {WHOLE}", "parts")
        for option, sentence in problems
    ]


def _is_ours(playbook: str) -> bool:
    path = Path(playbook)
    return playbook.startswith("hermes.workers.") or path.resolve().parent == ROOT / "playbooks"

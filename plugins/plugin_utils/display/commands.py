# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands that cards print: they work as printed, where they are printed, on the deployment that is meant."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible import context
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.splitter import parse_kv
from ansible.utils.vars import load_extra_vars

from ...module_utils.cards import Problem
from ...module_utils.settings.catalogue import INPUTS, OLD_NAMES, SECRET_INPUTS

VARIABLES = "variables"
"""Name of the note with what `-e` said when a deployment was last changed."""
MAKE_INVENTORY = "inventories/local"
"""The inventory that the Makefile's targets take when none is named."""
MAKE_VARIABLES = {"hermes_action": "ACTION", "hermes_backup": "BACKUP", "hermes_confirm": "CONFIRM"}
"""Variable of a single run -> the Makefile's own name for it."""
OF_DESTROY = {"hermes_forget": "FORGET"}
"""The same, for what only one of the targets has a name for."""
TYPED = MAKE_VARIABLES | {
    **OF_DESTROY,
    "hermes_log_level": "LEVEL",
    "hermes_log_raw": "RAW",
    "hermes_log_since": "SINCE",
    "hermes_keys": "KEYS",
    "hermes_log_lines": "LINES",
    "hermes_pair": "CODE",
    "hermes_unpair": "REMOVE",
}
"""The same, with those that no command that we print has by that name."""
MAKE_PROGRAM = "play.py"
"""What the Makefile starts plays with."""
PLACE = frozenset(("hermes_name", "hermes_state_dir"))
"""What finds a deployment that is there."""
WHERE = PLACE | {"hermes_platform", "hermes_account_id", "cloudflare_api_base_url"}
"""What takes it away, too."""
OF_A_RUN = frozenset(
    (
        "hermes_action",
        "hermes_backup",
        "hermes_backup_dir",
        "hermes_confirm",
        "hermes_forget",
        "hermes_keys",
        "hermes_log_level",
        "hermes_log_lines",
        "hermes_log_raw",
        "hermes_log_since",
        "hermes_max_fail_percentage",
        "hermes_pair",
        "hermes_serial",
        "hermes_unpair",
        "hermes_verify",
    )
)
"""What says how one play goes, not what a deployment is."""
SETTINGS = INPUTS - SECRET_INPUTS - OF_A_RUN
"""What makes a deployment, and may be shown and noted."""
NEEDED = {"deploy": SETTINGS, "verify": SETTINGS, "rotate_keys": SETTINGS, "destroy": WHERE}
"""Playbook -> the variables that it has to be given again; all others need the place only."""
PLAIN = re.compile(r"[\w@%+:,./-]+", re.ASCII)
"""Text that neither a shell, nor make, nor Ansible's reading of name=value changes."""


@dataclass(frozen=True)
class Start:
    """How the play that runs now was started, as far as the next one has to be started the same way.

    program: what runs playbooks; playbook: as it was named; sources: inventories; extra: variables of `-e`;
    files: those that `-e` names; passwords: options for Ansible Vault.
    """

    program: str
    playbook: str
    sources: list[str]
    extra: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    passwords: list[str] = field(default_factory=list)

    @classmethod
    def now(cls, sources: Iterable[str], loader: DataLoader) -> Start:
        """Read what this process's command line says. sources: the inventories of the play."""
        given = context.CLIARGS
        texts = [str(text) for text in given.get("extra_vars") or () if text]
        extra: dict[str, Any] = {}
        for text in texts:
            if not text.startswith("@"):
                extra |= loader.load(text) if text[0] in "[{" else parse_kv(text)
        passwords = [
            word
            for option, key in (
                ("--vault-password-file", "vault_password_files"),
                ("--vault-id", "vault_ids"),
            )
            for value in given.get(key) or ()
            for word in (option, shown(str(value)))
        ]
        if given.get("ask_vault_pass"):
            passwords.append("--ask-vault-pass")
        return cls(
            program=_program(),
            playbook=str((given.get("args") or ("",))[0]),
            sources=[shown(str(source)) for source in sources],
            extra=extra,
            files=[text for text in texts if text.startswith("@")],
            passwords=passwords,
        )


def _program() -> str:
    """Return the command that runs playbooks: its name alone where the shell finds the same one by that."""
    found, own = shutil.which("ansible-playbook"), sys.argv[0]
    if Path(own).name != "ansible-playbook":
        return "ansible-playbook" if found else f"{shlex.quote(sys.executable)} -m ansible playbook"
    is_found = found is not None and os.path.realpath(found) == os.path.realpath(own)
    return "ansible-playbook" if is_found else shlex.quote(own)


def shown(path: str) -> str:
    """Return a path the way a person would type it; a list of hosts, or a name that is no path, as it is."""
    if not os.path.isabs(path):
        return path
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def as_typed(problem: Problem, given: Container[str]) -> Problem:
    """Return the problem of a variable by the name that was typed for it: an old one, or one of the Makefile's own.

    given: the variables of `-e`.
    """
    old = OLD_NAMES.get(problem.subject)
    if old is not None and old in given and problem.subject not in given:
        remedy = problem.remedy.replace(problem.subject, old)
        return replace(problem, subject=old, remedy=remedy)
    typed = TYPED.get(problem.subject)
    if typed is None or Path(sys.argv[0]).name != MAKE_PROGRAM:
        return problem
    if typed == "FORGET" and typed not in os.environ:
        return problem  # make hands on what was typed; `deploy` has no such word
    remedy = re.sub(rf"(?:-e )?\b{problem.subject}\b(?=[= ])", typed, problem.remedy)
    return replace(problem, subject=typed, remedy=remedy)


def notable(loader: DataLoader) -> dict[str, Any]:
    """Return the variables of `-e` that made a deployment: no secret, and nothing that is encrypted."""
    given = load_extra_vars(loader)
    return {name: given[name] for name in sorted(SETTINGS & given.keys()) if _is_plain(given[name])}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float))


class Commands:
    """Commands for one deployment."""

    def __init__(
        self, start: Start, root: Path, limit: str = "", noted: Mapping[str, Any] | None = None
    ) -> None:
        """root: of this collection; limit: a host, where the inventory has others; noted: variables of its deploy."""
        self.start = start
        self.root = root
        self.limit = limit
        self.noted = noted or {}

    def of(self, playbook: str, **variables: str) -> str:
        """Return what a person types to run a playbook of this collection. variables: of that run."""
        words = [*self._limit(), *self.start.passwords, *self._extra(playbook)]
        if self.in_checkout:
            return self._make(playbook, variables, words)
        words = [
            *words,
            *(word for name in variables for word in extra_words(name, variables[name])),
        ]
        inventories = [word for source in self.start.sources for word in ("-i", source)]
        named = self._playbook(playbook)
        return f"{self.start.program} {shlex.join([named, *inventories, *words])}"

    @property
    def in_checkout(self) -> bool:
        """Whether the play was started where `make` works."""
        return Path.cwd() == self.root

    def _make(self, playbook: str, variables: Mapping[str, str], words: list[str]) -> str:
        first, *further = self.start.sources or [MAKE_INVENTORY]
        parts = ["make", playbook.replace("_", "-")]
        if first != MAKE_INVENTORY:
            parts.append(f"INVENTORY={shlex.quote(first.replace('$', '$$'))}")
        named = MAKE_VARIABLES | (OF_DESTROY if playbook == "destroy" else {})
        for name, value in variables.items():
            if name in named and PLAIN.fullmatch(value):
                parts.append(f"{named[name]}={value}")
            else:
                words = [*words, *extra_words(name, value)]
        words = [*(word for source in further for word in ("-i", source)), *words]
        if words:
            parts.append(f"ARGS={_quoted(shlex.join(words).replace('$', '$$'))}")
        return " ".join(parts)

    def _playbook(self, playbook: str) -> str:
        """Return a playbook by the kind of name that this play's was started by."""
        own = Path(self.start.playbook)
        if own.suffix in (".yml", ".yaml") and own.resolve().parent == self.root / "playbooks":
            return str(own.with_name(f"{playbook}.yml"))
        return f"hermes.workers.{playbook}"

    def _limit(self) -> list[str]:
        return ["-l", self.limit] if self.limit else []

    def _extra(self, playbook: str) -> list[str]:
        """Return the options with what a playbook has to be given again; never a secret."""
        needed = NEEDED.get(playbook, PLACE)
        given = {**self.noted, **self.start.extra}
        words = [word for file in self.start.files for word in ("-e", file)]
        for name in sorted(needed & given.keys()):
            words += extra_words(name, given[name])
        return words


def extra_words(name: str, value: Any) -> list[str]:
    """Return the option that gives a variable a value."""
    if isinstance(value, (str, int)) and PLAIN.fullmatch(str(value)):
        return ["-e", f"{name}={value}"]
    return ["-e", json.dumps({name: value})]


def _quoted(text: str) -> str:
    """Return text as one word of a shell, by the quotes that are read more easily where both will do."""
    return shlex.quote(text) if re.search(r'["\\`$!]', text) else f'"{text}"'

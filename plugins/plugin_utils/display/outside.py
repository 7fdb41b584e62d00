# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cards for what fails outside our own plugins: options, inventories, vaults, undefined names, an interrupt."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ansible import constants, context
from ansible.errors import AnsibleError
from ansible.executor.process.worker import WorkerProcess
from ansible.utils.display import Display

from ...module_utils.cards import Card, limit_card
from . import screen

AGAIN = "What was under way may be half done; the next run goes on from there."
NOT_HERE = "Nothing was changed by this step."
VAULT = (
    "name the vault's password: --vault-password-file, --ask-vault-pass, or vault_identity_list."
)
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - where Linux has it, and no file of ours
NOBODY = "name a file that has it: --vault-password-file, or vault_identity_list."
NO_TEXT = "it is no text in UTF-8"
EXTRA = 'say -e name=value, -e \'{"name": "value"}\', or -e @file with YAML or JSON in it.'
ROOTS = tuple(f"{path.parents[3]}{os.sep}" for path in (Path(__file__), Path(__file__).resolve()))
"""This collection's folder, as Ansible names it, and as it is when that is a link."""
DEFECT = "Unexpected Exception, this is probably a bug"
"""How Ansible calls what is none of its own errors."""
# One who reads the card needs none of these: each plugin that was tried tells that the source is not its own.
REPEATED = re.compile(
    r"Failed to parse inventory with|Unable to parse .* as an inventory source|No inventory was parsed"
    r"|Could not match supplied host pattern|Error getting vault password file|Error in vault password (?:prompt|file)"
    r"|could not be decoded as"
)


TRIED = re.compile(r"Failed to parse inventory with '(\w+)' plugin")
SCRIPT_WROTE = "Standard error from inventory script:"
PARSED = re.compile(r"Parsed (.*) inventory source with ([\w.]+) plugin")
FAILED_PROGRAM = "its program failed, and its own lines are no inventory"
GIVEN_UP = re.compile(r"Unable to parse (.*) as an inventory source")
unparsed: dict[str, str] = {}
"""Sources that Ansible passed over, by their absolute paths -> why."""
_reasons: dict[str, str] = {}
"""What each plugin had against the source that is being read."""


def show_cards(*, quiet: bool = False) -> None:
    """Have this process show the errors of Ansible itself as cards.

    quiet: leave the warnings out that lead to them.
    """
    display = Display()
    if getattr(display.error, "shows_cards", False):
        return
    plain = display.error

    def error(message: str | BaseException, *more: Any, **options: Any) -> None:
        if display.verbosity >= 3:
            plain(message, *more, **options)
        screen.show(display, f"\n{card_of(message).render()}", stderr=True)

    WorkerProcess.start = _or_tell(WorkerProcess.start)
    error.__dict__["shows_cards"] = True
    display.error = error
    if quiet:
        for name in ("warning", "error_as_warning", "deprecated"):
            setattr(display, name, _without_repeated(getattr(display, name)))
        display.vvv = _noting_programs(display.vvv)


def _or_tell(start: Callable[[WorkerProcess], None]) -> Callable[[WorkerProcess], None]:
    """Return what starts a task's process or ends the play: Ansible leaves that task out, and ends with success."""

    def start_or_tell(process: WorkerProcess) -> None:
        try:
            start(process)
        except OSError as error:
            raise AnsibleError("A process could not be started.") from limit_card(error, AGAIN)

    return start_or_tell


def _without_repeated(show: Any) -> Any:
    def show_others(*words: Any, **options: Any) -> None:
        _skip_stackwalk = True  # Ansible asks its callers whose plugin is deprecated
        said = " ".join(map(str, (*words, *options.values())))
        _note_unparsed(said, options.get("exception"))
        if not REPEATED.search(said):
            show(*words, **options)

    return show_others


def _noting_programs(show: Callable[..., None]) -> Callable[..., None]:
    """Return what notes a program of which Ansible took the source for an inventory, because it failed: in silence."""

    def show_and_note(said: str, *more: Any, **options: Any) -> None:
        parsed = PARSED.search(str(said))
        if parsed and not parsed[2].endswith("script") and is_program(Path(parsed[1])):
            unparsed[os.path.abspath(parsed[1])] = FAILED_PROGRAM
        show(said, *more, **options)

    return show_and_note


def is_program(file: Path) -> bool:
    """Tell whether a file of an inventory is to be run."""
    if not file.is_file() or not os.access(file, os.X_OK):
        return False
    with file.open("rb") as opened:
        return opened.read(2) == b"#!"


def _note_unparsed(said: str, error: BaseException | None) -> None:
    """Keep why a source is none: what is a program by its own plugin, anything else by the last one that tried it."""
    tried = TRIED.search(said)
    if tried and error:
        told = [one for one in _chain(error) if isinstance(one, AnsibleError)]
        reason = _first(str((told or [error])[-1])).removeprefix("Failed to parse inventory: ")
        wrote = [str(one._help_text) for one in told if SCRIPT_WROTE in str(one._help_text)]
        if wrote:
            reason = f"{reason}: {_first(wrote[-1].splitlines()[-1])}"
        _reasons[tried[1]] = reason
    given_up = GIVEN_UP.search(said)
    if given_up:
        reason = _reasons.get("script") or next(reversed(_reasons.values()), "no plugin reads it")
        unparsed[os.path.abspath(given_up[1])] = reason
        _reasons.clear()


def card_of(error: str | BaseException) -> Card:
    """Return the card for an error of Ansible's: our own card where one caused it."""
    chain = list(_chain(error)) if isinstance(error, BaseException) else []
    for one in chain:
        if isinstance(one, Card):
            return one
    if chain and str(error).startswith(DEFECT):
        return _defect(chain[-1])
    told = [one for one in chain if isinstance(one, AnsibleError)]
    texts = [str(one) for one in told] or [str(error)]
    places = [place for one in reversed(told) if (place := _place(one))]
    return _card(texts[-1], "\n".join(texts), places[0] if places else "")


def card_of_task(result: Any) -> str | None:
    """Return the card's text for a task of ours that failed before it began; None for a task of somebody else."""
    if not str(result._task.get_path()).startswith(ROOTS):
        return None
    message = str(result._result.get("msg") or "it did not say why")
    card = _card(message.removeprefix("Task failed: "), message, "")
    card.changed = NOT_HERE
    return card.render()


def _card(reason: str, whole: str, place: str) -> Card:
    """Return the card. reason: the innermost message; whole: all of them; place: of what could not be read."""
    first = _first(reason)
    if "interrupted" in first:
        return Card.of("interrupted", "you ended the play.", "run it again.", "interrupted", AGAIN)
    if SHARED_MEMORY in first:
        sentence = f"cannot be used: {first.rpartition(': ')[2]}."
        remedy = f"have a tmpfs there that you can write: mount -o remount,rw {SHARED_MEMORY}."
        return Card.of(SHARED_MEMORY, sentence, remedy, "machine")
    if "no hosts to target" in whole or "limit file" in whole:
        given = _given("subset")
        sentence = "means no host of the inventory."
        remedy = "name a host or a group of the inventory, or leave -l out."
        return Card.of(f"-l {given}" if given else "-l", sentence, remedy, "hosts")
    if "EOFError" in first:
        sentence = "is asked for, and there is nobody to type it."
        return Card.of("the vault's password", sentence, NOBODY, "undefined")
    if re.search(r"password (?:file|script|prompt)|vault password was|on prompt for", whole):
        return Card.of("the vault's password", f"{first}.", VAULT, "undefined")
    if re.search(r"decrypt|vault secrets|vault format", whole, re.IGNORECASE):
        sentence = "is encrypted, and no password of this play opens it."
        return Card.of(place or "a file of the inventory", sentence, VAULT, "undefined")
    keyword = re.search(r"Error processing keyword '(\w+)'", whole)
    if keyword:
        # What an inventory calls ansible_host is the keyword remote_addr.
        name = constants.MAGIC_VARIABLE_MAPPING.get(keyword[1], (f"ansible_{keyword[1]}",))[-1]
        sentence = f"cannot be read: {first.split(': ')[-1]}."
        remedy = f"mend {name}, or define what it refers to."
        return Card.of(name, sentence, remedy, "undefined")
    if _is_of_extra(whole, place):
        # What was typed may hold a secret, so that it is not repeated.
        missing = re.search(r"Could not find or access '(.*?)'", whole)
        sentence = f"there is no {missing[1]}." if missing else "cannot be read as variables."
        return Card.of("-e", sentence, EXTRA, "inputs")
    if place:
        return Card.of(
            place, f"cannot be read: {first}.", "mend the file at that place.", "inventory"
        )
    return Card.of("Ansible", f"{first}.", "run it again with -vvv to see more.", "ansible")


def _first(reason: str) -> str:
    """Return the first line of a reason, without its end; for what is no text at all in words of our own."""
    line = next(iter(reason.strip().splitlines()), "it did not say why")
    return NO_TEXT if "surrogates not allowed" in line else line.rstrip(".").removesuffix(": None")


def _defect(error: BaseException) -> Card:
    remedy = "run it again with -vvv, and report what it shows."
    return Card.of(
        "Ansible", f"{type(error).__name__}: {error}.", remedy, "ansible", "It ended half done."
    )


def _is_of_extra(whole: str, place: str) -> bool:
    if "CLI option '-e'" in place or re.search("extra vars|splitting arguments", whole):
        return True
    files = [str(text)[1:] for text in _given("extra_vars") or () if str(text).startswith("@")]
    return any(file and file in f"{whole} {place}" for file in files)


def _given(option: str) -> Any:
    return context.CLIARGS.get(option)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _place(error: BaseException) -> str:
    """Return where the text stands that an error is about: path, line and column, as far as Ansible knows them."""
    found = re.search(r"Origin: (.*)", str(getattr(error, "_formatted_source_context", None) or ""))
    return found[1] if found else ""

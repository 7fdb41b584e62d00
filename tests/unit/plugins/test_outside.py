# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What Ansible itself refuses is one card too. Its own code makes the errors, so that a new wording is noticed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import context
from ansible._internal._templating._engine import TemplateEngine
from ansible.cli.arguments import option_helpers
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret, get_file_vault_secret
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.template import trust_as_template
from ansible.utils.context_objects import CLIArgs
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.plugin_utils.display import outside

SECRET = "sk-canary-typed"


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the options of the command line."""
    return lambda **options: monkeypatch.setattr(context, "CLIARGS", CLIArgs(options))


@pytest.fixture(autouse=True)
def no_options(given: Callable[..., None]) -> None:
    given()


def told(action: Callable[[], Any]) -> Card:
    """The card of what Ansible raises."""
    with pytest.raises(AnsibleError) as caught:
        action()
    return outside.card_of(caught.value)


def subject(card: Card) -> str:
    (problem,) = card.problems
    return problem.subject


def test_a_file_that_is_no_yaml_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "vars.yml"
    path.write_text("name: one\nother: [\n")
    card = told(lambda: DataLoader().load_from_file(str(path)))
    assert subject(card).startswith(f"{path}:")
    assert "cannot be read: " in card.render()


def vaulted(path: Path) -> Path:
    path.write_bytes(VaultLib().encrypt(b"name: one", VaultSecret(b"password")))
    return path


def test_a_vault_without_its_password_is_told(tmp_path: Path) -> None:
    path = vaulted(tmp_path / "vault.yml")
    card = told(lambda: DataLoader().load_from_file(str(path)))
    assert "is encrypted, and no password of this play opens it" in card.render()
    assert "--ask-vault-pass" in card.render()


def test_a_password_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    card = told(lambda: get_file_vault_secret(filename=missing, loader=DataLoader()))
    assert subject(card) == "the vault's password"
    assert missing in card.render()


@pytest.mark.parametrize(
    "option", ["@none.yml", "@broken.yml", f'{{"key": "{SECRET}"', f"key='{SECRET}"]
)
def test_variables_of_the_command_line_are_told_without_what_was_typed(
    tmp_path: Path, given: Callable[..., None], monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.yml").write_text(f"key: [{SECRET}")
    parser = option_helpers.create_base_parser("ansible-playbook")
    option_helpers.add_runtask_options(parser)
    given(**vars(parser.parse_args(["-e", option])))
    # Ansible keeps what it read once.
    monkeypatch.delattr(load_extra_vars, "extra_vars", raising=False)
    card = told(lambda: load_extra_vars(DataLoader()))
    assert subject(card) == "-e"
    assert SECRET not in card.render()
    assert ("there is no " in card.render()) is (option == "@none.yml")


@pytest.mark.parametrize("limit", ["@none", None])
def test_a_limit_of_nothing_is_told(
    tmp_path: Path, given: Callable[..., None], limit: str | None
) -> None:
    given(subset=limit)
    inventory = InventoryManager(DataLoader(), sources=["one,"])
    if limit:
        card = told(lambda: inventory.subset(str(tmp_path / "none").join(["@"])))
    else:
        # The words of ansible.cli.
        text = "Specified inventory, host pattern and/or --limit leaves us with no hosts to target."
        card = outside.card_of(AnsibleError(text))
    assert subject(card) == (f"-l {limit}" if limit else "-l")
    assert "leave -l out" in card.render()


@pytest.mark.parametrize(
    "name", ["ansible_host", "ansible_user", "ansible_port", "ansible_connection", "ansible_become"]
)
def test_a_variable_of_ansibles_that_refers_to_nothing_is_told_by_its_name(name: str) -> None:
    loader, variables = DataLoader(), {name: trust_as_template("{{ nothing }}")}
    task, templar = Task.load({"debug": {}}, loader=loader), TemplateEngine(loader, variables)
    reached = PlayContext().set_task_and_variable_override(task, variables, templar)
    card = told(lambda: reached.post_validate(templar))
    assert subject(card) == name
    assert "cannot be read: 'nothing' is undefined." in card.render()
    assert f"mend {name}" in card.render()


def test_our_own_card_is_shown_as_it_is() -> None:
    own = Card.of("hermes_port", "is taken.", "set another.", "port")
    error = AnsibleError("the plugin failed")
    error.__cause__ = own
    assert outside.card_of(error) is own


def test_a_defect_is_called_one() -> None:
    error = AnsibleError(f"{outside.DEFECT}: boom")
    error.__cause__ = RuntimeError("boom")
    card = outside.card_of(error).render()
    assert card.startswith("Ansible: RuntimeError: boom.")
    assert "report what it shows" in card and "half done" in card


def test_an_interrupt_is_no_failure_of_anything() -> None:
    card = outside.card_of("User interrupted execution")
    assert subject(card) == "interrupted"
    assert outside.AGAIN in card.render()


def test_what_is_not_known_is_told_in_ansibles_words() -> None:
    assert (
        outside.card_of("the moon is full.\nmore").render().startswith("Ansible: the moon is full.")
    )


def result(path: str, **content: Any) -> Any:
    return SimpleNamespace(_task=SimpleNamespace(get_path=lambda: path), _result=content)


def test_a_task_of_ours_that_could_not_begin_is_told_and_one_of_somebody_elses_is_ansibles() -> (
    None
):
    message = "Task failed: Finalization of task args failed: 'x' is undefined"
    ours = f"{outside.ROOTS[0]}roles{os.sep}worker{os.sep}tasks{os.sep}main.yml:3"
    card = outside.card_of_task(result(ours, msg=message))
    assert card is not None and card.startswith("Ansible: Finalization of task args failed")
    assert outside.NOT_HERE in card
    assert "it did not say why" in str(outside.card_of_task(result(ours)))
    assert outside.card_of_task(result("/elsewhere/site.yml:1", msg=message)) is None


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Display:
    """Ansible's display as it is made, whoever has changed it, and put back as it was."""
    made = Display()
    for name in ("error", "warning", "error_as_warning"):
        monkeypatch.setattr(made, name, getattr(Display, name).__get__(made))
    monkeypatch.setattr(made, "verbosity", 0)
    monkeypatch.setattr(made, "_warns", set())
    outside.unparsed.clear()
    return made


def test_errors_are_shown_as_cards_and_once(
    display: Display, capsys: pytest.CaptureFixture[str]
) -> None:
    outside.show_cards()
    outside.show_cards()
    display.error("the moon is full")
    shown = capsys.readouterr().err
    assert shown.count("Ansible: the moon is full.") == 1
    assert "ERROR" not in shown, "Ansible's own words are for those who asked for them"
    display.verbosity = 3
    display.error("the moon is full, too")
    assert "[ERROR]: the moon is full, too" in capsys.readouterr().err


def parse(source: str) -> None:
    InventoryManager(DataLoader(), sources=[source]).parse_sources()


def test_a_source_that_nobody_could_read_is_told_once_with_the_last_reason(
    display: Display, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    outside.show_cards(quiet=True)
    path = tmp_path / "hosts"
    path.write_text("[group\n")
    parse(str(path))
    display.warning("something else")
    shown = capsys.readouterr().err
    assert "something else" in shown
    assert "Unable to parse" not in shown and "Failed to parse" not in shown
    assert list(outside.unparsed) == [str(path)]
    assert outside.unparsed[str(path)]


def test_of_a_program_that_wrote_its_last_line_is_told(display: Display, tmp_path: Path) -> None:
    outside.show_cards(quiet=True)
    path = tmp_path / "hosts.sh"
    path.write_text("#!/bin/sh\necho one >&2; echo no account >&2; exit 1\n")
    path.chmod(0o755)
    parse(str(path))
    assert outside.unparsed[str(path)].endswith("returned non-zero exit code 1: no account")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (f"[Errno 30] Read-only file system: {outside.SHARED_MEMORY}", "/dev/shm: cannot be used"),
        (f"no: {outside.SHARED_MEMORY}: Permission denied", "mount -o remount,rw /dev/shm"),
        ("EOFError: nobody", "the vault's password: is asked for, and there is nobody to type it"),
    ],
)
def test_what_a_machine_lacks_is_told_as_that(message: str, words: str) -> None:
    assert words in outside.card_of(message).render()


def test_of_a_program_that_failed_its_own_words_are_told(display: Display, tmp_path: Path) -> None:
    outside.show_cards(quiet=True)
    path = tmp_path / "hosts.sh"
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    parse(str(path))
    assert outside.unparsed[str(path)] == "Inventory script returned non-zero exit code 1"

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What stands against a play for all hosts, before one begins: no inventory, or options that say nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible import context
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.utils.context_objects import CLIArgs
from ansible_collections.hermes.workers.plugins.lookup.hosts import ROOT, LookupModule
from ansible_collections.hermes.workers.plugins.plugin_utils.display import outside

SECRET = "sk-canary-typed"


class Play:
    """A play that is about to begin, with an inventory and the options of its command line."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch
        self.unparsed: dict[str, str] = {}
        patch.setattr(outside, "unparsed", self.unparsed)

    def file(self, name: str, content: str | bytes, mode: int = 0o644) -> str:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return name

    def hosts(self, *sources: str, found: bool = True, **options: Any) -> list[str]:
        self.patch.setattr(context, "CLIARGS", CLIArgs(options))
        variables = {
            "ansible_inventory_sources": list(sources),
            "groups": {"all": ["alice"] if found else []},
        }
        return LookupModule(loader=DataLoader()).run([], variables)

    def card(self, *sources: str, **more: Any) -> str:
        with pytest.raises(AnsibleError) as caught:
            self.hosts(*sources, **more)
        return str(outside.card_of(caught.value).render())


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    monkeypatch.chdir(tmp_path)
    return Play(tmp_path, monkeypatch)


def test_an_inventory_with_a_host_is_for_all_of_them(play: Play) -> None:
    source = play.file("hosts.yml", "all:\n  hosts:\n    alice:\n")
    assert play.hosts(source) == play.hosts("alice,") == ["all"]


def test_whoever_looks_at_the_syntax_only_needs_no_inventory(play: Play) -> None:
    assert play.hosts("nowhere", found=False, syntax=True) == ["all"]


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        (("nowhere",), "nowhere: there is no such inventory."),
        (("/nowhere/at/all",), "/nowhere/at/all: there is no such inventory."),
        ((), "the inventory: names no host."),
        ((",",), ",: names no host."),
    ],
)
def test_no_inventory_is_told_with_one_for_a_first_try(
    play: Play, sources: tuple[str, ...], words: str
) -> None:
    card = play.card(*sources, found=False)
    assert card.startswith(words) and "inventories/local is one." in card


def test_a_source_that_ansible_passed_over_is_told_with_its_reason(play: Play) -> None:
    source = play.file("hosts.ini", "[all\n")
    play.unparsed[str(play.folder / source)] = "a bracket is missing"
    words = "hosts.ini: cannot be read: a bracket is missing."
    assert play.card(source, found=False).startswith(words)
    assert play.card(source).startswith(words)


def test_what_is_below_a_folder_that_is_read_need_be_no_inventory(play: Play) -> None:
    play.file("inventory/hosts.yml", "all:\n  hosts:\n    alice:\n")
    play.file("inventory/notes", "Dear Anna")
    play.unparsed[str(play.folder / "inventory" / "notes")] = "no plugin reads it"
    assert play.hosts("inventory") == ["all"]
    assert "notes: cannot be read" in play.card("inventory", found=False)


def test_a_file_that_is_no_yaml_is_told_once_with_its_place(play: Play) -> None:
    play.file("inventory/hosts.yml", "all: [\n")
    play.unparsed[str(play.folder / "inventory")] = "no plugin reads it"
    card = play.card("inventory", found=False)
    assert "hosts.yml:" in card and "no plugin reads it" not in card
    assert card.count("cannot be read") == 1


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (b"caf\xe9\n", 0o644, "cannot be read: it is no text in UTF-8."),
        (b"#!/bin/sh\r\nexit\r\n", 0o755, "cannot be run: its lines end as Windows has them."),
        (b"#!/nowhere/sh\n", 0o755, "cannot be run: there is no /nowhere/sh."),
        (b"#!/usr/bin/env no-such-program\n", 0o755, "there is no no-such-program on the PATH."),
        (b"#!/usr/bin/env -S A=1 no-such\n", 0o755, "cannot be run: there is no no-such on the PA"),
    ],
    ids=["latin", "windows", "no interpreter", "no program", "no program behind options"],
)
def test_a_source_that_cannot_be_started_or_read_is_told_as_that(
    play: Play, content: bytes, mode: int, words: str
) -> None:
    card = play.card(play.file("hosts", content, mode), found=False)
    assert card.startswith("hosts: ") and words in card


@pytest.mark.parametrize("content", ["#!/bin/sh\n", "#!/usr/bin/env sh\n", "#!\n"])
def test_a_program_that_can_be_started_is_no_problem(play: Play, content: str) -> None:
    assert play.hosts(play.file("hosts", content, 0o755)) == ["all"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (SECRET, "-e: a word of it has no value."),
        (f"“hermes_key”={SECRET}", "-e: a word before = is no name of a variable."),
    ],
)
def test_a_word_after_e_that_sets_nothing_is_told_and_not_shown(
    play: Play, words: str, told: str
) -> None:
    card = play.card("alice,", extra_vars=("a=1", words))
    assert card.startswith(told) and SECRET not in card
    assert play.hosts("alice,", extra_vars=("a=1", "@vars.yml", '{"b": 2}', "")) == ["all"]


OPTIONS = [
    ({"tags": ["deploy"]}, "--tags: deploy would leave every task out."),
    ({"skip_tags": ["all", "x"]}, "--skip-tags: all, x would leave every task out."),
    ({"start_at_task": "Deploy"}, "--start-at-task: would leave out what checks and plans"),
    ({"step": True}, "--step: would leave out what is not answered with yes."),
]


@pytest.mark.parametrize(("options", "words"), OPTIONS)
def test_a_part_of_our_playbooks_is_none(play: Play, options: Any, words: str) -> None:
    ours = ("hermes.workers.deploy", str(ROOT / "playbooks" / "status.yml"))
    card = play.card("alice,", args=ours, **options)
    assert card.startswith(words) and "our playbooks have no tags" in card
    assert play.hosts("alice,", args=(*ours, "site.yml"), **options) == ["all"]


@pytest.mark.parametrize(
    "options", [{"tags": ["all"]}, {"tags": ["untagged", "x"]}, {"skip_tags": ["x"]}]
)
def test_options_that_leave_nothing_out_are_taken(play: Play, options: Any) -> None:
    assert play.hosts("alice,", args=("hermes.workers.deploy",), **options) == ["all"]

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""The commands that cards print say again what the play was told, as far as that is no secret."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.utils import context_objects
from ansible_collections.hermes.workers.plugins.module_utils.cards import Problem
from ansible_collections.hermes.workers.plugins.plugin_utils.display import commands
from ansible_collections.hermes.workers.plugins.plugin_utils.display.commands import Commands, Start

ROOT = Path(__file__).resolve().parents[3]
INSTALLED = "hermes.workers.deploy"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is no checkout."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def in_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def start(*sources: str, playbook: str = INSTALLED, **more: Any) -> Start:
    return Start("ansible-playbook", playbook, list(sources), **more)


def started(monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> Start:
    """What is read from a command line. arguments: as Ansible has parsed them."""
    given = context_objects.CLIArgs({"args": (INSTALLED,), **arguments})
    monkeypatch.setattr(commands.context, "CLIARGS", given)
    return Start.now(["/etc/hosts.yml", "alice,"], DataLoader())


@pytest.mark.usefixtures("in_checkout")
@pytest.mark.parametrize(
    ("made", "playbook", "variables", "printed"),
    [
        (start("inventories/local"), "logs", {}, "make logs"),
        (start("mine.yml"), "rotate_keys", {}, "make rotate-keys INVENTORY=mine.yml"),
        (
            start("inventories/local"),
            "destroy",
            {"hermes_confirm": "yes"},
            "make destroy CONFIRM=yes",
        ),
        (
            start("inventories/local", extra={"hermes_state_dir": "/srv/x", "hermes_port": 9000}),
            "deploy",
            {},
            'make deploy ARGS="-e hermes_port=9000 -e hermes_state_dir=/srv/x"',
        ),
        (start(), "lifecycle", {"hermes_action": "sleep"}, "make lifecycle ACTION=sleep"),
        (start(), "deploy", {"hermes_forget": "true"}, 'make deploy ARGS="-e hermes_forget=true"'),
        (start(), "destroy", {"hermes_forget": "yes"}, "make destroy FORGET=yes"),
        (start("my $1/a.yml"), "logs", {}, "make logs INVENTORY='my $$1/a.yml'"),
        (start("a.yml", "b.yml"), "logs", {}, 'make logs INVENTORY=a.yml ARGS="-i b.yml"'),
        (
            start("inventories/local", extra={"hermes_state_dir": "/srv/a b"}),
            "logs",
            {},
            """make logs ARGS='-e '"'"'{"hermes_state_dir": "/srv/a b"}'"'"''""",
        ),
    ],
)
def test_in_the_checkout_make_is_printed(
    made: Start, playbook: str, variables: dict[str, str], printed: str
) -> None:
    assert Commands(made, ROOT).of(playbook, **variables) == printed


@pytest.mark.parametrize(
    "playbook", sorted((ROOT / "playbooks").glob("*.yml")), ids=lambda one: one.stem
)
def test_make_has_a_target_for_each_playbook(playbook: Path) -> None:
    target = playbook.stem.replace("_", "-")
    assert f"\n{target}: tools ##" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_no_card_knows_a_command_by_heart() -> None:
    """One that stands in a text knows neither the inventory, nor `-e`, nor whether there is a Makefile."""
    found = [
        f"{path.relative_to(ROOT)}: {node.value}"
        for path in sorted((ROOT / "plugins").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
        and re.search(r"[`(](make|ansible-playbook) ", str(node.value))
    ]
    assert found == []


@pytest.mark.usefixtures("elsewhere")
def test_elsewhere_the_playbook_is_named_as_this_one_was() -> None:
    installed = Commands(start("hosts.yml"), ROOT, limit="alice")
    printed = "ansible-playbook hermes.workers.backup -i hosts.yml -l alice"
    assert installed.of("backup") == printed
    by_file = Commands(start("hosts.yml", playbook=f"{ROOT}/playbooks/deploy.yml"), ROOT)
    assert by_file.of("logs") == f"ansible-playbook {ROOT}/playbooks/logs.yml -i hosts.yml"
    own = Commands(start("hosts.yml", playbook="site.yml"), ROOT)
    assert own.of("logs") == "ansible-playbook hermes.workers.logs -i hosts.yml"


@pytest.mark.usefixtures("elsewhere")
def test_each_playbook_gets_what_it_needs() -> None:
    extra = {
        "hermes_state_dir": "st",
        "hermes_platform": "workerd",
        "hermes_port": "9000",
        "hermes_models": ["openai/gpt-5"],
        "hermes_forget": "yes",
        "hermes_action": "wake",
    }
    made = Commands(start("h", extra=extra), ROOT)
    assert shlex.split(made.of("logs"))[4:] == ["-e", "hermes_state_dir=st"]
    destroy = ["-e", "hermes_platform=workerd", "-e", "hermes_state_dir=st"]
    assert shlex.split(made.of("destroy"))[4:] == destroy
    models = ["-e", '{"hermes_models": ["openai/gpt-5"]}', "-e", "hermes_platform=workerd"]
    ports = ["-e", "hermes_port=9000", "-e", "hermes_state_dir=st"]
    assert shlex.split(made.of("deploy"))[4:] == models + ports


@pytest.mark.usefixtures("elsewhere")
def test_what_made_the_deployment_is_said_again_unless_this_play_says_otherwise() -> None:
    noted = {"hermes_port": "9000", "hermes_platform": "workerd"}
    made = Commands(start("h", extra={"hermes_port": "9001"}), ROOT, noted=noted)
    words = shlex.split(made.of("deploy"))[4:]
    assert words == ["-e", "hermes_platform=workerd", "-e", "hermes_port=9001"]
    assert shlex.split(made.of("logs"))[4:] == []


@pytest.mark.usefixtures("elsewhere")
def test_the_command_line_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "sk-canary-of-this-test"
    given = (
        f"hermes_port=9000 openai_api_key={secret}",
        f'{{"hermes_secrets": {{"X": "{secret}"}}, "hermes_name": "al"}}',
        "@vars.yml",
    )
    made = started(monkeypatch, extra_vars=given, vault_password_files=("/etc/pass",))
    printed = Commands(made, ROOT).of("deploy")
    assert secret not in printed
    words = shlex.split(printed.removeprefix(made.program))
    assert words[1:5] == ["-i", "/etc/hosts.yml", "-i", "alice,"]
    password = ["--vault-password-file", "/etc/pass"]
    assert words[5:] == [
        *password,
        "-e",
        "@vars.yml",
        "-e",
        "hermes_name=al",
        "-e",
        "hermes_port=9000",
    ]


def test_a_password_that_is_typed_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert started(monkeypatch, ask_vault_pass=True).passwords == ["--ask-vault-pass"]
    assert started(monkeypatch, ask_vault_pass=False).passwords == []


def test_a_problem_is_told_by_the_name_that_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "OLD_NAMES", {"hermes_new": "old"})
    problem = Problem(
        "hermes_new", "is none.", "set hermes_new, or leave hermes_new out.", "inputs"
    )
    assert commands.as_typed(problem, {}) == problem
    assert commands.as_typed(problem, {"hermes_new", "old"}) == problem
    told = commands.as_typed(problem, {"old"})
    assert (told.subject, told.remedy) == ("old", "set old, or leave old out.")


def test_behind_make_a_problem_is_told_by_makes_own_word(monkeypatch: pytest.MonkeyPatch) -> None:
    remedy = "say -e hermes_forget=yes."
    problem = Problem("hermes_forget", "is none.", remedy, "inputs")
    monkeypatch.delenv("FORGET", raising=False)
    assert commands.as_typed(problem, {}) == problem
    monkeypatch.setattr(commands.sys, "argv", [f"/x/{commands.MAKE_PROGRAM}"])
    assert commands.as_typed(problem, {}) == problem, "`deploy` has no such word"
    monkeypatch.setenv("FORGET", "perhaps")
    told = commands.as_typed(problem, {})
    assert (told.subject, told.remedy) == ("FORGET", "say FORGET=yes.")
    confirm = Problem("hermes_confirm", "is none.", "say hermes_confirm=yes.", "inputs")
    assert commands.as_typed(confirm, {}).subject == commands.TYPED["hermes_confirm"]


def test_what_is_noted_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"hermes_port": 9000, "hermes_api_token": "hw_x", "cloudflare_api_token": "t"}
    more = {"anthropic_api_key": "k", "hermes_forget": "yes", "own": "1", "hermes_env": {"A": "b"}}
    more["hermes_models"] = ["one/model", {"name": "another"}]
    monkeypatch.setattr(commands, "load_extra_vars", lambda _loader: given | more)
    noted = {"hermes_env": {"A": "b"}, "hermes_port": 9000, "hermes_models": more["hermes_models"]}
    assert commands.notable(DataLoader()) == noted
    more["hermes_models"] = [object()]
    assert commands.notable(DataLoader()) == {"hermes_env": {"A": "b"}, "hermes_port": 9000}

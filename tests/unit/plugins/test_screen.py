# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What people see fits their terminal, is what it was when it is copied, and has colour only where they want it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.utils import color
from ansible_collections.hermes.workers.plugins.plugin_utils.display import screen
from hypothesis import given
from hypothesis import strategies as st

CURL = (
    'curl http://127.0.0.1:8787/v1/chat/completions -H "Authorization: Bearer $(cat .hermes/a/api_token)"'
    """ -H 'Content-Type: application/json' -d '{"messages":[{"content":"Hello"}],"model":"hermes"}'"""
)
PLAYBOOK = (
    "ansible-playbook hermes.workers.deploy -i some/where/else/hosts.yml --vault-password-file ~/.vault"
    """ -l alice -e hermes_state_dir=/srv/state -e '{"hermes_models": ["openai/gpt-5-mini"]}'"""
)
MAKE = (
    """make deploy ARGS="-e hermes_dashboard_port=9702 -e hermes_port=9700 -e hermes_providers_port=9701"""
    """ --vault-password-file /home/alice/.vault" KEYS=api_token"""
)
LINES = [
    f"  {CURL}",
    f"  Do: run `{PLAYBOOK}`; it starts them, and changes nothing else that is as it should be.",
    "  model         rehearsal: answers come from this machine, no provider is called; set a key to change that",
    "  hermes_port: 12 is not a port for a user's program: a whole number from 1024 to 65535, and so on.",
    f"  Do: run `{MAKE}`, or set hermes_state_dir to where it was deployed.",
    "    | a line of a failing tool that goes on and on and on and on and on and on and on and on and on",
]


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize(
    "line", LINES, ids=["command", "remedy", "row", "sentence", "target", "detail"]
)
def test_no_line_is_longer_than_the_terminal_and_no_word_is_lost(line: str, width: int) -> None:
    fitted = screen.fit(line, width)
    longest = max(map(len, screen.ARGUMENT.findall(line)))
    assert max(map(len, fitted)) <= max(width, longest + screen.MARGIN + 3)
    if width >= 80:
        assert max(map(len, fitted)) <= width
    text = " ".join(fitted).replace("\\", "").replace("    | ", " ")
    assert re.sub(r"[\s|]+", " ", text).strip() == re.sub(r"[\s|]+", " ", line).strip()


@pytest.mark.parametrize("command", [CURL, PLAYBOOK, MAKE], ids=["curl", "playbook", "make"])
def test_a_command_on_several_lines_is_the_same_to_a_shell(command: str) -> None:
    fitted = screen.fit(f"  {command}", 80)
    assert len(fitted) > 1
    assert words_of("\n".join(fitted)) == words_of(command)


@pytest.mark.parametrize("program", ["mkdir", "sudo", "make"])
def test_whatever_begins_a_printed_command_goes_on_behind_a_backslash(program: str) -> None:
    command = f"{program} -m 700 -p .hermes/{'a' * 30} && tar -xzf .hermes/{'b' * 30}.tar.gz -C ."
    first, *more = screen.fit(f"  {command}", 80)
    assert more and all(line.endswith(" \\") for line in (first, *more[:-1]))
    assert " ".join(" ".join((first, *more)).replace("\\", "").split()) == command


def words_of(command: str) -> list[str]:
    """The words that a shell makes of what was copied; blanks within one are one, as they are to whom it is for."""
    program, rest = command.strip().split(" ", 1)
    line = f"printf '%s\\n' {program} {rest}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    return [" ".join(word.split()) for word in done.stdout.splitlines()]


@given(
    st.text(
        st.characters(codec="utf-8", exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")
    )
)
def test_any_line_comes_out_word_by_word(line: str) -> None:
    """Whatever stands for a blank is where a line may break."""

    def without_blanks(text: str) -> str:
        return "".join(text.replace("\\", "").split())

    assert without_blanks("".join(screen.fit(line, 40))) == without_blanks(line)


def test_a_label_keeps_its_column() -> None:
    first, second = screen.fit("  model         " + "word " * 20, 80)
    assert second.index("word") == first.index("word")


@pytest.mark.parametrize(
    ("label", "below"),
    [("  backup  ", " " * 10), ("  Do: ", " " * 6), ("    | ", "    | "), ("  ", " " * 6)],
)
def test_what_is_longer_than_a_line_stands_below_its_label(label: str, below: str) -> None:
    fitted = screen.fit(f"{label}{'/d' * 40} is there", 40)
    *labels, path, rest = fitted
    assert labels == ([label.rstrip()] if label.strip(" |") else [])
    assert (path, rest) == (f"{below}{'/d' * 40}", f"{below}is there")
    command = screen.fit(f"{label}`make restore {'BACKUP=x ' * 9}INVENTORY=mine.yml`", 40)
    assert (command[0] == label.rstrip()) is bool(labels)
    assert command[len(labels)].lstrip(" |").startswith("`make restore BACKUP=x ")


def test_a_line_of_blanks_stays_a_line() -> None:
    assert [line.strip() for line in screen.fit(" " * 60, 40)] == [""]
    assert screen.fit(f"    |{' ' * 60}", 40) == ["    |"]


def test_paint_is_for_those_who_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["alice: deployed and verified", "  URL          https://a.example", "alice: FAILED"]
    monkeypatch.setattr(color, "ANSIBLE_COLOR", False)
    assert [screen.paint(line) for line in lines] == lines
    monkeypatch.setattr(color, "ANSIBLE_COLOR", True)
    painted = [screen.paint(line) for line in lines]
    assert all("\x1b[" in line for line in painted)
    assert "✓ alice" in painted[0] and "✗ alice" in painted[2]


def shown(environment: dict[str, str], *, terminal: bool) -> str:
    """What a process shows of a verdict, whose output is a terminal or is none."""
    code = (
        "from ansible.utils.display import Display\n"
        "from ansible_collections.hermes.workers.plugins.plugin_utils.display import screen\n"
        "screen.show(Display(), 'alice: deployed and verified\\n  note         ' + 'word ' * 30)"
    )
    names = ("NO_COLOR", "ANSIBLE_NOCOLOR", "ANSIBLE_FORCE_COLOR", "COLUMNS")
    env = {name: value for name, value in os.environ.items() if name not in names}
    env |= {"TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path)} | environment
    command: list[Any] = [sys.executable, "-c", code]
    if not terminal:
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, env=env, stdout=theirs) as process:
        os.close(theirs)
        text = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:
                break
            if not chunk:
                break
            text += chunk
    os.close(ours)
    assert process.returncode == 0
    return text.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("environment", "terminal", "painted"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"ANSIBLE_NOCOLOR": "1"}, True, False),
        ({"ANSIBLE_FORCE_COLOR": "1"}, False, True),
    ],
    ids=json.dumps,
)
def test_colour_obeys_the_terminal_and_who_sits_there(
    environment: dict[str, str], terminal: bool, painted: bool
) -> None:
    text = shown(environment | {"COLUMNS": "60"}, terminal=terminal)
    assert ("\x1b[" in text, "✓" in text) == (painted, painted)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(map(len, plain.splitlines())) <= 60


def test_every_heading_fits() -> None:
    """Ansible writes a task's name on one line, with its role before it and three stars behind it."""
    root = Path(__file__).parents[3]
    files = [*root.glob("playbooks/*.yml"), *root.glob("playbooks/tasks/*.yml")]
    files += root.glob("roles/*/tasks/*.yml")
    wide = []
    for file in files:
        role = f"hermes.workers.{file.parts[-3]} : " if "roles" in file.parts else ""
        for name in re.findall(r"^ *- name: (.+)$", file.read_text(), re.MULTILINE):
            heading = f"TASK [{role}{name}] ***"
            wide += [heading] if len(heading) > 80 else []
    assert len(files) > 15 and wide == []

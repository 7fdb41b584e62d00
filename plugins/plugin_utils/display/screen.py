# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people see: lines that fit their terminal, commands that can be copied from it, colour where they want it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

from ansible.utils import color as ansible_color
from ansible.utils.color import stringc
from ansible.utils.display import Display

WIDTH = max(40, shutil.get_terminal_size((80, 24)).columns)
"""Read once, where the terminal is: Ansible's tasks run in processes that have none."""
MARGIN = 4
"""How far a line goes on to the right of where it began, when nothing in it says better."""

# A label of a card, and blanks up to its value; the value goes on below itself.
LABEL = re.compile(r"\s*(?:\S+ )*?\S+\s{2,}(?=\S)|\s*(?:Do|Docs|Note): ")
DETAIL = re.compile(r"\s*\| ")
COMMAND = re.compile(
    r"\s*(?:curl|make|mkdir|sudo|(?:\S*/)?ansible-playbook|\S*python[\d.]* -m ansible) "
)
# What stands in backquotes is one word, with what touches it.
WORD = re.compile(r"[^\s`]*`[^`]+`[^\s`]*|\S+")
# A word of a shell with its quotes, or an option with its value.
ARGUMENT = re.compile(
    r"(?:-{1,2}\w[\w-]*\s+(?!-))?(?:\"(?:\\.|[^\"\\])*\"|'[^']*'|\\.|[^\s\"'\\])+"
)
# Words for `make` in double quotes, in which a shell takes a line break behind a backslash for none as well.
QUOTED = re.compile(r'\w+="[^"\\]*"\S*')

PAINTS: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (re.compile(r"^[\w.-]+: FAILED$"), "✗ ", "red"),
    (
        re.compile(r"^[\w.-]+: (?:deployed and verified|running|its keys are rotated).*"),
        "✓ ",
        "green",
    ),
    (re.compile(r"^Plan: .*|^No changes\..*"), "", "bright cyan"),
    (re.compile(r"^Note: .*"), "", "purple"),
    (re.compile(r"^  (?:\d\d-\d\d )?[\d: ]{8} error .*"), "", "red"),
    (re.compile(r"^  (?:\d\d-\d\d )?[\d: ]{8} warn .*"), "", "yellow"),
    (re.compile(r"^  AT RISK .*"), "", "red"),
    (re.compile(r"(?<=^  )create(?=  )"), "", "green"),
    (re.compile(r"(?<=^  )update(?=  )"), "", "yellow"),
    (
        re.compile(r"(?<=^  URL)(\s+)https?://\S+|(?<=^  dashboard)(\s+)https?://\S+"),
        "",
        "bright blue",
    ),
    (re.compile(r"^  [\w.-]+ \| .*"), "", "dark gray"),
)
"""What of a line has a colour, what stands before it then, and which colour."""


def show(display: Display, text: str, *, stderr: bool = False) -> None:
    """Show text on the screen, fitted and painted, and without paint in Ansible's log file."""
    lines = [part for line in text.split("\n") for part in fit(line)]
    plain, painted = "\n".join(lines), "\n".join(map(paint, lines))
    if painted == plain:
        display.display(plain, stderr=stderr)
    else:
        display.display(painted, screen_only=True, stderr=stderr)
        display.display(plain, log_only=True)


def paint(line: str) -> str:
    """Return a line in its colours."""
    for pattern, mark, colour in PAINTS if ansible_color.ANSIBLE_COLOR else ():
        found = pattern.search(line)
        if found:
            painted: str = stringc(mark + found[0], colour)
            return line[: found.start()] + painted + line[found.end() :]
    return line


def fit(line: str, width: int | None = None) -> list[str]:
    """Return a line as lines that are not longer than the terminal is wide; a single word may be."""
    width = width or WIDTH
    if len(line) <= width:
        return [line]
    if COMMAND.match(line):
        return list(_command(line, width, len(line) - len(line.lstrip())))
    indent = len(line) - len(line.lstrip())
    detail, label = DETAIL.match(line), LABEL.match(line)
    if detail:
        first = further = detail[0]
    else:
        first = label[0] if label and len(label[0]) <= width // 2 else " " * indent
        further = " " * (len(first) if label and first == label[0] else indent + MARGIN)
    return list(_words(line[len(first) :], width, first, further))


def _words(text: str, width: int, first: str, further: str) -> Iterator[str]:
    """Yield text word by word, a command that is too long for a line on lines of its own."""
    begin, room = first, False
    for word in WORD.findall(text):
        line = f"{begin} {word}" if room else begin + word
        if len(line) <= width:
            begin, room = line, True
            continue
        # A label whose value fits on no line stands above it.
        if begin.strip() and begin != further:
            yield begin.rstrip()
        begin, room = further + word, True
        if len(begin) > width and "`" in word:
            *done, begin = _command(begin, width, len(further))
            yield from done
    yield begin.rstrip()


def _command(text: str, width: int, indent: int) -> Iterator[str]:
    """Yield a command on several lines, as a shell takes them from the clipboard."""
    begin, room = " " * indent, False
    for word in _arguments(text, width - indent - MARGIN):
        line = f"{begin} {word}" if room else begin + word
        if room and len(line) > width - 2:
            yield f"{begin} \\"
            begin = " " * (indent + 2) + word
        else:
            begin, room = line, True
    yield begin


def _arguments(text: str, room: int) -> Iterator[str]:
    """Yield a command's words, of quoted words that are too long for a line each option with its value."""
    for word in ARGUMENT.findall(text):
        if len(word) > room and QUOTED.fullmatch(word):
            yield from re.split(r"\s+(?=-)", word)
        else:
            yield word


def took(seconds: float) -> str:
    """Return how long something took, as people say it."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"

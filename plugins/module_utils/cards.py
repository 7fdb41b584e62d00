# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The error card: what is wrong, what was changed, what to do, where to read on."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

NOTHING_CHANGED = "Nothing was changed."
DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = "errors.md"
LIMITS = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EFBIG)
"""Errors of the system's that say that a user, a shell or a container may have no more."""


@dataclass(frozen=True)
class Problem:
    """One thing that a person has to mend.

    subject: the variable or the cause that leads the line.
    sentence: what is wrong with it; never the value of a secret.
    remedy: what to do about it, or an empty string.
    code: anchor on the page of errors.
    """

    subject: str
    sentence: str
    remedy: str
    code: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.sentence}"


class Card(Exception):
    """A failure that is shown as one card.

    problems: at least one Problem.
    changed: the sentence on what was and was not changed; None lets the caller fill it in.
    detail: lines of the failing tool, already free of secrets.
    """

    def __init__(
        self, problems: list[Problem], changed: str | None = None, detail: list[str] | None = None
    ) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems
        self.changed = changed
        self.detail = detail or []

    @classmethod
    def of(
        cls,
        subject: str,
        sentence: str,
        remedy: str,
        code: str,
        changed: str | None = None,
        detail: list[str] | None = None,
    ) -> Card:
        """Make a card of a single problem."""
        return cls([Problem(subject, sentence, remedy, code)], changed, detail)

    def render(self) -> str:
        """Return the card's text, without a closing line break."""
        remedies = unique(problem.remedy for problem in self.problems if problem.remedy)
        codes = unique(problem.code for problem in self.problems)
        lines = [str(problem) for problem in self.problems]
        lines += [f"  | {line}" for line in self.detail]
        lines.append(self.changed or NOTHING_CHANGED)
        lines += [f"Do: {remedy}" for remedy in remedies]
        lines.append(f"Docs: {where_to_read(codes)}")
        return "\n".join(lines)


def limit_card(error: OSError, changed: str | None = None) -> Card:
    """Return the card of one of LIMITS."""
    return Card.of(
        "limit",
        f"{error.strerror or error}.",
        "raise what limits this shell (`ulimit -a`), user or container, then run it again.",
        "limit",
        changed,
    )


def where_to_read(codes: Iterable[str]) -> str:
    """Return the sections on the page of errors: by a path from here in a checkout, else with the folder's own."""
    if DOCS.parent == Path.cwd():
        return " ".join(f"{DOCS.name}/{PAGE}#{code}" for code in codes)
    sections = " ".join(f"{PAGE}#{code}" for code in codes)
    home, folder = os.path.expanduser("~"), str(DOCS)
    short = f"~{folder[len(home) :]}" if folder.startswith(f"{home}/") else folder
    return f"{sections} in {short}"


def unique(items: Iterable[str]) -> list[str]:
    """Return the items in their order, each once."""
    return list(dict.fromkeys(items))

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of settings: what may be said, what is so without a word, and how the Worker is told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from .values import Reader, canonical, duration


@dataclass(frozen=True)
class Kind:
    """What values a setting takes; how one is read, the checks know."""

    python: ClassVar[str] = "str"
    """Type of the field that holds it."""

    @property
    def default(self) -> Any:
        """The value without a word."""
        return ""

    @property
    def shown_default(self) -> str:
        """The default as the documentation shows it."""
        return f"`{self.default}`" if self.default != "" else ""

    @property
    def schema(self) -> str:
        """How the Worker reads it: an expression of worker/src/config/kinds.ts."""
        return "text"

    def for_worker(self, value: Any) -> str:
        """Return the text of the Worker's variable."""
        return str(value)


class Judged(Kind, ABC):
    """A kind that reads a value by itself: what is right does not depend on another setting."""

    @abstractmethod
    def read(self, reader: Reader, variable: str) -> Any:
        """Return what was said, or the default; what is wrong is noted by the reader."""


@dataclass(frozen=True)
class Choice(Judged):
    """One of some words; the first is the default."""

    words: tuple[str, ...]

    @property
    def default(self) -> str:
        """The value without a word."""
        return self.words[0]

    @property
    def schema(self) -> str:
        """How the Worker reads it."""
        return f"choice({', '.join(map(literal, self.words))})"

    def read(self, reader: Reader, variable: str) -> str:
        """Return what was said, or the default."""
        return reader.choice(variable, self.words)


@dataclass(frozen=True)
class Flag(Judged):
    """Yes or no."""

    python: ClassVar[str] = "bool"
    usual: bool = False

    @property
    def default(self) -> bool:
        """The value without a word."""
        return self.usual

    @property
    def schema(self) -> str:
        """How the Worker reads it."""
        return "flag"

    @property
    def shown_default(self) -> str:
        """The default as the documentation shows it."""
        return f"`{self.for_worker(self.usual)}`"

    def read(self, reader: Reader, variable: str) -> bool:
        """Return what was said, or the default."""
        return reader.boolean(variable, default=self.usual)

    def for_worker(self, value: bool) -> str:
        """Return the text of the Worker's variable."""
        return "true" if value else "false"


@dataclass(frozen=True)
class Duration(Judged):
    """A time, in seconds."""

    python: ClassVar[str] = "int"
    least: int
    most: int
    usual: int

    @property
    def default(self) -> int:
        """The value without a word."""
        return self.usual

    @property
    def schema(self) -> str:
        """How the Worker reads it."""
        limits = (duration(one) for one in (self.usual, self.least, self.most))
        return f"duration({', '.join(map(literal, limits))})"

    @property
    def shown_default(self) -> str:
        """The default as the documentation shows it."""
        return f"`{duration(self.usual)}`"

    def read(self, reader: Reader, variable: str) -> int:
        """Return what was said, or the default."""
        return reader.duration(variable, self.least, self.most, self.usual)

    def for_worker(self, value: int) -> str:
        """Return the text of the Worker's variable."""
        return duration(value)


@dataclass(frozen=True)
class Port(Kind):
    """A port of 127.0.0.1 that a user's program may take."""

    python: ClassVar[str] = "int"
    usual: int

    @property
    def default(self) -> int:
        """The value without a word."""
        return self.usual


@dataclass(frozen=True)
class Number(Kind):
    """A whole number; 0 when nobody said."""

    python: ClassVar[str] = "int"
    least: int
    most: int

    @property
    def default(self) -> int:
        """The value without a word."""
        return 0

    @property
    def schema(self) -> str:
        """How the Worker reads it."""
        return f"number({self.least}, {self.most})"

    def for_worker(self, value: int) -> str:
        """Return the text of the Worker's variable."""
        return str(value or "")


@dataclass(frozen=True)
class Text(Kind):
    """A text. read_as: how the Worker reads it."""

    usual: str = ""
    read_as: str = "text"

    @property
    def default(self) -> str:
        """The value without a word."""
        return self.usual

    @property
    def schema(self) -> str:
        """How the Worker reads it."""
        return self.read_as


@dataclass(frozen=True)
class Texts(Kind):
    """A list of texts. item: how the Worker reads one; as_json: where a comma may be in one."""

    python: ClassVar[str] = "list[str]"
    item: str = "text"
    as_json: bool = False

    @property
    def default(self) -> list[str]:
        """The value without a word."""
        return []

    @property
    def schema(self) -> str:
        """How the Worker reads it."""
        return f'json(z.array({self.item}), "[]")' if self.as_json else f"list({self.item})"

    def for_worker(self, value: list[str]) -> str:
        """Return the text of the Worker's variable."""
        return canonical(value) if self.as_json else ",".join(value)


@dataclass(frozen=True)
class Some(Judged):
    """Some of the words, in an order that says nothing. usual: those without a word."""

    python: ClassVar[str] = "list[str]"
    words: tuple[str, ...]
    usual: tuple[str, ...]

    @property
    def default(self) -> list[str]:
        """The value without a word."""
        return sorted(self.usual)

    @property
    def shown_default(self) -> str:
        """The default as the documentation shows it."""
        return f"`[{', '.join(self.default)}]`"

    def read(self, reader: Reader, variable: str) -> list[str]:
        """Return what was said, sorted, or the default."""
        return reader.some(variable, self.words, self.default)


@dataclass(frozen=True)
class Names(Kind):
    """A mapping of names to texts."""

    python: ClassVar[str] = "dict[str, str]"

    @property
    def default(self) -> dict[str, str]:
        """The value without a word."""
        return {}

    @property
    def schema(self) -> str:
        """How the Worker reads it."""
        return 'json(variables, "{}")'

    def for_worker(self, value: dict[str, str]) -> str:
        """Return the text of the Worker's variable."""
        return canonical(value)


@dataclass(frozen=True)
class Lists(Kind):
    """A mapping of names to lists of texts."""

    python: ClassVar[str] = "dict[str, list[str]]"

    @property
    def default(self) -> dict[str, list[str]]:
        """The value without a word."""
        return {}


@dataclass(frozen=True)
class Secret(Kind):
    """What is never shown, and is in no field. of_worker: name of the Worker's secret; empty for none."""

    of_worker: str = ""


@dataclass(frozen=True)
class OfOnePlay(Kind):
    """What one playbook is told, about itself rather than about a deployment; in no field."""


@dataclass(frozen=True)
class Declared(Kind):
    """What the agent itself is to be, in no field: it is read from files too, and travels packed."""

    shape: str = "{}"

    @property
    def shown_default(self) -> str:
        """What is declared without a word."""
        return f"`{self.shape}`" if self.shape else ""


def literal(text: str) -> str:
    """Return a text as TypeScript writes it."""
    return f'"{text}"'

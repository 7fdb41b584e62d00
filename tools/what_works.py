# SPDX-License-Identifier: Apache-2.0
"""What of Hermes works here: docs/what-works.toml, read for its page and for the tests that hold it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from tools import ROOT

TABLE = ROOT / "docs" / "what-works.toml"
WORDS = ("works", "same", "untried", "off", "no")
TOOL_PLACES = ("a process", "with `hermes_host_tools`", "a container", "Cloudflare")
CHANNEL_PLACES = ("asleep", "a process", "a container", "Cloudflare")


@dataclass(frozen=True)
class Row:
    """A toolset or a platform: what it does, what it takes, how it is in each place, the tests that say so."""

    name: str
    does: str
    places: tuple[str, ...]
    takes: str = ""
    by: str = ""
    """Of a platform, worker: a channel of hermes_channels or the Worker's own; hermes: Hermes' own alone.

    Of a toolset, channels: the API offers it nowhere.
    """
    packages: tuple[str, ...] = ()
    """What it needs that neither Hermes nor a feature brings."""
    tests: tuple[str, ...] = ()


@cache
def rows(kind: str) -> tuple[Row, ...]:
    """Return the rows of one kind, toolset or platform. Raises TypeError for a row that has more than a row has."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    found = []
    for given in table[kind]:
        lists = {key: tuple(value) for key, value in given.items() if isinstance(value, list)}
        row = Row(**(given | lists))
        named = (test.partition("::") for test in row.tests)
        tests = tuple(f"{table['files'].get(file, file)}::{name}" for file, _colons, name in named)
        found.append(Row(**(vars(row) | {"tests": tests})))
    return tuple(found)


def others() -> dict[str, str]:
    """Return the toolsets that cannot be chosen by themselves, and what each is."""
    return dict(tomllib.loads(TABLE.read_text(encoding="utf-8"))["others"])


def page() -> str:
    """Return the generated part of the page, as Markdown."""
    besides = "; ".join(f"`{name}`, {is_}" for name, is_ in others().items())
    platforms = {
        by: [row for row in rows("platform") if row.by == by] for by in ("worker", "hermes")
    }
    sections = [
        ("Tools", _table("toolset", TOOL_PLACES, rows("toolset"))),
        ("", [f"Besides there are {besides}."]),
        ("By what people write", _table("platform", CHANNEL_PLACES, platforms["worker"])),
        ("By Hermes' own channels", _table("platform", CHANNEL_PLACES, platforms["hermes"])),
    ]
    lines = []
    for title, body in sections:
        lines += [*([f"## {title}", ""] if title else []), *body, ""]
    return "\n".join(lines[:-1]) + "\n"


def _table(kind: str, places: tuple[str, ...], listed: Iterable[Row]) -> list[str]:
    head = (kind, "", "takes", *places)
    cells = [(f"`{row.name}`", row.does, _takes(row), *row.places) for row in listed]
    lines = [head, ("---",) * len(head), *cells]
    return [f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines]


def _takes(row: Row) -> str:
    packages = ", ".join(f"`{name}`" for name in row.packages)
    needs = [*filter(None, (row.takes, packages and f"{packages} of `hermes_packages`"))]
    return "" if set(row.places) == {"no"} else "; ".join(needs)

# SPDX-License-Identifier: Apache-2.0
"""The shape of an answer: its fields and their types, without its values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

NAMED_BY_DATA = frozenset({"secrets", "images", "exports", "repositories"})
"""Mappings whose keys are names that somebody chose."""


def shape(value: Any) -> Any:
    """Return a value's shape: a mapping of shapes, a list with the shape of its first item, or a type's name."""
    if isinstance(value, dict):
        return {
            name: "mapping" if name in NAMED_BY_DATA else shape(one) for name, one in value.items()
        }
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, bool) or value is None:
        return type(value).__name__
    return "number" if isinstance(value, int | float) else type(value).__name__


def lacks(wanted: Any, found: Any, where: str = "") -> Iterator[str]:
    """Tell what one shape has and another lacks. Empty lists and nulls say nothing about what they would hold."""
    if "NoneType" in (wanted, found) or [] in (wanted, found):
        return
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name, one in wanted.items():
            if name in found:
                yield from lacks(one, found[name], f"{where}.{name}")
            else:
                yield f"{where}.{name} is missing"
    elif isinstance(wanted, list) and isinstance(found, list):
        yield from lacks(wanted[0], found[0], f"{where}[]")
    elif wanted != found:
        yield f"{where or '.'} is {kind(found)}, not {kind(wanted)}"


def kind(one: Any) -> str:
    """Return a shape's outermost type."""
    if isinstance(one, dict):
        return "a mapping"
    return "a list" if isinstance(one, list) else str(one)

# SPDX-License-Identifier: Apache-2.0
"""The page of what works is made of words that it explains, and of what tests hold."""

from __future__ import annotations

import pytest
from test_mutants import exists

from tests.mutants.patches import NamedTest
from tools import what_works
from tools.what_works import Row

ROWS = [*what_works.rows("toolset"), *what_works.rows("platform")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_its_words_are_those_of_the_page(row: Row) -> None:
    assert len(row.places) == len(what_works.TOOL_PLACES) == len(what_works.CHANNEL_PLACES)
    assert set(row.places) <= set(what_works.WORDS)
    page = (what_works.ROOT / "docs" / "what-works.md").read_text()
    assert [word for word in row.places if f"| {word} | " not in page] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_works_is_held_by_a_test_that_is_there(row: Row) -> None:
    assert ("works" in row.places) is bool(row.tests)
    assert "works" in row.places or "same" not in row.places, "the same as what?"
    assert [test for test in row.tests if not exists(NamedTest.of(test))] == []

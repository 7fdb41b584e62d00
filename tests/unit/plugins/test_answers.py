# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What a person says to one play is understood, or refused."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.plugin_utils.inputs.answers import (
    line_count,
    yes_or_no,
)


@pytest.mark.parametrize("answer", ["y", "Y", "yes", " Yes ", "true", "on", "1", 1, True])
def test_yes(answer: Any) -> None:
    assert yes_or_no("hermes_confirm", answer) is True


@pytest.mark.parametrize("answer", ["n", "no", "No", "false", "off", "0", 0, False, "", None])
def test_no(answer: Any) -> None:
    assert yes_or_no("hermes_confirm", answer) is False


@pytest.mark.parametrize("answer", ["maybe", "yess", "2", ["yes"], "yes please"])
def test_words_that_are_neither_are_refused(answer: Any) -> None:
    with pytest.raises(Card, match=r"confirm: .* is neither yes nor no"):
        yes_or_no("hermes_confirm", answer)


@pytest.mark.parametrize(("said", "count"), [("40", 40), (1, 1), (" 10000 ", 10_000)])
def test_a_number_of_lines(said: Any, count: int) -> None:
    assert line_count("hermes_log_lines", said) == count


@pytest.mark.parametrize("said", ["abc", "0", "-5", "10001", "4.5", True, "", [], "٤"])
def test_what_is_no_number_of_lines_is_refused(said: Any) -> None:
    with pytest.raises(Card, match=r"lines: .* is no number of lines"):
        line_count("hermes_log_lines", said)

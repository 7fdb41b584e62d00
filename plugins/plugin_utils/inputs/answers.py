# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person says to one play, by a variable or at its prompt; what cannot be understood is never guessed at."""

from __future__ import annotations

import re
from typing import Any

from ...module_utils.cards import Card
from ...module_utils.settings.values import FALSE, TRUE, show

YES, NO = (*TRUE, "y", "t"), (*FALSE, "n", "f", "")
MOST_LINES = 10_000


def yes_or_no(variable: str, value: Any) -> bool:
    """Return an answer as a truth; none is a no. Raises a Card for words that are neither."""
    text = "" if value is None else str(value).strip().lower()
    if text in (*YES, *NO):
        return text in YES
    raise Card.of(variable, f"{show(value)} is neither yes nor no.", "say yes or no.", "inputs")


def line_count(variable: str, value: Any) -> int:
    """Return how many lines to show. Raises a Card for what is no such number."""
    text = str(value).strip()
    if re.fullmatch("[0-9]{1,5}", text) and 1 <= int(text) <= MOST_LINES:
        return int(text)
    raise Card.of(
        variable,
        f"{show(value)} is no number of lines from 1 to {MOST_LINES}.",
        f"say for example {variable}=40.",
        "inputs",
    )

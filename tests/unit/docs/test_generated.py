# SPDX-License-Identifier: Apache-2.0
"""What is said of the settings elsewhere is as the catalogue has it."""

from __future__ import annotations

import pytest

from tools import generate


@pytest.mark.parametrize("name", generate.FILES)
def test_it_is_as_the_catalogue_makes_it(name: str) -> None:
    text = (generate.ROOT / name).read_text(encoding="utf-8")
    assert generate.FILES[name](text) == text, "run `make generate`"


def test_each_setting_says_what_it_is_for() -> None:
    silent = [one.variable for one in generate.SETTINGS if not one.text]
    assert silent == []

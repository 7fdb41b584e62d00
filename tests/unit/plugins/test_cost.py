# SPDX-License-Identifier: Apache-2.0
"""What a deployment on Cloudflare costs, before it runs and afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.action import deployment_info
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare import cost

HOUR = 3600


def test_a_month_is_within_what_was_worked_out_by_hand() -> None:
    # One sitting of half an hour a day, standard-1.
    assert 4.86 <= cost.month("standard-1", 4 * HOUR) <= 5.16
    assert 0.50 <= cost.month("standard-1", 600) <= 0.98


def test_the_estimate_says_what_a_shorter_idle_time_saves_when_that_is_much() -> None:
    assert "hermes_sleep_after: 10m" in cost.words("standard-1", 4 * HOUR)
    assert "hermes_sleep_after" not in cost.words("standard-1", 900)


def test_what_ran_costs_its_memory_and_disk() -> None:
    # 4 GiB and 8 GB for ten hours: 144,000 GiB-s and 288,000 GB-s.
    assert cost.ran("standard-1", 10 * HOUR) == pytest.approx(0.36 + 0.02016)


@pytest.mark.parametrize(
    ("running", "text"),
    [
        ({}, None),
        ({"today": 0, "month": 0, "lastMonth": 0}, None),
        ({"today": 61, "month": 7200, "lastMonth": 0}, "2 min today, 2 h 00 min this month"),
        ({"today": 0, "month": 0, "lastMonth": 45000}, "12 h 30 min last month"),
    ],
)
def test_how_long_it_ran(running: dict[str, Any], text: str | None) -> None:
    assert deployment_info.ran(running) == text


def test_only_what_is_billed_has_a_price() -> None:
    assert deployment_info.billed(None, {"month": HOUR}) is None
    billed = deployment_info.billed("standard-1", {"month": 10 * HOUR})
    assert billed is not None
    assert billed.startswith("at most $0.38 this month")

# SPDX-License-Identifier: Apache-2.0
"""What a deployment on Cloudflare costs, before it runs and afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.action import check_inventory, deployment_info
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare import cost
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.account import Account

HOUR = 3600
PAGE = (Path(__file__).parents[3] / "docs" / "cloudflare.md").read_text()


def test_a_month_is_within_what_was_worked_out_by_hand() -> None:
    # One sitting of half an hour a day, standard-1.
    assert 4.86 <= cost.month("standard-1", 4 * HOUR) <= 5.16
    assert 0.50 <= cost.month("standard-1", 600) <= 0.98


@pytest.mark.parametrize(
    ("deployments", "sleep_after", "dollars"),
    [(1, 600, 0.60), (1, 4 * HOUR, 5.03), (10, 600, 1.25), (10, 4 * HOUR, 5.68)],
)
def test_what_the_plan_includes_is_there_once_for_an_account(
    deployments: int, sleep_after: int, dollars: float
) -> None:
    assert round(cost.month("standard-1", sleep_after, deployments), 2) == dollars
    assert f"about ${dollars:.2f} a month" in cost.words("standard-1", sleep_after, deployments)
    assert f"${dollars:.2f} a month" in PAGE


def test_ten_deployments_are_billed_what_one_bill_over_all_of_them_says() -> None:
    # By hand, ten standard-1 of 40 minutes a day: 2,920,000 GiB-s, 273,750 vCPU-s and 5,840,000 GB-s, less the plan's
    # 90,000, 22,500 and 720,000.
    whole = 2_830_000 * 0.0000025 + 251_250 * 0.000020 + 5_120_000 * 0.00000007
    assert 10 * cost.month("standard-1", 600, 10) == pytest.approx(whole)


def test_the_account_counts_everybody_once() -> None:
    account = Account(ours=["alice", "stranger"], named=["alice", "bob"])
    assert account.deployments("bob") == 3
    assert account.deployments("carol") == 4
    assert Account().deployments("alice") == 1


def test_the_whole_inventory_shares_an_account() -> None:
    # Also hosts that the play leaves out, and those that take the account from the environment of the play.
    account = {"hermes_account_id": "A" * 32}
    hosts = {
        "alice": account,
        "bob": account | {"hermes_name": "robert", "hermes_platform": "cloudflare"},
        "carol": account | {"hermes_platform": "workerd"},
        "dave": {"hermes_account_id": "b" * 32},
        "eve": {},
    }
    action = object.__new__(check_inventory.ActionModule)
    action.task_vars = {"groups": {"all": list(hosts)}, "hostvars": hosts}
    assert action._named_in("a" * 32) == ["alice", "eve", "robert"]


def test_what_wakes_it_besides_a_person_is_counted() -> None:
    # Three minutes of memory and disk and one of the processor, 730 times; five hours of memory and disk each day.
    assert cost.further("standard-1", 4 * HOUR, HOUR) == (
        "a job each hour about $1.83 a month more, a forgotten dashboard each day about $5.78"
    )
    assert "costs $1.83 a month" in PAGE
    assert "$5.78 a month when that happens each day" in PAGE
    assert "dashboard" not in cost.further("standard-1", 4 * HOUR, None)


def test_the_cards_know_the_account_and_the_dashboard() -> None:
    settings = Settings(deployments=10, dashboard_hostname="hermes.example.com")
    assert cost.estimates(settings) == [
        cost.words("standard-1", 4 * HOUR, 10),
        cost.further("standard-1", 4 * HOUR, HOUR),
    ]
    assert "dashboard" not in cost.estimates(Settings())[1]


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
        ({"month": 7200, "atMost": True}, "at most 2 h 00 min this month"),
        ({"month": 0, "atMost": True}, None),
    ],
)
def test_how_long_it_ran(running: dict[str, Any], text: str | None) -> None:
    assert deployment_info.ran(running) == text


def test_a_month_has_a_price_where_the_size_is_known() -> None:
    billed = deployment_info.billed("standard-1", {"month": 10 * HOUR})
    assert billed.startswith("at most $0.38 this month")
    assert deployment_info.billed("huge", {"month": HOUR}) == "not known for the size huge"
    assert deployment_info.billed(None, {}).startswith("not known")

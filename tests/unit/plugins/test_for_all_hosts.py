# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What is done once for all hosts of a play: the check of the inventory, the plans, and what became of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.action import (
    check_inventory,
    show_plan,
    show_results,
)
from deployed_here import DeployedHere

HOSTS = ["alice", "bob", "carol"]
ACCOUNT = "0123456789abcdef0123456789abcdef"
CHANGE = {"action": "create", "what": "worker", "detail": "version 1", "restarts": ""}
CLOUDFLARE = {
    "hermes_account_id": ACCOUNT,
    "cloudflare_api_token": "token-canary",
    "hermes_platform": "cloudflare",
}


class Fleet(DeployedHere):
    """A play for some hosts, with what each of them has registered."""

    def play(
        self, action: Any, options: Any = None, hosts: Any = (), **more: Any
    ) -> dict[str, Any]:
        variables = {
            "ansible_play_hosts_all": HOSTS,
            "ansible_play_batch": HOSTS,
            "groups": {"all": HOSTS},
            "hostvars": {host: {} for host in HOSTS} | dict(hosts),
        }
        return self.run(action.ActionModule, options, **(variables | more))


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.chdir(tmp_path)
    return Fleet(tmp_path)


def plan(*changes: Any, **more: Any) -> dict[str, Any]:
    rows = [["name", "x", "the host's name"]]
    return {"preflight_result": {"changes": list(changes), "rows": rows} | more}


def test_a_plan_without_changes_says_so(fleet: Fleet) -> None:
    hosts = {"alice": plan(), "bob": {"preflight_result": {"failed": True}}}
    shown = fleet.play(show_plan, hosts=hosts)["shown"]
    assert shown[-1] == "No changes. 0 calls written."
    assert "Plan for alice" in shown and "Plan for bob" not in shown


def test_what_is_in_an_account_and_in_no_inventory_is_told(fleet: Fleet) -> None:
    unlisted = [{"name": "dave", "account_id": ACCOUNT}]
    shown = fleet.play(show_plan, {"unlisted_deployments": unlisted})["shown"]
    words = f"Not in this inventory: dave (account {ACCOUNT}). Nothing is done to them."
    assert shown[-1] == words


def test_of_many_hosts_only_those_that_change_are_shown(fleet: Fleet) -> None:
    many = [f"host{n}" for n in range(30)]
    hosts = {host: plan() for host in many} | {"host7": plan(CHANGE)}
    result = fleet.play(
        show_plan, hosts=hosts, ansible_play_hosts_all=many, ansible_play_batch=many
    )
    assert result["shown"] == [
        "",
        "host7",
        "  create  worker     version 1",
        "",
        "Plan: 1 to create, 0 to update, 29 unchanged. Restarts: none.",
    ]


DONE = plan() | {"verify_result": {"url": "http://alice", "version": "1"}}
FAILED = {"preflight_result": {"failed": True, "msg": "bob: no.", "hermes_card": True}}


def test_the_table_is_of_those_that_have_begun(fleet: Fleet) -> None:
    alone = fleet.play(show_results, hosts={"alice": DONE})
    assert "shown" not in alone and alone["failed_deployments"] == []
    result = fleet.play(show_results, hosts={"alice": DONE, "bob": FAILED})
    assert result["failed_deployments"] == ["bob"]
    shown = "\n".join(result["shown"])
    assert "alice" in shown and "bob" in shown and "carol" not in shown


@pytest.mark.parametrize(("most", "ends"), [(40.0, True), (50.0, False)])
def test_too_many_failures_of_a_batch_end_the_play_before_the_next(
    fleet: Fleet, most: float, ends: bool
) -> None:
    options = {"batch": ["alice", "bob"], "max_fail_percentage": most}
    result = fleet.play(show_results, options, {"alice": DONE, "bob": FAILED})
    assert bool(result.get("failed")) is ends
    if ends:
        assert "1 of the 2 deployments of this batch failed, and 40% may." in result["msg"]
        assert "Not begun: carol." in result["msg"]


def test_after_the_last_batch_no_failure_ends_anything(fleet: Fleet) -> None:
    options = {"batch": HOSTS, "max_fail_percentage": 0.0}
    result = fleet.play(show_results, options, dict.fromkeys(HOSTS, FAILED))
    assert not result.get("failed") and result["failed_deployments"] == HOSTS


def test_what_is_ours_in_an_account_and_no_host_is_found(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = SimpleNamespace(ours=["alice", "dave"], as_dict=dict)
    monkeypatch.setattr(check_inventory.ActionModule, "_survey", lambda *_: survey)
    result = fleet.play(check_inventory, hosts={"alice": CLOUDFLARE})
    assert result["unlisted_deployments"] == [{"name": "dave", "account_id": ACCOUNT}]
    assert list(result["accounts"].values()) == [{}] and result["batch"] == HOSTS
    assert "canary" not in str(result)


def test_two_hosts_of_one_hostname_are_refused_before_anybody_is_asked(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_inventory.ActionModule, "_survey", None)
    same = CLOUDFLARE | {"hermes_dashboard_hostname": "chat.example.com"}
    result = fleet.play(check_inventory, hosts={"alice": same, "bob": same})
    words = "hermes_dashboard_hostname: alice and bob both are chat.example.com."
    assert result["failed"] and result["msg"].startswith(words)

# SPDX-License-Identifier: Apache-2.0
"""Two deployments in one inventory know nothing of each other."""

from __future__ import annotations

import re
from collections.abc import Callable

from plays import Deployment, run_play


def test_two_deployments_share_nothing(make_deployment: Callable[..., Deployment]) -> None:
    alice, bob = make_deployment("alice"), make_deployment("bob")
    play = run_play("deploy", [alice, bob])
    assert play.code == 0, play.output

    assert alice.token != bob.token
    assert alice.call("GET", "/api/health", token=bob.token).status == 401

    alice.chat("I am Alice and I like figs.", session="shared-name")
    assert "figs" not in bob.chat("What do you know?", session="shared-name").said

    bob.play("destroy", "-e", "hermes_confirm=yes", "-e", "hermes_forget=true")
    assert not bob.state.exists()
    assert "figs" in alice.chat("Are you still there?", session="shared-name").said


def test_one_failing_deployment_does_not_stop_the_other(
    make_deployment: Callable[..., Deployment],
) -> None:
    good = make_deployment("good")
    bad = make_deployment("bad", hermes_default_model="acme/unknown")
    play = run_play("deploy", [bad, good])
    assert play.code != 0
    assert "hermes_default_model" in play.output
    assert good.chat("Hello").status == 200
    assert not bad.state.exists()

    row = re.search(
        rf"^good +{good.url} +\w{{16}} +yes +ok, Hermes is awake +[\d.]+ s$",
        play.output,
        re.MULTILINE,
    )
    assert row, play.output
    assert re.search(r"^bad .* hermes_default_model: 'acme/unknown'", play.output, re.MULTILINE), (
        play.output
    )
    assert "2 deployments: 1 changed, 1 failed." in play.output


def test_the_table_is_shown_when_every_deployment_of_a_batch_fails(
    make_deployment: Callable[..., Deployment],
) -> None:
    hosts = [make_deployment(f"bad-{n}", hermes_default_model="acme/unknown") for n in range(2)]
    play = run_play("deploy", hosts, "-e", "hermes_serial=2")
    assert play.code != 0
    assert "2 deployments: 0 changed, 2 failed." in play.output


def test_a_limit_of_failures_that_is_none_is_refused_before_anything_is_changed(
    make_deployment: Callable[..., Deployment],
) -> None:
    hosts = [make_deployment(f"fine-{n}") for n in range(2)]
    play = run_play(
        "deploy", hosts, "-e", "hermes_serial=1", "-e", "hermes_max_fail_percentage=few"
    )
    assert play.code != 0
    assert "hermes_max_fail_percentage: 'few' is no number from 0 to 100." in play.output
    assert "Nothing was changed." in play.output
    assert not any(host.state.exists() for host in hosts)


def test_a_plan_counts_the_deployments_of_its_batch(
    make_deployment: Callable[..., Deployment],
) -> None:
    hosts = [make_deployment(f"batched-{n}") for n in range(3)]
    play = run_play("deploy", hosts, "--check", "-e", "hermes_serial=2")
    assert play.code == 0, play.output
    plans = re.findall(
        r"^Plan: (\d+) to create, 0 to update, 0 unchanged", play.output, re.MULTILINE
    )
    assert plans == ["2", "1"], play.output
    assert re.findall(r"^Plan for (\S+)$", play.output, re.MULTILINE) == [h.name for h in hosts]

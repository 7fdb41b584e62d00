# SPDX-License-Identifier: Apache-2.0
"""Two deployments in one inventory know nothing of each other."""

from __future__ import annotations

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

    bob.play("destroy", "-e", "confirm=yes", "-e", "hermes_forget=true")
    assert not bob.state.exists()
    assert "figs" in alice.chat("Are you still there?", session="shared-name").said


def test_one_failing_deployment_does_not_stop_the_other(
    make_deployment: Callable[..., Deployment],
) -> None:
    good = make_deployment("good")
    bad = make_deployment("bad", hermes_default_model="acme/unknown")
    play = run_play("deploy", [good, bad])
    assert play.code != 0
    assert "hermes_default_model" in play.output
    assert good.chat("Hello").status == 200
    assert not bad.state.exists()

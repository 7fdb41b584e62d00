# SPDX-License-Identifier: Apache-2.0
"""Hermes in a container of Podman, whose Docker-compatible service differs from Docker's API in places."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.docker import DockerEngine
from ansible_collections.hermes.workers.plugins.plugin_utils.containers import network
from contained import (
    DECLARED,
    Contained,
    assert_declared,
    hand_over,
    in_container,
    keeps_an_appointment,
    remembering,
    speaking_to,
)
from plays import Deployment

from tests.docker.engine import Docker, build_sidecar, load_base
from tests.docker.podman import Podman
from tests.standins.provider import Provider


@pytest.fixture(scope="module")
def podman(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Podman with the image that an earlier module built, if one did."""
    with Podman(tmp_path_factory.mktemp("podman")) as running:
        hand_over(docker, running.engine)
        yield running


@pytest.fixture(scope="module")
def base(podman: Podman) -> str:
    return load_base(podman.engine)


@pytest.fixture(scope="module")
def contained(
    podman: Podman, base: str, provider: Provider, make_deployment: Callable[..., Deployment]
) -> Contained:
    engine = podman.engine
    made = make_deployment(
        "podman",
        **in_container(engine, base, build_sidecar(engine, base)),
        **speaking_to(provider),
        **DECLARED,
    )
    contained = Contained(made, engine)
    assert "deployed and verified" in contained.deploy().output
    return contained


@pytest.fixture(scope="module")
def in_the_open(contained: Contained, podman: Podman, provider: Provider) -> Iterator[Provider]:
    """A provider that containers reach by themselves, at an address that is there while one of them is."""
    with Provider(provider.key, host=podman.engine.gateway) as reached:
        yield reached


def test_a_container_that_cannot_call_this_machine_is_noticed(podman: Podman, base: str) -> None:
    """Before the image is built: Hermes would start and no provider would answer it."""
    engine = DockerEngine(str(podman.engine.socket))
    engine.keep_running("holder", base, ["sleep", "600"])
    assert network.why_unreachable(engine, base) == ""
    hosts = podman.hosts.read_text()
    podman.hosts.write_text("")
    try:
        assert "not known" in network.why_unreachable(engine, base)
    finally:
        podman.hosts.write_text(hosts)
        engine.remove_container("holder")


def test_it_is_deployed_once(contained: Contained) -> None:
    assert contained.deployment.deploy().changed("podman") == 0


def test_it_sleeps_and_remembers(contained: Contained, provider: Provider) -> None:
    with remembering(contained, provider):
        contained.sleep()
        assert not contained.is_running()


def test_what_is_declared_is_laid_over_an_older_backup(
    contained: Contained, provider: Provider
) -> None:
    deployment = contained.deployment
    play = deployment.play("backup")
    assert play.code == 0, play.output
    (older,) = (deployment.home / "backups").glob(f"{deployment.name}-*.hermes")
    deployment.variables["hermes_soul"] = {"text": "You live in a windmill."}
    assert "Restarts: podman (workerd)." in deployment.deploy().output
    play = deployment.play("restore", "-e", f"hermes_backup={older}")
    assert play.code == 0, play.output
    for asleep in (False, True):
        if asleep:
            contained.sleep()
        assert deployment.chat("Where do you live?").status == 200
        asked = [seen.body["messages"] for seen in provider.seen if seen.body]
        assert_declared(contained, str(asked[-1]))
    assert deployment.deploy().changed("podman") == 0


def test_a_job_that_is_due_while_it_sleeps_runs_in_time_and_once(
    contained: Contained, provider: Provider
) -> None:
    keeps_an_appointment(contained, provider, "Water the ferns.")


def test_it_outlives_workerd(contained: Contained, provider: Provider) -> None:
    with remembering(contained, provider):
        running = contained.hermes
        contained.workerd().kill()
        assert contained.deployment.chat("Still there?").status == 200
        assert contained.hermes == running


def test_a_job_runs_with_a_key_that_hermes_holds(
    contained: Contained, in_the_open: Provider
) -> None:
    """It speaks to the provider by itself then, out of its container."""
    direct = speaking_to(in_the_open) | {"hermes_provider_keys": "environment"}
    contained.deployment.variables.update(direct)
    contained.deployment.deploy()
    keeps_an_appointment(contained, in_the_open, "Water the ferns with a key of your own.")


def test_destroy_leaves_nothing(contained: Contained) -> None:
    contained.deployment.chat("The last words.")
    confirm = ("-e", "hermes_confirm=yes", "-e", "hermes_forget=true")
    play = contained.deployment.play("destroy", *confirm)
    assert play.code == 0, play.output
    assert contained.engine("ps", "--all", "--quiet") == ""
    assert contained.images() == []

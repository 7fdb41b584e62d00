# SPDX-License-Identifier: Apache-2.0
"""A Docker engine in trouble: no disk left in the container, and the engine itself restarted."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest
from contained import Contained, hand_over, in_container, remembering, speaking_to
from plays import Answer, Deployment, wait_until

from tests.docker.engine import Daemon, Docker, build_sidecar, load_base
from tests.standins.provider import Provider

DISK = "2g"
FILLER = "/root/filler"


@pytest.fixture(scope="module")
def daemon(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """An engine of this module's own on a small disk, with the image that an earlier module built, if one did."""
    data = tmp_path_factory.mktemp("small-disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(data)], check=True)
    try:
        with Daemon(tmp_path_factory.mktemp("small"), data) as running:
            hand_over(docker, running.engine)
            yield running
    finally:
        subprocess.run(["umount", str(data)], check=True)


@pytest.fixture(scope="module")
def troubled(
    daemon: Daemon, provider: Provider, make_deployment: Callable[..., Deployment]
) -> Contained:
    engine = daemon.engine
    base = load_base(engine)
    place = in_container(engine, base, build_sidecar(engine, base))
    return Contained.deployed(make_deployment, "troubled", engine, **place, **speaking_to(provider))


@pytest.fixture(autouse=True)
def memory(troubled: Contained, provider: Provider) -> Iterator[None]:
    """What was said and saved before the trouble is known after it."""
    with remembering(troubled, provider):
        yield


def fill(troubled: Contained) -> None:
    troubled.inside("dd", "if=/dev/zero", f"of={FILLER}", "bs=1M", check=False)


def backup(troubled: Contained) -> Answer:
    return troubled.deployment.call("POST", "/api/instance/backups")


def restart(troubled: Contained, how: str = "") -> Answer:
    return troubled.deployment.call("POST", f"/api/instance/restart{how}")


def test_a_full_container_serves_on_and_says_what_it_cannot_save(troubled: Contained) -> None:
    fill(troubled)
    assert troubled.deployment.chat("Nobody can write this down.").status == 200
    refused = backup(troubled)
    assert (refused.status, refused.json["error"]["code"]) == (503, "disk_full")
    assert troubled.deployment.status()["lastSaveError"]["code"] == "disk_full"
    wait_until(lambda: "save_failed" in troubled.events(), "the log has it")
    troubled.inside("rm", FILLER)
    assert backup(troubled).status == 200
    assert troubled.deployment.status()["lastSaveError"] is None


def test_a_full_container_is_given_up_by_force_alone(troubled: Contained) -> None:
    fill(troubled)
    troubled.deployment.chat("Nobody can write this down.")
    refused = restart(troubled)
    assert (refused.status, refused.json["error"]["code"]) == (503, "disk_full")
    assert troubled.deployment.instance_state() == "awake"
    assert restart(troubled, "?force=true").status == 200
    assert "No such file" in troubled.inside("ls", FILLER, check=False)


def wake(troubled: Contained) -> Answer:
    return troubled.deployment.call("POST", "/api/instance/wake")


def is_told(answer: Answer) -> bool:
    """Tell whether an answer says that it is for want of the container engine."""
    return answer.status == 503 and "container engine" in answer.json["error"]["message"]


def test_docker_is_restarted_under_an_awake_hermes(troubled: Contained, daemon: Daemon) -> None:
    with daemon.back_afterwards():
        daemon.stop()
        answer = troubled.deployment.chat("Is anybody there?")
        assert is_told(answer), answer.text
    wait_until(lambda: wake(troubled).status == 200, "a boot")
    wait_until(lambda: "sandbox_lost" in troubled.events(), "the log has it")


def test_docker_is_restarted_during_a_boot(troubled: Contained, daemon: Daemon) -> None:
    troubled.sleep()
    before = len(troubled.events())
    with daemon.back_afterwards():
        with troubled.held_at_start(lambda: wake(troubled)) as waking:
            daemon.stop()
        answer = waking.answer()
        assert is_told(answer), answer.text
        # Who says so depends on the moment: the boot, or the gate, when the object cannot even be made without the
        # engine.
        asked = answer.json["error"]["request_id"]

        def is_logged() -> bool:
            lines = troubled.events()[before:].splitlines()
            told = [line for line in lines if '"level":"error"' in line]
            return any("boot_failed" in line or asked in line for line in told)

        wait_until(is_logged, "the log has it")
    wait_until(lambda: wake(troubled).status == 200, "a boot")

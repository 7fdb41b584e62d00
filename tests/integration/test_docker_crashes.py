# SPDX-License-Identifier: Apache-2.0
"""Crashes at the worst moments: nothing is lost but what came after the last save, and the next chat is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any

import pytest
from contained import HOME, SESSION, Contained, in_container, remembering, speaking_to
from plays import Deployment, wait_until

from tests.docker.engine import Docker
from tests.standins.provider import Provider

BULK = f"{HOME}/skills/bulk.bin"


@pytest.fixture(scope="module")
def crashing(
    make_deployment: Callable[..., Deployment],
    docker: Docker,
    base: str,
    sidecar: str,
    provider: Provider,
) -> Contained:
    variables = in_container(docker, base, sidecar) | speaking_to(provider)
    return Contained.deployed(make_deployment, "crashing", docker, **variables)


@pytest.fixture(autouse=True)
def memory(crashing: Contained, provider: Provider) -> Iterator[None]:
    """What was said and saved before a crash is known after it, and one container runs."""
    with remembering(crashing, provider):
        yield


def kill(crashing: Contained) -> None:
    crashing.engine("kill", crashing.hermes)


def test_a_container_that_dies_during_a_stream(crashing: Contained, provider: Provider) -> None:
    text = "word " * 100
    body = {"model": "hermes", "stream": True, "messages": [{"role": "user", "content": text}]}
    provider.pause = 0.1
    try:
        with crashing.deployment.open("POST", "/v1/chat/completions", body) as response:
            assert b"data:" in response.readline()
            kill(crashing)
            rest = response.read().decode()
    except (OSError, HTTPException):
        rest = ""
    finally:
        provider.pause = 0.0
    assert "[DONE]" not in rest, "a cut answer must not look complete"
    wait_until(lambda: crashing.deployment.instance_state() == "asleep", "the death is noticed", 20)
    assert crashing.deployment.status()["lastExit"]["exitCode"] == 137
    wait_until(lambda: "sandbox_ended" in crashing.events(), "the log has it")


def test_a_container_that_dies_during_a_save(crashing: Contained) -> None:
    deployment = crashing.deployment
    crashing.inside("dd", "if=/dev/urandom", f"of={BULK}", "bs=1M", "count=120")
    newest = newest_backup(deployment)
    save = crashing.while_(
        lambda: deployment.call("POST", "/api/instance/backups"),
        lambda: crashing.runs("sandbox save"),
    )
    kill(crashing)
    answer = save.answer()
    assert answer.status == 503, answer.text
    assert newest_backup(deployment) == newest, "half a backup must not count"
    assert deployment.status()["lastSaveError"] is not None
    wait_until(lambda: "save_failed" in crashing.events(), "the log has it")


def test_a_container_that_dies_during_a_restore(crashing: Contained) -> None:
    deployment = crashing.deployment
    deployment.call("POST", "/api/instance/wake")
    crashing.inside("dd", "if=/dev/urandom", f"of={BULK}", "bs=1M", "count=120")
    crashing.sleep()
    newest = newest_backup(deployment)
    crashing.engine("rmi", *crashing.snapshots())
    wake = crashing.while_(
        lambda: deployment.call("POST", "/api/instance/wake"),
        lambda: crashing.runs("sandbox restore"),
    )
    kill(crashing)
    answer = wake.answer()
    assert answer.status == 503, answer.text
    assert answer.json["error"]["message"].startswith("Hermes did not start: ")
    wait_until(lambda: "boot_failed" in crashing.events(), "the log has it")
    assert newest_backup(deployment) == newest
    wait_until(lambda: deployment.call("POST", "/api/instance/wake").status == 200, "a boot", 60)
    assert deployment.status()["restored"]["backup"] == newest
    crashing.inside("rm", BULK)


def newest_backup(deployment: Deployment) -> Any:
    backups = deployment.call("GET", "/api/instance/backups").json["backups"]
    assert all(backup["state"] == "good" for backup in backups)
    return backups[0]["id"]


def test_workerd_that_dies_during_a_boot(crashing: Contained) -> None:
    crashing.sleep()
    with crashing.held_at_start(
        lambda: crashing.deployment.call("POST", "/api/instance/wake")
    ) as wake:
        crashing.workerd().kill()
    wake.answer()


def test_a_sidecar_that_dies_takes_the_network_along_and_a_chat_brings_it_back(
    crashing: Contained,
) -> None:
    crashing.engine("kill", f"{crashing.hermes}-proxy")
    answer = crashing.deployment.chat("Are you there?")
    assert answer.status == 200, answer.text
    wait_until(lambda: "way_lost" in crashing.events(), "the log has it")


def test_fifty_requests_at_once_start_one_container(crashing: Contained) -> None:
    crashing.sleep()
    since = str(datetime.now(UTC).timestamp())

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda n: crashing.deployment.chat(f"I am number {n}."), range(50)))

    assert [answer.status for answer in answers] == [200] * 50
    until = str(datetime.now(UTC).timestamp())
    mine = ("--filter", f"label={SESSION}={crashing.session}", "--filter", "event=start")
    what = ("--format", "{{.Actor.Attributes.name}}")
    started = crashing.engine("events", "--since", since, "--until", until, *mine, *what)
    assert len([n for n in started.splitlines() if not n.endswith("-proxy")]) == 1

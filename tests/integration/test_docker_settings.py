# SPDX-License-Identifier: Apache-2.0
"""What keeps people and keys apart is in force around a container."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator

import pytest
from contained import ENVIRONMENTS, Contained, in_container
from plays import Deployment, wait_until
from security import LAST_KEY, STATES, Place, State, lose_the_token, rotate_the_token

from tests.docker.engine import Docker
from tests.standins.provider import Provider


@pytest.fixture(scope="module")
def place(
    make_deployment: Callable[..., Deployment], docker: Docker, base: str, sidecar: str
) -> Iterator[Place]:
    # To a Hermes that holds its keys itself, loopback would be its own container.
    with Provider(LAST_KEY, also="", host=docker.gateway) as provider:
        it = make_deployment(
            "locked",
            **in_container(docker, base, sidecar),
            hermes_provider="rehearsal",
            hermes_provider_base_url=provider.url + "/v1",
        )
        contained = Contained(it, docker)
        contained.deploy()
        yield Place(
            it,
            Deployment(it.name, it.home, port=it.dashboard_port),
            provider,
            lambda: contained.inside(*ENVIRONMENTS),
            it.token,
        )


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_it_is_in_force(place: Place, state: State) -> None:
    state.bring(place)


def test_a_container_has_the_tools_of_a_machine_unasked(place: Place) -> None:
    """It confines them; `hermes_host_tools` is for where nothing does."""
    assert place.it.call("POST", "/api/instance/wake").status == 200
    told = place.it.call("GET", "/v1/toolsets").json["data"]
    assert "terminal" in {one["name"] for one in told if one["enabled"]}


def test_a_command_finds_the_interpreter_that_has_the_packages(place: Place) -> None:
    """Hermes runs commands in a login shell, which begins with a path of the system's."""
    said = place.it.chat(f"call terminal {json.dumps({'command': 'command -v python3'})}").said
    assert "/opt/hermes/bin/python3" in said


def test_a_token_that_was_rotated_ends(place: Place) -> None:
    rotate_the_token(place)


def test_a_worker_without_its_token_lets_nobody_in(place: Place) -> None:
    def lose() -> None:
        words = [*place.it.supervisor().cmdline()[:2], "ctl", "change-secrets"]
        words += ["--folder", str(place.it.state)]
        subprocess.run(words, input=json.dumps({"API_TOKEN": None}), text=True, check=True)
        wait_until(lambda: place.status("") == 503, "the Worker is back")

    lose_the_token(place, lose)

# SPDX-License-Identifier: Apache-2.0
"""Real plays with a real container engine: Hermes in a container that sleeps, wakes and forgets nothing."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from contained import ENVIRONMENTS, SESSION, Contained, in_container
from plays import Deployment, wait_until

from tests.docker.engine import Docker
from tests.processes import wait_for_ends
from tests.standins.telegram import Telegram

KEY = "sk-ant-canary-" + secrets.token_hex(16)


@pytest.fixture(scope="module")
def contained(
    make_deployment: Callable[..., Deployment],
    docker: Docker,
    base: str,
    sidecar: str,
) -> Contained:
    # A key that no model uses: wherever it is found, it should not be.
    variables = in_container(docker, base, sidecar)
    made = make_deployment(
        "contained", **variables, hermes_provider="rehearsal", anthropic_api_key=KEY
    )
    contained = Contained(made, docker)
    play = contained.deploy()
    assert "container (docker)" in play.output
    assert "deployed and verified" in play.output
    return contained


def test_a_second_deploy_changes_nothing_and_wakes_nobody(contained: Contained) -> None:
    deployment = contained.deployment
    before = set(contained.containers())
    assert deployment.deploy().changed("contained") == 0
    assert set(contained.containers()) == before

    assert deployment.call("POST", "/api/instance/sleep").status == 200
    play = deployment.deploy()
    assert play.changed("contained") == 0
    assert "No changes. 0 calls written." in play.output
    assert deployment.instance_state() == "asleep"


def test_a_check_says_what_would_be_done(contained: Contained) -> None:
    images = contained.images()
    play = contained.deployment.play("deploy", "--check", "-e", "hermes_sleep_after=1h")
    assert play.code == 0, play.output
    assert play.changed("contained") == 2
    assert contained.images() == images


def test_sleep_and_wake_keep_the_conversation(contained: Contained) -> None:
    deployment = contained.deployment
    deployment.chat("The code word is plover.", session="sleeper")
    assert deployment.call("POST", "/api/instance/sleep").status == 200
    assert [n for n in contained.containers("{{.Names}}") if not n.endswith("-proxy")] == []
    answer = deployment.chat("And now?", session="sleeper")
    assert "Turn 2" in answer.said and "plover" in answer.said


def test_a_killed_workerd_finds_its_container_again(contained: Contained) -> None:
    deployment = contained.deployment
    deployment.chat("My boat is called Halcyon.", session="killed")
    running = contained.engine.inspect(contained.hermes)["Id"]
    (workerd,) = [
        process
        for process in deployment.supervisor().children()
        if "build/config.capnp" in process.cmdline()
    ]
    workerd.kill()
    answer = deployment.chat("What did I say first?", session="killed")
    assert 'You began with: "My boat is called Halcyon."' in answer.said
    assert contained.engine.inspect(contained.hermes)["Id"] == running


def test_a_setting_changes_without_a_new_container(contained: Contained) -> None:
    """workerd starts again with the new configuration; Hermes' container lives through it."""
    deployment = contained.deployment
    deployment.chat("I like figs.", session="setting")
    running = contained.engine.inspect(contained.hermes)["Id"]
    play = deployment.deploy("-e", "hermes_sleep_after=3h")
    assert play.changed("contained") == 2
    assert contained.engine.inspect(contained.hermes)["Id"] == running
    assert "figs" in deployment.chat("What do I like?", session="setting").said
    deployment.deploy()


def test_settings_reach_a_container_that_is_awake(contained: Contained) -> None:
    """By a restart of Hermes alone; what is taken away, and a key that is sealed again, is gone from every process."""
    deployment = contained.deployment
    assert deployment.chat("Are you awake?").status == 200
    running = contained.engine.inspect(contained.hermes)["Id"]
    direct = {"hermes_provider_keys": "environment", "hermes_models": ["anthropic/stand-in"]}
    for variables, wanted, unwanted in (
        ({"hermes_secrets": {"THING": "first-value"}}, ["THING=first-value"], []),
        ({"hermes_secrets": {"THING": "second-value"}}, ["THING=second-value"], ["first-value"]),
        (direct, [f"ANTHROPIC_API_KEY={KEY}"], ["THING="]),
        ({}, [], ["THING=", KEY]),
    ):
        deployment.deploy("-e", json.dumps(variables))
        environments = contained.inside(*ENVIRONMENTS)
        assert [text for text in wanted if text not in environments] == []
        assert [text for text in unwanted if text in environments] == []
    assert contained.engine.inspect(contained.hermes)["Id"] == running
    assert deployment.deploy().changed("contained") == 0


def test_the_provider_key_is_nowhere_in_the_container(contained: Contained) -> None:
    deployment, engine = contained.deployment, contained.engine
    deployment.chat("Leave traces, please.")
    deployment.call("POST", "/api/instance/backups")

    for container in contained.containers():
        assert KEY not in engine("inspect", container)
        assert KEY not in engine("exec", container, *ENVIRONMENTS)
    search = f"grep -rlaF {KEY} /dev/shm /run /tmp /root; true"
    assert engine("exec", contained.hermes, "sh", "-c", search) == ""
    assert b"root/.hermes" in streamed(engine, "export", contained.hermes, without=KEY)
    streamed(engine, "save", contained.image(), without=KEY)
    assert KEY not in engine("history", "--no-trunc", contained.image())
    for one in contained.deployment.running():
        assert KEY not in " ".join(one.words)


def streamed(engine: Docker, command: str, name: str, without: str) -> bytes:
    """Search what docker writes out, piece by piece; return its first megabytes."""
    arguments = ["docker", "--host", f"unix://{engine.socket}", command, name]
    head = overlap = b""
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while piece := process.stdout.read(1 << 20):
            assert without.encode() not in overlap + piece
            overlap = piece[-len(without) :]
            if b"root/.hermes" in piece or len(head) < 1 << 20:
                head += piece
    assert process.returncode == 0
    return head


ASK = """
import sys, urllib.error, urllib.request
address, host = sys.argv[1:]
request = urllib.request.Request(f"http://{address}/", headers={"Host": host})
try:
    print(urllib.request.urlopen(request, timeout=30).status)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
except OSError as error:
    print(error)
"""


def test_a_container_reaches_no_host_that_is_not_allowed(contained: Contained) -> None:
    deployment = contained.deployment

    def ask(address: str, host: str) -> str:
        return contained.inside("/opt/hermes/bin/python", "-c", ASK, address, host)

    allowed = "allowed.example.com"
    assert deployment.chat("Are you awake?").status == 200
    play = deployment.deploy("-e", json.dumps({"hermes_egress": [allowed]}))
    assert "Hermes in a new sandbox, because of hermes_egress" in play.output
    refused = ask("198.51.100.7", "elsewhere.example.com")
    assert refused.startswith("403") and "egress_blocked" in refused, refused
    # Nobody is there, but Hermes was not kept from asking.
    assert "egress_blocked" not in ask("198.51.100.7", allowed)
    assert "unreachable" in ask("192.0.2.8:22", "elsewhere.example.com"), "past the way out"
    assert deployment.chat("Still there?").status == 200

    def blocked() -> list[str]:
        lines = [line for line in contained.events().splitlines() if '"egress_blocked"' in line]
        return [json.loads(line)["host"] for line in lines]

    wait_until(lambda: blocked() == ["elsewhere.example.com"], "the log has it")
    deployment.deploy()
    assert "egress_blocked" not in ask("198.51.100.7", "elsewhere.example.com")


def test_a_message_of_a_channel_wakes_a_container(contained: Contained) -> None:
    deployment = contained.deployment
    with Telegram() as telegram:
        deployment.variables |= {
            "hermes_channels": {"telegram": {"token": telegram.token, "allow": [77]}},
            "hermes_telegram_api_url": telegram.url,
        }
        deployment.deploy()
        assert deployment.call("POST", "/api/instance/sleep").status == 200
        assert "good morning" in telegram.await_answer(telegram.write("good morning", 77)).text
        secret = telegram.token.partition(":")[2]
        assert secret not in contained.inside("sh", "-c", "cat /proc/*/environ", check=False)
        for name in ("hermes_channels", "hermes_telegram_api_url"):
            del deployment.variables[name]
        deployment.deploy()


def test_an_image_without_hermes_is_told(contained: Contained, tmp_path: Path) -> None:
    deployment, engine = contained.deployment, contained.engine
    deployment.chat("My cat is called Ink.", session="foreign")
    base = deployment.variables["hermes_base_image"]
    (tmp_path / "Dockerfile").write_text(f'FROM {base}\nENTRYPOINT ["sh", "-c", "exit 3"]\n')
    failing = engine.build(tmp_path, "hermes-tests/failing:at-once")
    image, kept = contained.image(), "hermes-tests/hermes:kept"
    engine("tag", image, kept)
    try:
        # Docker starts the second again and again, so that a command meets one of its ends.
        for foreign in (base, failing, failing):
            engine("tag", foreign, image)
            errors: list[dict[str, str]] = []

            def told(errors: list[dict[str, str]] = errors) -> bool:
                answer = deployment.call("POST", "/api/instance/restart?force=true")
                assert answer.status == 503
                errors.append(answer.json["error"])
                # One of its ends may break the runtime's own way to it, which is told as something that passes.
                return errors[-1]["code"] != "instance_unavailable"

            wait_until(told, "an answer of the boot's")
            message = errors[-1]["message"]
            assert message.startswith("Hermes did not start: ")
            assert f"{image} is probably not Hermes' image" in message
            assert "deploy again" in message
        play = deployment.play("verify")
        assert play.code != 0
        assert "Hermes did not start" in play.output
        assert deployment.instance_state() == "asleep"
    finally:
        engine("tag", kept, image)
        engine("rmi", kept)
    wait_until(lambda: deployment.chat("Are you there?").status == 200, "a chat after all")
    assert "Ink" in deployment.chat("Who is my cat?", session="foreign").said


def test_without_an_engine_nothing_is_begun(
    make_deployment: Callable[..., Deployment], tmp_path: Path
) -> None:
    made = make_deployment(
        "nowhere", hermes_engine="docker", hermes_docker_socket=f"unix:{tmp_path}/none"
    )
    play = made.play("deploy")
    assert play.code != 0
    assert "hermes_engine: docker needs a Docker engine" in play.output
    assert "hermes_docker_socket" in play.output
    assert "Nothing was changed." in play.output
    assert not made.state.exists()


@pytest.fixture
def leftovers(contained: Contained) -> Callable[[], list[str]]:
    """What the engine still has of the deployment, and did not have before."""
    session = contained.session

    def found() -> list[str]:
        mine = ("--filter", f"label={SESSION}={session}")
        left = contained.engine("ps", "--all", "--quiet", *mine).split()
        left += contained.engine("volume", "ls", "--quiet").split()
        return left + contained.images()

    assert found()
    return found


def test_destroy_leaves_nothing(contained: Contained, leftovers: Callable[[], list[str]]) -> None:
    deployment = contained.deployment
    processes = [deployment.supervisor(), *deployment.supervisor().children(recursive=True)]
    deployment.chat("The last words.")
    play = deployment.play("destroy", "-e", "hermes_confirm=yes", "-e", "hermes_forget=true")
    assert play.code == 0, play.output
    assert leftovers() == []
    assert not deployment.state.exists()
    wait_for_ends(processes)

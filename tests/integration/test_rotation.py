# SPDX-License-Identifier: Apache-2.0
"""Keys that rotate on this machine: under a client that never pauses, cut off anywhere, and when they are wrong."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pytest
from plays import ROOT, Deployment, Play, running_play, wait_until

from tests.standins.provider import Provider

HALTING = ROOT / "tests" / "standins" / "halting"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider(key="sk-" + secrets.token_hex(16)) as running:
        yield running


@pytest.fixture(scope="module")
def rotating(
    make_deployment: Callable[..., Deployment], provider: Provider
) -> Iterator[Deployment]:
    made = make_deployment(
        "rotating",
        openai_api_key=provider.key,
        hermes_default_model="openai/gpt-5-mini",
        hermes_provider_base_url=provider.url + "/v1",
        hermes_secrets={"TELEGRAM_BOT_TOKEN": "canary-telegram-1"},
    )
    made.deploy()
    yield made
    # Whom a kill did not reach may have come to its step later, and would hold still for ever.
    for one in psutil.process_iter(["cmdline", "status"]):
        words = " ".join(one.info["cmdline"] or [])
        if one.info["status"] == psutil.STATUS_STOPPED and str(made.state.parent) in words:
            with suppress(psutil.NoSuchProcess):
                one.kill()


@contextmanager
def chatting(deployment: Deployment, token: str) -> Iterator[list[int]]:
    """A client that chats without a pause, with one token; yields the statuses of its answers."""
    statuses: list[int] = []
    over = threading.Event()

    def chat() -> None:
        body = {"model": "hermes", "messages": [{"role": "user", "content": "And on."}]}
        while not over.is_set():
            try:
                answer = deployment.call("POST", "/v1/chat/completions", body, token)
            except OSError:
                statuses.append(-1)
                continue
            good = answer.status == 200 and answer.json["choices"][0]["finish_reason"] == "stop"
            statuses.append(answer.status if good else 0)

    client = threading.Thread(target=chat)
    client.start()
    wait_until(lambda: bool(statuses), "the client got an answer")
    try:
        yield statuses
    finally:
        over.set()
        client.join()


def rotate(deployment: Deployment, keys: str = "all", *arguments: str) -> Play:
    return deployment.play("rotate_keys", "-e", f"hermes_keys={keys}", *arguments)


def test_a_client_that_chats_without_a_pause_sees_nothing_of_it(
    rotating: Deployment, provider: Provider
) -> None:
    old_token, old_key = rotating.token, provider.key
    new_key = "sk-" + secrets.token_hex(16)
    provider.also = new_key
    rotating.variables |= {
        "openai_api_key": new_key,
        "hermes_secrets": {"TELEGRAM_BOT_TOKEN": "canary-telegram-2"},
        "hermes_gateway_token": (gateway := "canary-gateway-" + secrets.token_hex(16)),
    }
    boot = rotating.status()["bootId"]
    check = rotate(rotating, "all", "--check", "--diff")
    for line in ("api_token", "openai_api_key", "hermes_secrets", "gateway_token"):
        assert f"rotate  {line}" in check.output
    assert check.changed("rotating") == 1
    assert rotating.token == old_token
    assert rotating.call("GET", "/api/health").json["token"]["previousUntil"] is None

    with chatting(rotating, old_token) as statuses:
        play = rotate(rotating, "all", "-vvv", "--diff")
        assert play.code == 0, play.output
        after = len(statuses)
        wait_until(lambda: len(statuses) > after + 2, "the old token goes on in the overlap")
    assert set(statuses) == {200}
    assert play.changed("rotating") == 1
    new_token = rotating.token
    assert new_token != old_token
    start = rotating.status()["gatewayStart"]
    key = hmac.new(gateway.encode(), start.encode(), hashlib.sha256).hexdigest()
    environment = rotating.environment()
    assert environment["API_SERVER_KEY"] == key
    assert gateway not in str(environment)
    for secret in (old_token, new_token, old_key, new_key, "canary-telegram-2", gateway):
        assert secret not in play.output
    assert rotating.call("GET", "/api/health").json["token"]["proven"]
    assert rotating.status()["configurationIsCurrent"], "Hermes has the new secrets"
    assert rotating.status()["bootId"] == boot
    provider.key = new_key
    provider.also = None
    assert rotating.chat("With the new key alone").status == 200
    assert not (rotating.state / "rotation.json").exists()
    assert rotating.deploy().changed("rotating") == 0
    assert rotating.call("GET", "/api/health", token=old_token).status == 200


def test_sealed_keys_change_without_hermes_and_a_second_run_changes_nothing(
    rotating: Deployment, provider: Provider
) -> None:
    rotating.call("POST", "/api/instance/wake")
    running = rotating.hermes_pids()
    provider.key = "sk-" + secrets.token_hex(16)
    rotating.variables["openai_api_key"] = provider.key
    play = rotate(rotating, "provider_keys")
    assert play.code == 0, play.output
    assert "Restarts: none." in play.output
    assert running
    assert rotating.hermes_pids() == running
    assert rotating.chat("Still there?").status == 200
    assert rotate(rotating, "provider_keys").changed("rotating") == 0


def test_a_wrong_key_is_taken_back(rotating: Deployment, provider: Provider) -> None:
    token = rotating.token
    right = rotating.variables["openai_api_key"]
    rotating.variables["openai_api_key"] = "sk-wrong-" + secrets.token_hex(8)
    play = rotate(rotating, "api_token,provider_keys")
    assert play.code != 0
    assert "openai_api_key: openai refuses it with 401" in play.output
    assert "Taken back: hermes_api_token, openai_api_key." in play.output
    assert rotating.variables["openai_api_key"] not in play.output
    assert rotating.token == token
    assert rotating.chat("As before?").status == 200
    rotating.variables["openai_api_key"] = right
    assert rotating.deploy().changed("rotating") == 0
    assert rotate(rotating, "api_token").code == 0
    assert rotating.call("GET", "/api/health", token=token).json["token"]["which"] == "previous"


def noted_token(deployment: Deployment) -> str:
    """The new token that an unfinished rotation wrote down, or an empty text."""
    try:
        return str(json.loads((deployment.state / "rotation.json").read_text())["token"])
    except FileNotFoundError:
        return ""


def workerd_of(deployment: Deployment) -> int | None:
    """The process that serves now; None between two."""
    with suppress(psutil.Error):
        for one in deployment.supervisor().children():
            if "build/config.capnp" in one.cmdline():
                return one.pid
    return None


def kill_group(play: subprocess.Popen[str]) -> None:
    """As a terminal does: what the play put into sessions of their own is not reached."""
    os.killpg(play.pid, signal.SIGKILL)


def kill_all(play: subprocess.Popen[str]) -> None:
    """As a service manager does: everything that the play started ends at once."""
    for one in [psutil.Process(play.pid), *psutil.Process(play.pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            one.kill()


def kill_before(
    step: str,
    deployment: Deployment,
    kill: Callable[[Any], None],
    or_when: Callable[[], bool] = lambda: False,
) -> None:
    """Start a rotation, and kill it as it is about to do a step, or before that as soon as something is true.

    It holds still there, so that a busy machine has all the time to kill it.
    """
    what = ("-e", "hermes_keys=api_token,provider_keys")
    shell = {"PYTHONPATH": str(HALTING), "HALT_BEFORE": step}
    with running_play("rotate_keys", deployment, *what, **shell) as play:
        every = psutil.Process(play.pid)

        def held() -> list[psutil.Process]:
            with suppress(psutil.Error):
                every_one = every.children(recursive=True)
                return [one for one in every_one if one.status() == psutil.STATUS_STOPPED]
            return []

        still: list[psutil.Process] = []
        try:
            while not still and not or_when():
                assert play.poll() is None, f"it was not killed:\n{play.communicate()[0]}"
                time.sleep(0.01)
                still = held()
        except BaseException:
            kill_all(play)  # what holds still would be waited for without an end
            raise
        kill(play)
        for one in still:
            with suppress(psutil.NoSuchProcess):
                one.kill()


def test_a_play_that_is_killed_again_and_again_is_finished_by_the_next_one(
    rotating: Deployment, provider: Provider
) -> None:
    old = rotating.token
    provider.also, provider.key = provider.key, "sk-" + secrets.token_hex(16)
    rotating.variables["openai_api_key"] = provider.key

    def told() -> dict[str, Any]:
        return dict(rotating.call("GET", "/api/health", token=old).json["token"])

    with chatting(rotating, old) as statuses:
        kill_before("subprocess.Popen change-secrets", rotating, kill_all)
        new = noted_token(rotating)
        assert new and rotating.token == old
        assert told()["which"] == "current", "the Worker did not learn of it"
        before = workerd_of(rotating)
        kill_before(
            "subprocess.Popen change-secrets, socket.connect ",
            rotating,
            kill_group,
            or_when=lambda: workerd_of(rotating) not in (None, before),
        )
        assert "a rotation of its keys was interrupted" in rotating.play("deploy").output
        wait_until(lambda: told()["which"] == "previous", "what was begun came to its end")
        assert told()["previousUntil"] is None, (
            "nobody proved the new one, so the old one has no end"
        )
        kill_before("os.rename /api_token", rotating, kill_all)
        assert told()["previousUntil"] is not None, "it was proved"
        assert rotating.token == old
        kill_before("os.remove /rotation.json", rotating, kill_group)
        assert rotating.token == new
        assert noted_token(rotating) == new
        play = rotate(rotating, "api_token,provider_keys")
        assert play.code == 0, play.output
    assert set(statuses) == {200}
    assert rotating.token == new
    assert not (rotating.state / "rotation.json").exists()
    provider.also = None
    assert rotating.chat("With the new key and token alone").status == 200
    assert rotating.call("GET", "/api/health", token=old).json["token"]["which"] == "previous"
    assert rotating.deploy().changed("rotating") == 0

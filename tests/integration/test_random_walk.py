# SPDX-License-Identifier: Apache-2.0
"""Deploys, rotations, sleeps, kills, restores and changes by hand in any order, on one deployment.

After each step what runs is held against what was asked. WALK_SEED=n walks that one, WALKS=n so many, WALK_STEPS=n with
so many steps each; a failure prints its seed and its story.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from plays import Deployment, Play, wait_until

from tests.standins.provider import Provider

SEED = os.environ.get("WALK_SEED")
WALKS = int(os.environ.get("WALKS") or 1)
STEPS = int(os.environ.get("WALK_STEPS") or 8)
SEEDS = [int(SEED)] if SEED else list(range(1, WALKS + 1))


class Walk:
    """One deployment, what was asked of it, and what happened so far."""

    def __init__(self, it: Deployment, provider: Provider, dice: random.Random) -> None:
        self.it = it
        self.provider = provider
        self.dice = dice
        self.story: list[str] = []
        self.asked: dict[str, Any] = dict(it.variables)
        """The variables of the last deploy that was through."""
        self.words: set[str] = set()
        """What was said and answered, and must be remembered."""
        self.session = f"walk-{secrets.token_hex(4)}"

    # Steps

    def change(self) -> None:
        """Deploy with one variable set to something else, or taken away."""
        names = {
            "hermes_default_model": ["custom/one", "custom/two"],
            "hermes_env": [{"COLOUR": "blue"}, {"COLOUR": "green"}, None],
            "hermes_secrets": [{"THING": "first"}, {"THING": "second"}, None],
            "hermes_host_tools": [True, None],
            "hermes_provider_keys": ["environment", None],
            "custom_api_key": [self.provider.key, self.provider.also],
        }
        name = self.dice.choice(sorted(names))
        value = self.dice.choice(names[name])
        self.story.append(f"deploy with {name}={'a key' if name == 'custom_api_key' else value}")
        self.it.variables.pop(name, None)
        if value is not None:
            self.it.variables[name] = value
        self.deploy()

    def deploy(self) -> None:
        play = self.it.deploy()
        assert "deployed and verified" in play.output
        self.asked = dict(self.it.variables)

    def rotate(self) -> None:
        """Give it the other key and a new token without a deploy."""
        key = self.dice.choice([self.provider.key, self.provider.also])
        self.story.append("rotate the provider's key and the token")
        self.it.variables["custom_api_key"] = key
        self.went(self.it.play("rotate_keys", "-e", "keys=api_token,provider_keys"))
        self.asked["custom_api_key"] = key

    def sleep(self) -> None:
        self.story.append("sleep")
        assert self.it.call("POST", "/api/instance/sleep").status == 200

    def stop(self) -> None:
        self.story.append("stop Hermes alone")
        assert self.it.call("POST", "/api/instance/stop").status == 200

    def kill(self) -> None:
        """Kill one of the processes, as an accident would; what is said is saved before."""
        assert self.it.call("POST", "/api/instance/backups").status == 200
        name = self.dice.choice(["workerd", "gateway", "engine"])
        self.story.append(f"kill -9 {name}")
        for process in self.it.supervisor().children(recursive=True):
            try:
                words = process.cmdline()
            except psutil.Error:
                continue
            if words[:1] and (words[0].endswith(name) or name in words):
                os.kill(process.pid, signal.SIGKILL)
                break
        wait_until(self.answers, "the Worker is back")

    def answers(self) -> bool:
        try:
            return self.it.call("GET", "/api/health").status == 200
        except OSError:
            return False

    def restore(self) -> None:
        """Take a backup and put it back, so that nothing is lost by it."""
        self.story.append("back up and restore")
        self.went(self.it.play("backup"))
        self.went(self.it.play("restore", "-e", "hermes_backup=newest"))

    def went(self, play: Play) -> None:
        assert play.code == 0, play.output

    # What must hold

    def check(self) -> None:
        """Hold what runs against what was asked, by what the provider is asked and the process has."""
        word = secrets.token_hex(6)
        answer = self.it.chat(word, session=self.session)
        assert answer.status == 200, answer.text
        last = next(seen for seen in reversed(self.provider.seen) if seen.body)
        assert last.body is not None
        assert word in str(last.body["messages"][-1])
        assert last.body["model"] == self.asked["hermes_default_model"].removeprefix("custom/")
        key = last.headers["authorization"].removeprefix("Bearer ")
        assert key == self.asked["custom_api_key"], "another key than the one that was asked for"
        forgotten = {one for one in self.words if one not in str(last.body["messages"])}
        assert not forgotten, "Hermes forgot what it was told"
        self.words.add(word)
        environment = self.environment()
        for name, wanted in (("COLOUR", "hermes_env"), ("THING", "hermes_secrets")):
            assert environment.get(name) == self.asked.get(wanted, {}).get(name)
        held = {value for value in environment.values() if value.startswith("sk-canary")}
        direct = self.asked.get("hermes_provider_keys") == "environment"
        assert held == ({self.asked["custom_api_key"]} if direct else set())
        told = self.it.call("GET", "/v1/toolsets").json["data"]
        terminal = any(one["name"] == "terminal" and one["enabled"] for one in told)
        assert terminal is bool(self.asked.get("hermes_host_tools"))

    def environment(self) -> dict[str, str]:
        everyone = self.it.supervisor().children(recursive=True)
        (found,) = (one.environ() for one in everyone if "gateway" in one.cmdline())
        return found


@pytest.fixture(scope="module")
def walked(
    make_deployment: Callable[..., Deployment],
) -> Iterator[tuple[Deployment, Provider]]:
    keys = ["sk-canary-" + secrets.token_hex(16) for _ in range(2)]
    with Provider(key=keys[0], also=keys[1]) as provider:
        it = make_deployment(
            "walked",
            custom_api_key=provider.key,
            hermes_default_model="custom/one",
            hermes_provider_base_url=provider.url + "/v1",
        )
        it.deploy()
        yield it, provider


@pytest.mark.parametrize("seed", SEEDS)
def test_what_runs_is_what_was_asked_whatever_happened(
    walked: tuple[Deployment, Provider], seed: int
) -> None:
    it, provider = walked
    walk = Walk(it, provider, random.Random(seed))  # noqa: S311 - dice, not keys
    steps = [walk.change] * 4 + [walk.rotate, walk.sleep, walk.stop, walk.kill, walk.restore]
    try:
        for _ in range(STEPS):
            walk.dice.choice(steps)()
            walk.check()
    except BaseException as error:
        error.add_note(f"seed {seed}: " + "; ".join(walk.story))
        raise

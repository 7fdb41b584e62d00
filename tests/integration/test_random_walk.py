# SPDX-License-Identifier: Apache-2.0
"""Deploys, rotations, sleeps, kills, restores and changes by hand in any order, on one deployment.

After each step what runs is held against what was asked. WALK_SEED=n begins with that one, WALKS=n walks so many,
WALK_STEPS=n with so many steps each; a failure prints its seed and its story.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from plays import Deployment, Play, wait_until

from tests.processes import wait_for_ends
from tests.standins.provider import Provider

FIRST = int(os.environ.get("WALK_SEED") or 1)
WALKS = int(os.environ.get("WALKS") or 1)
STEPS = int(os.environ.get("WALK_STEPS") or 8)
SEEDS = range(FIRST, FIRST + WALKS)

ELSEWHERE = "https://elsewhere.example"
CORS = '"HERMES_CORS_ORIGINS", text = '

REMOVABLE = (
    *(
        "build/config.capnp",
        "build/uses.json",
        "build/verified",
        "build/version",
        "build/worker.js",
    ),
    *("api_token", "logs/workerd.log", "run/processes.json", "storage.note", "variables.note"),
    "../.runtime/bundle-*/complete.json",
)
"""Files of the state folder that the next deploy makes anew, or does without."""


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

    def deploy(self) -> Play:
        play = self.it.deploy()
        assert "deployed and verified" in play.output
        self.asked = dict(self.it.variables)
        return play

    def rotate(self) -> None:
        """Give it the other key and a new token without a deploy."""
        key = self.dice.choice([self.provider.key, self.provider.also])
        self.story.append("rotate the provider's key and the token")
        self.it.variables["custom_api_key"] = key
        self.went(self.it.play("rotate_keys", "-e", "hermes_keys=api_token,provider_keys"))
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
        name = self.dice.choice(["workerd", "gateway", "engine", "guardian.py", "supervisor.py"])
        self.story.append(f"kill -9 {name}")
        before = self.it.supervisor().pid
        self.strike(name)
        if name == "supervisor.py":
            wait_until(lambda: self.recorded() not in (None, before), "there is another supervisor")
        wait_until(self.answers, "the Worker is back")

    def recorded(self) -> int | None:
        """The supervisor that says of itself that it runs everything."""
        try:
            return int(json.loads((self.it.state / "run" / "supervisor.json").read_text())["pid"])
        except ValueError:
            return None

    def strike(self, name: str) -> None:
        """Kill the process that has this word in its command, or whose program is called so."""
        for one in self.it.running():
            process, words = one.process, one.words
            # The guardian's last word is the supervisor that it would start.
            if any(word.rpartition("/")[2] == name for word in words[:6] if word != words[-1]):
                os.kill(process.pid, signal.SIGKILL)
                wait_for_ends([process])
                return

    # Changes by hand

    def edit_the_configuration(self) -> None:
        """Have workerd start from what somebody made of its configuration or its code; a deploy takes it back."""
        name, found, edited = self.dice.choice(
            [
                ("config.capnp", f'{CORS}""', f'{CORS}"{ELSEWHERE}"'),
                ("config.capnp", 'SLEEP_AFTER", text = "4h"', 'SLEEP_AFTER", text = "1h"'),
                ("config.capnp", 'text = "custom/', 'text = "custom/by-hand-'),
                ("worker.js", "name: c.var.settings.name", 'name: "by-hand"'),
            ]
        )
        self.story.append(f"edit {name}: {edited}")
        path = self.it.state / "build" / name
        text = path.read_text()
        assert found in text
        path.write_text(text.replace(found, edited))
        self.strike("workerd")
        wait_until(self.answers, "the Worker is back")
        assert self.deploy().changed(self.it.name) > 0

    def give_another_secret(self) -> None:
        """Give workerd another key past the plays, by the supervisor's own command; a deploy takes it back."""
        self.story.append("give workerd another key by hand")
        supervisor = self.it.supervisor()
        words = [*supervisor.cmdline()[:2], "ctl", "change-secrets", "--folder", str(self.it.state)]
        changes = json.dumps(
            {"CUSTOM_API_KEY": "sk-by-hand", "HERMES_SECRETS": '{"THING": "by-hand"}'}
        )
        subprocess.run(words, input=changes, text=True, check=True)
        wait_until(self.answers, "the Worker is back")
        assert self.deploy().changed(self.it.name) > 0

    def edit_the_home(self) -> None:
        """What somebody writes into Hermes' own files is no match for what was asked."""
        self.story.append("edit config.yaml and .env in Hermes' home")
        assert self.it.call("POST", "/api/instance/wake").status == 200
        (home,) = self.it.state.glob("engine/disks/*/disk/home/.hermes")
        model = {
            "default": "by-hand",
            "provider": "openai-api",
            "base_url": "http://127.0.0.1:9/v1",
        }
        (home / "config.yaml").write_text(json.dumps({"model": model}))
        (home / ".env").write_text("COLOUR=by-hand\nTHING=by-hand\nCUSTOM_API_KEY=by-hand\n")
        assert self.it.call("POST", "/api/instance/restart-gateway").status == 200

    def remove_files(self) -> None:
        """Remove what can be made anew, and deploy."""
        chosen = self.dice.sample(REMOVABLE, self.dice.randint(1, 3))
        self.story.append(f"remove {', '.join(chosen)}")
        for pattern in chosen:
            for path in self.it.state.glob(pattern):
                path.unlink()
        if self.dice.random() < 0.5:
            self.story.append("kill -9 workerd")
            self.strike("workerd")
        self.deploy()

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
        environment = self.it.environment()
        for name, wanted in (("COLOUR", "hermes_env"), ("THING", "hermes_secrets")):
            assert environment.get(name) == self.asked.get(wanted, {}).get(name)
        held = {value for value in environment.values() if value.startswith("sk-canary")}
        direct = self.asked.get("hermes_provider_keys") == "environment"
        assert held == ({self.asked["custom_api_key"]} if direct else set())
        told = self.it.call("GET", "/v1/toolsets").json["data"]
        terminal = any(one["name"] == "terminal" and one["enabled"] for one in told)
        assert terminal is bool(self.asked.get("hermes_host_tools"))
        answer = self.it.call("GET", "/", Origin=ELSEWHERE)
        assert answer.json["name"] == self.it.name
        assert "access-control-allow-origin" not in answer.headers


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
    ours = [walk.change] * 4 + [walk.rotate, walk.sleep, walk.stop, walk.restore]
    theirs = [
        walk.edit_the_configuration,
        walk.give_another_secret,
        walk.edit_the_home,
        walk.remove_files,
    ]
    steps = [*ours, *theirs, walk.kill, walk.kill]
    try:
        for _ in range(STEPS):
            walk.dice.choice(steps)()
            walk.check()
    except BaseException as error:
        error.add_note(f"seed {seed}: " + "; ".join(walk.story))
        raise

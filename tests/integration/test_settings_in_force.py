# SPDX-License-Identifier: Apache-2.0
"""Each variable that reaches a running Worker or Hermes: set, changed and taken away by a deploy while Hermes is awake.

Judged by what the provider was asked, what the process has in its environment, what a client sees; never by our own
status. Then a second deploy, which has nothing to do.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from plays import Deployment, clean_environment

from tests.standins.provider import Provider

# The same in each process of a run: they are in the names of tests.
KEY = "sk-canary-of-the-first-provider-key"
OTHER_KEY = "sk-canary-of-the-other-provider-key"


@dataclass
class Scene:
    """One deployment, and two providers that it may be told to ask."""

    it: Deployment
    first: Provider
    second: Provider

    def asked(self, provider: Provider, text: str = "Hello", **more: Any) -> tuple[str, str]:
        """Chat; return the model that the provider was asked for, and the key that came along."""
        answer = self.it.chat(text, **more)
        assert answer.status == 200, answer.text
        assert f"The stand-in heard: {text}" in answer.said
        last = next(seen for seen in reversed(provider.seen) if seen.body)
        assert last.body is not None
        return last.body["model"], last.headers["authorization"].removeprefix("Bearer ")

    def address(self, which: str) -> str:
        """The base URL of a provider; the first one has a name as well, as a server in a local network has."""
        if which != "named":
            return f"{getattr(self, which).url}/v1"
        return f"{self.first.url}/v1".replace("127.0.0.1", own_name())

    def process(self) -> dict[str, str]:
        """The environment of Hermes' own process, once it runs."""
        assert self.it.chat("Are you there?").status == 200
        return self.it.environment()

    def toolsets(self) -> set[str]:
        """Names of the toolsets that Hermes offers its model."""
        told = self.it.call("GET", "/v1/toolsets").json
        return {one["name"] for one in told["data"] if one["enabled"]}


def own_name() -> str:
    """A name that leads to this machine: its own, where that does."""
    with contextlib.suppress(OSError):
        if socket.gethostbyname(socket.gethostname()) == "127.0.0.1":
            return socket.gethostname()
    return "localhost"


def rehearsed(scene: Scene) -> None:
    assert "Rehearsal" in scene.it.chat("Who are you?").said


def asks(
    provider: str, model: str, key: str, session: str | None = None
) -> Callable[[Scene], None]:
    def probe(scene: Scene) -> None:
        found = scene.asked(getattr(scene, provider), secrets.token_hex(4), session=session)
        assert found == (model, key)

    return probe


def has(name: str, value: str | None) -> Callable[[Scene], None]:
    def probe(scene: Scene) -> None:
        assert scene.process().get(name) == value

    return probe


def further(model: str, asked: str | None) -> Callable[[Scene], None]:
    def probe(scene: Scene) -> None:
        if asked is None:
            answer = scene.it.chat("Hello", model=model)
            assert answer.headers.get("x-hermes-model") != model
        else:
            assert scene.asked(scene.first, "Hello", model=model)[0] == asked

    return probe


def told_of_context(tokens: int) -> Callable[[Scene], None]:
    """What Hermes itself would be told again; it shows no other sign below the length of a conversation."""

    def probe(scene: Scene) -> None:
        told = scene.it.call("GET", "/api/instance/logs").json["config"]
        assert told["model"]["context_length"] == tokens

    return probe


def terminal(offered: bool) -> Callable[[Scene], None]:
    def probe(scene: Scene) -> None:
        assert ("terminal" in scene.toolsets()) is offered

    return probe


def holds_key(key: str | None) -> Callable[[Scene], None]:
    def probe(scene: Scene) -> None:
        held = [value for value in scene.process().values() if value.startswith("sk-canary")]
        assert set(held) == ({key} if key else set())

    return probe


def cross_origin(origin: str, allowed: bool) -> Callable[[Scene], None]:
    def probe(scene: Scene) -> None:
        answer = scene.it.call("GET", "/api/health", Origin=origin)
        found = answer.headers.get("access-control-allow-origin")
        assert found == (origin if allowed else None)

    return probe


def dashboard(status: int, code: str) -> Callable[[Scene], None]:
    """What becomes of somebody for whom Cloudflare Access vouches, but not with its signature."""

    def probe(scene: Scene) -> None:
        it = Deployment(scene.it.name, scene.it.home, port=scene.it.dashboard_port)
        answer = it.call("GET", "/api/status", token="", Cf_Access_Jwt_Assertion="a.b.c")
        assert (answer.status, code in answer.text) == (status, True), answer.text[:300]

    return probe


def strangers(status: int) -> Callable[[Scene], None]:
    def probe(scene: Scene) -> None:
        assert scene.it.call("GET", "/api/health", token="").status == status

    return probe


def busy_after(seconds: int) -> Callable[[Scene], None]:
    """A turn under way is waited for so long, and then said to be in the way."""

    def probe(scene: Scene) -> None:
        scene.first.pause = 2.0
        body = {"model": "hermes", "messages": [{"role": "user", "content": "a b c d"}]}
        try:
            with scene.it.open("POST", "/v1/chat/completions", {**body, "stream": True}) as stream:
                stream.readline()
                answer = scene.it.call("POST", "/api/instance/sleep")
                assert (answer.status, f"after {seconds} s" in answer.text) == (409, True)
        finally:
            scene.first.pause = 0.0

    return probe


@dataclass
class Step:
    """A deploy with other values. restarts: what the plan says of it; probes: what must be so then."""

    sets: dict[str, Any]
    probes: list[Callable[[Scene], None]]
    restarts: str = "workerd; Hermes"
    drops: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        words = [f"{name}={value}" for name, value in self.sets.items()]
        return ",".join(words + [f"-{name}" for name in self.drops]).replace("sk-canary", "key")[
            :90
        ]


FIRST = {
    "custom_api_key": KEY,
    "hermes_default_model": "custom/one",
    "hermes_provider_base_url": "first",
}
STEPS = [
    # What the README's second step does: a key, after a rehearsal.
    Step(FIRST, [asks("first", "one", KEY, "kept")]),
    Step(
        {"hermes_default_model": "custom/two"},
        [asks("first", "two", KEY), asks("first", "two", KEY, "kept")],
    ),
    Step({"custom_api_key": OTHER_KEY}, [asks("first", "two", OTHER_KEY)], restarts="workerd"),
    Step(
        {"hermes_provider_base_url": "second"},
        [asks("second", "two", OTHER_KEY)],
        restarts="workerd",
    ),
    Step(
        {"hermes_provider_base_url": "named"}, [asks("first", "two", OTHER_KEY)], restarts="workerd"
    ),
    Step(
        {"hermes_provider_base_url": "first", "hermes_context_length": 65536},
        [asks("first", "two", OTHER_KEY), told_of_context(65536)],
    ),
    Step({}, [told_of_context(200_000)], drops=["hermes_context_length"]),
    Step({"hermes_models": ["custom/three"]}, [further("custom/three", "three")]),
    Step(
        {"hermes_models": ["custom/four"]},
        [further("custom/four", "four"), further("custom/three", None)],
    ),
    Step({}, [further("custom/four", None)], drops=["hermes_models"]),
    Step({"hermes_env": {"COLOUR": "blue"}}, [has("COLOUR", "blue")]),
    Step({"hermes_env": {"COLOUR": "green"}}, [has("COLOUR", "green")]),
    Step({}, [has("COLOUR", None)], drops=["hermes_env"]),
    Step({"hermes_secrets": {"THING_TOKEN": "first-value"}}, [has("THING_TOKEN", "first-value")]),
    Step({"hermes_secrets": {"THING_TOKEN": "second-value"}}, [has("THING_TOKEN", "second-value")]),
    Step({}, [has("THING_TOKEN", None)], drops=["hermes_secrets"]),
    Step({"hermes_host_tools": True}, [terminal(True)]),
    Step({}, [terminal(False)], drops=["hermes_host_tools"]),
    Step(
        {"hermes_provider_keys": "environment"},
        [holds_key(OTHER_KEY), asks("first", "two", OTHER_KEY)],
    ),
    Step({"custom_api_key": KEY}, [holds_key(KEY), asks("first", "two", KEY)]),
    Step({}, [holds_key(None), asks("first", "two", KEY)], drops=["hermes_provider_keys"]),
    Step({"hermes_drain_timeout": "1s"}, [busy_after(1)]),
    Step({"hermes_drain_timeout": "2s"}, [busy_after(2)]),
    Step(
        {
            "hermes_cors_origins": ["https://a.example"],
            "hermes_dashboard": False,
            "hermes_allow_unauthenticated": True,
        },
        [cross_origin("https://a.example", True), strangers(200)],
        restarts="",
        drops=["hermes_drain_timeout"],
    ),
    Step(
        {
            "hermes_cors_origins": ["https://b.example"],
            "hermes_access_team_domain": "team.cloudflareaccess.com",
            "hermes_access_audiences": ["a" * 64],
        },
        [
            cross_origin("https://a.example", False),
            cross_origin("https://b.example", True),
            dashboard(403, "access_refused"),
            strangers(401),
        ],
        restarts="",
        drops=["hermes_dashboard", "hermes_allow_unauthenticated"],
    ),
    Step(
        {"hermes_provider": "rehearsal"},
        [rehearsed, cross_origin("https://b.example", False), dashboard(401, "missing_token")],
        drops=["hermes_cors_origins", "hermes_access_team_domain", "hermes_access_audiences"],
    ),
    Step({}, [asks("first", "two", KEY)], drops=["hermes_provider"]),
    Step({}, [rehearsed], drops=list(FIRST)),
]


@pytest.fixture(scope="module")
def scene(make_deployment: Callable[..., Deployment]) -> Iterator[Scene]:
    with (
        Provider(key=KEY, also=OTHER_KEY) as first,
        # As it would be on another machine.
        Provider(key=KEY, also=OTHER_KEY, host="127.0.0.2") as second,
    ):
        it = make_deployment("in-force")
        it.deploy()
        yield Scene(it, first, second)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_deploy_brings_it_to_a_hermes_that_is_awake(scene: Scene, step: Step) -> None:
    it = scene.it
    assert it.instance_state() == "awake"
    for name in step.drops:
        del it.variables[name]
    it.variables |= step.sets
    if (base := step.sets.get("hermes_provider_base_url")) is not None:
        it.variables["hermes_provider_base_url"] = scene.address(base)
    play = it.deploy()
    assert "deployed and verified" in play.output
    planned = play.output.split("Restarts: ")[1].split("\n")[0]
    assert planned.startswith(f"in-force ({step.restarts}"), planned
    assert ("Hermes" in planned) is ("Hermes" in step.restarts or not step.restarts), planned
    for probe in step.probes:
        probe(scene)
    again = it.deploy()
    assert again.changed(it.name) == 0, again.output


def test_what_somebody_made_of_the_rendered_files_ends_with_a_deploy(scene: Scene) -> None:
    """workerd reads them again whenever it starts, and its version says nothing of it."""
    it, origin = scene.it, "https://c.example"
    config = it.state / "build" / "config.capnp"
    unset = '(name = "HERMES_CORS_ORIGINS", text = "'
    config.write_text(config.read_text().replace(unset, unset + origin))
    (workerd,) = [
        one for one in it.supervisor().children() if "build/config.capnp" in one.cmdline()
    ]
    workerd.kill()
    cross_origin(origin, True)(scene)
    play = it.play("verify")
    assert play.code != 0
    assert "workerd runs from files that were changed by hand" in play.output
    assert "in-force (workerd)" in it.deploy().output
    cross_origin(origin, False)(scene)
    assert it.deploy().changed(it.name) == 0
    assert it.play("verify").code == 0


def test_bubblewrap_that_is_installed_or_removed_is_found_by_the_next_deploy(
    make_deployment: Callable[..., Deployment], tmp_path: Path
) -> None:
    """Whether Hermes is confined is what the machine has now, and the card says what holds."""
    real, switch, program = shutil.which("bwrap"), tmp_path / "installed", tmp_path / "bwrap"
    program.write_text(f'#!/bin/sh\ntest -e {switch} || exit 1\nexec {real} "$@"\n')
    program.chmod(0o755)
    it = make_deployment("wrapped")
    env = clean_environment(PATH=f"{tmp_path}:{os.environ['PATH']}")

    def deploy() -> str:
        play = it.play("deploy", env=env)
        assert play.code == 0, play.output
        assert it.chat("Hello").status == 200
        assert any(one.name == "bwrap" for one in it.running()) is switch.exists()
        return play.output

    assert "confined     no (bubblewrap missing or not usable)" in deploy()
    switch.touch()
    output = deploy()
    assert "Restarts: wrapped (Hermes in a new sandbox, because of bubblewrap)." in output
    assert "confined     by bubblewrap" in output
    assert "No changes. 0 calls written." in deploy()
    switch.unlink()
    assert "because of bubblewrap" in deploy()

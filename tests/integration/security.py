# SPDX-License-Identifier: Apache-2.0
"""Settings that let people in, keep them out, and hand keys to Hermes: set, changed and withdrawn, wherever it runs.

Judged by what a client is answered, what Hermes' processes have in their environment and what the provider is sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from plays import Deployment

from tests.standins.provider import Provider

# The same in each process of a run: they may be in the names of tests.
TOKENS = ("hw_first-token-of-the-inventory", "hw_second-token-of-the-inventory")
ORIGINS = ("https://a.example", "https://b.example")
TEAM = "team.cloudflareaccess.com"
AUDIENCES = ("a" * 64, "b" * 64)
MODELS = ["custom/stand-in", "anthropic/stand-in", "openrouter/stand-in", "openai/stand-in"]


def keys(which: str) -> dict[str, str]:
    """A key for each provider, by variable."""
    providers = [model.partition("/")[0] for model in MODELS]
    return {f"{name}_api_key": f"canary-of-the-{which}-key-for-{name}" for name in providers}


FIRST, SECOND = keys("first"), keys("second")
SECRETS = ("canary-of-the-first-secret", "canary-of-the-second-secret")
LAST_KEY = SECOND["custom_api_key"]


@dataclass
class Place:
    """A deployment whose Hermes rehearses, with a stand-in for the one provider that a request may name."""

    it: Deployment
    desk: Deployment
    """The same, at the dashboard's address."""
    provider: Provider
    environments: Callable[[], str]
    """What the processes of Hermes' sandbox have in their environment."""
    token: str = ""
    """What lets in now."""
    tokens: set[str] = field(default_factory=set)
    """All that ever did."""

    def status(self, token: str) -> int:
        return self.it.call("GET", "/api/health", token=token).status

    def deploys(self, token: str | None = None) -> None:
        """Deploy, and once more with nothing to do. token: what lets in then, if not what the state folder has."""
        self.tokens.add(self.token)
        assert "deployed and verified" in self.it.deploy().output
        self.token = self.it.token if token is None else token
        assert self.it.deploy().changed(self.it.name) == 0

    def check_token(self) -> None:
        """See that the one token lets in, and neither none nor one of before."""
        assert self.status(self.token) == 200
        others = {"", *self.tokens} - {self.token}
        assert self.token == "" or {self.status(other) for other in others} == {401}

    def check_access(self, audience: str | None) -> None:
        """See what becomes of somebody for whom nobody signed."""
        answer = self.desk.call("GET", "/api/auth/me", token="", Cf_Access_Jwt_Assertion="a.b.c")
        refused = (401, "missing_token") if audience is None else (403, "access_refused")
        assert (answer.status, refused[1] in answer.text) == (refused[0], True), answer.text

    def check_origin(self, origin: str | None) -> None:
        for one in ORIGINS:
            told = self.it.call("GET", "/", Origin=one).headers.get("access-control-allow-origin")
            assert told == (one if one == origin else None)

    def check_sent(self, key: str | None) -> None:
        """See with which key the provider is asked."""
        body = {"model": MODELS[0], "messages": [{"role": "user", "content": "With which key?"}]}
        answer = self.it.call("POST", "/v1/chat/completions", body, token=self.token)
        assert "With which key?" in answer.said
        last = next(seen for seen in reversed(self.provider.seen) if seen.body)
        assert last.headers.get("authorization") == (key and f"Bearer {key}")


@dataclass
class State:
    """A deploy with other values, and what must hold then."""

    name: str
    sets: dict[str, Any]
    drops: tuple[str, ...] = ()
    token: str | None = None
    """What lets in, if not the token of the state folder; empty: nothing is needed."""
    origin: str | None = None
    audience: str | None = None
    held: tuple[str, ...] = ()
    """What Hermes' processes have of all keys and secrets."""
    sent: str | None = None
    """The key that the provider is asked with, while keys are sealed."""

    def bring(self, place: Place) -> None:
        """Deploy it to a Hermes that is awake, and see it in force."""
        variables = place.it.variables
        woken = place.it.call("POST", "/api/instance/wake", token=place.token)
        assert woken.status == 200, woken.text
        for name in self.drops:
            del variables[name]
        variables.update(self.sets)
        place.deploys(self.token)
        place.check_token()
        place.check_origin(self.origin)
        if place.token:
            place.check_access(self.audience)
        assert set(re.findall(r"canary-[a-z-]+", place.environments())) == set(self.held)
        if "hermes_provider_keys" not in variables:
            place.check_sent(self.sent)


STATES = [
    State(
        "all is set",
        {
            "hermes_api_token": TOKENS[0],
            "hermes_cors_origins": [ORIGINS[0]],
            "hermes_access_team_domain": TEAM,
            "hermes_access_audiences": [AUDIENCES[0]],
            "hermes_secrets": {"THING": SECRETS[0]},
            "hermes_models": MODELS,
            "hermes_provider_keys": "environment",
            **FIRST,
        },
        token=TOKENS[0],
        origin=ORIGINS[0],
        audience=AUDIENCES[0],
        held=(SECRETS[0], *FIRST.values()),
    ),
    State(
        "all is changed",
        {
            "hermes_api_token": TOKENS[1],
            "hermes_cors_origins": [ORIGINS[1]],
            "hermes_access_audiences": [AUDIENCES[1]],
            "hermes_secrets": {"THING": SECRETS[1]},
            **SECOND,
        },
        origin=ORIGINS[1],
        audience=AUDIENCES[1],
        held=(SECRETS[1], *SECOND.values()),
    ),
    State(
        "all is withdrawn but a sealed key",
        {"hermes_models": MODELS[:1]},
        (
            *("hermes_api_token", "hermes_cors_origins", "hermes_secrets", "hermes_provider_keys"),
            *("hermes_access_team_domain", "hermes_access_audiences"),
            *(name for name in SECOND if name != "custom_api_key"),
        ),
        sent=LAST_KEY,
    ),
    State(
        "the key is withdrawn and anybody let in",
        {"hermes_allow_unauthenticated": True},
        ("custom_api_key",),
        token="",
    ),
    State(
        "they are kept out again",
        {"hermes_token_overlap": "0s"},
        ("hermes_allow_unauthenticated",),
    ),
]


def rotate_the_token(place: Place) -> None:
    """The token of before ends with the first use of the new one, where nothing overlaps."""
    place.tokens.add(place.token)
    play = place.it.play("rotate_keys", "-e", "hermes_keys=api_token")
    assert play.code == 0, play.output
    assert place.it.token not in place.tokens
    place.token = place.it.token
    place.check_token()
    assert place.it.deploy().changed(place.it.name) == 0


def lose_the_token(place: Place, lose: Callable[[], None]) -> None:
    """A Worker that lost its token lets nobody in until it is deployed. lose: takes the token from it, by hand."""
    lose()
    assert {place.status(token) for token in ("", place.token, *place.tokens)} == {503}
    place.deploys()
    place.check_token()

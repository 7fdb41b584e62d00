# SPDX-License-Identifier: Apache-2.0
"""What keeps people and keys apart is in force at the stand-in for Cloudflare, with a team of Access before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import requests
from clouds import ACCOUNT, TOKEN, Clouded, open_account
from plays import wait_until
from security import (
    AUDIENCES,
    LAST_KEY,
    STATES,
    TEAM,
    Place,
    State,
    lose_the_token,
    rotate_the_token,
)

from tests.cloudflare import ControlPlane
from tests.cloudflare.edge import DEFERRED_SECONDS
from tests.standins.access import PERSON, Access
from tests.standins.provider import Provider

HOSTNAME = "locked.example.com"


@dataclass(kw_only=True)
class Vouched(Place):
    """A place with a team of Access before its dashboard."""

    access: Access

    def check_access(self, audience: str | None) -> None:
        """See who is let in: whoever signed in to the application that was named, and nobody else."""
        vouched = self.it.plane.edge.vouched
        vouched[HOSTNAME] = "a.b.c"
        super().check_access(audience)
        for one in AUDIENCES:
            vouched[HOSTNAME] = self.access.vouch(one)
            answer = self.desk.call("GET", "/api/auth/me", token="")
            refused = 401 if audience is None else 403
            assert answer.status == (200 if one == audience else refused), answer.text
            assert one != audience or answer.json["email"] == PERSON
        del vouched[HOSTNAME]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[Place]:
    access = Access(TEAM)
    folder = tmp_path_factory.mktemp("locked")
    with (
        Provider(LAST_KEY, also="", pages={"/cdn-cgi/access/certs": access.certs}) as provider,
        ControlPlane(folder / "plane") as plane,
    ):
        open_account(plane)
        plane.edge.internet = provider.url.removeprefix("http://")
        it = Clouded(
            "locked",
            home,
            plane=plane,
            variables={
                "hermes_provider": "rehearsal",
                "hermes_provider_base_url": "https://models.example/v1",
                "hermes_dashboard_hostname": HOSTNAME,
                "hermes_uploader": "plain",
            },
        )
        it.deploy()
        yield Vouched(
            it,
            replace(it, hostname=HOSTNAME),
            provider,
            lambda: str([one.environment for one in it.running()]),
            it.token,
            access=access,
        )


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_it_is_in_force(place: Place, state: State) -> None:
    state.bring(place)


def test_a_gateway_is_shown_the_token_that_it_has_now(place: Place) -> None:
    """It may hold the provider's key itself, so that its own token is all that a call is paid with."""
    variables, before = place.it.variables, dict(place.it.variables)
    for name in ("hermes_provider", "hermes_provider_base_url", "hermes_models"):
        variables.pop(name, None)
    variables |= {"hermes_default_model": "openrouter/stand-in", "openrouter_api_key": LAST_KEY}
    variables["hermes_ai_gateway"] = f"{ACCOUNT}/house"
    for token in ("canary-of-the-first-gateway", "canary-of-the-second-gateway", None):
        variables.pop("hermes_ai_gateway_token", None)
        if token is not None:
            variables["hermes_ai_gateway_token"] = token
        place.deploys()
        seen = len(place.provider.seen)
        assert "By which way?" in place.it.chat("By which way?").said
        asked = [one for one in place.provider.seen[seen:] if one.body]
        shown = {(one.path, one.headers.get("cf-aig-authorization")) for one in asked}
        path = f"/v1/{ACCOUNT}/house/openrouter/chat/completions"
        assert shown == {(path, token and f"Bearer {token}")}
    variables.clear()
    variables.update(before)
    place.deploys()


def test_a_token_that_was_rotated_ends(place: Place) -> None:
    rotate_the_token(place)


def test_a_worker_without_its_token_lets_nobody_in(place: Place) -> None:
    plane = place.it.plane

    def lose() -> None:
        scripts = f"https://api.cloudflare.com/client/v4/accounts/{ACCOUNT}/workers/scripts"
        answer = requests.patch(
            f"{scripts}/{place.it.name}/secrets-bulk",
            json={"secrets": {"API_TOKEN": None}},
            headers={
                "Authorization": f"Bearer {TOKEN}",
                "Content-Type": "application/merge-patch+json",
            },
            proxies={"https": plane.env["HTTPS_PROXY"]},
            verify=plane.env["SSL_CERT_FILE"],
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        plane.advance(DEFERRED_SECONDS + 1)
        wait_until(lambda: place.status("") == 503, "it is known everywhere")

    lose_the_token(place, lose)

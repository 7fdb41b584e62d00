# SPDX-License-Identifier: Apache-2.0
"""What keeps people and keys apart is in force at the stand-in for Cloudflare, with a team of Access before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from clouds import Clouded, open_account
from security import AUDIENCES, LAST_KEY, STATES, TEAM, Place, State

from tests.cloudflare import ControlPlane
from tests.standins.access import PERSON, Access
from tests.standins.provider import Provider

HOSTNAME = "locked.example.com"
CLOSED = 3
"""Of the states, those in which a token is needed; the open ones are seen around a container."""


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
        ControlPlane(folder / "plane", home / "stand-in") as plane,
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
            lambda: str([one.environ() for one in it.supervisor().children(recursive=True)]),
            it.token,
            access=access,
        )


@pytest.mark.parametrize("state", STATES[:CLOSED], ids=lambda state: state.name)
def test_it_is_in_force(place: Place, state: State) -> None:
    state.bring(place)

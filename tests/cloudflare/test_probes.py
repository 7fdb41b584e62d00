# SPDX-License-Identifier: Apache-2.0
"""Each probe of `make live` tells rightly of a Cloudflare that behaves as assumed, and of one that does otherwise."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import Cloudflare

from tests.cloudflare import ControlPlane
from tests.cloudflare.accounts import now
from tests.cloudflare.edge import ROOT
from tests.cloudflare.plane import Answer
from tests.cloudflare.probes import (
    AS_ASSUMED,
    CODE,
    NOT_ASKED,
    OTHERWISE,
    PROBES,
    Field,
    Probe,
    Verdict,
    ask,
    report,
    table,
)
from tests.cloudflare.uploading import ACCOUNT, TOKEN

STAND_IN = CODE.with_name("stand_in.js")
NETWORK = {
    "name": ["11.9.0.1"],
    "nonsense": ["11.9.0.1"],
    "mx": {"code": 4, "answers": 0},
    "port": "timeout",
    "tls": "OSError: refused",
    "http": "caught",
    "websocket": "HTTP/1.1 101 Switching Protocols and a message",
}
RIGHTS = {"rights": "0000000000000000", "file": "refused"}
PLACE = {
    "trace": "fl=1\nloc=NL\ncolo=AMS\n",
    "environ": "CLOUDFLARE_COUNTRY_A2=DE\nCLOUDFLARE_REGION=WEUR\n",
}
FINE = {
    "network": NETWORK,
    "rights": RIGHTS,
    "address": {"status": 403, "text": "error code: 1003"},
    "view": {},
    **PLACE,
}
"""How the scripted container behaves when all is as assumed."""


def network(**otherwise: Any) -> dict[str, Any]:
    return {"network": NETWORK | otherwise}


def refusal(status: int, code: int, message: str = "No.") -> tuple[int, Any]:
    errors = [{"code": code, "message": message}]
    return status, {"success": False, "errors": errors, "messages": [], "result": None}


def good(result: Any) -> tuple[int, Any]:
    return 200, {"success": True, "errors": [], "messages": [], "result": result}


def always(told: tuple[int, Any]) -> Answer:
    return lambda _request: told


def once(told: tuple[int, Any]) -> Answer:
    left = [told]
    return lambda _request: left.pop() if left else None


def listings() -> Answer:
    """A listing whose etag is another one each time."""
    seen: list[None] = []

    def answer(_request: Any) -> tuple[int, Any]:
        seen.append(None)
        return good([{"id": "probing", "etag": f"etag-{len(seen)}"}])

    return answer


RULES, ADDRESSES = "/email/routing/rules$", "/email/routing/addresses$"
SECRETS, TAGS, APPLICATIONS = "/secrets-bulk$", "/script-settings$", "/containers/applications$"
Canned = tuple[str, str, Answer]
# Of each probe: what makes it as assumed beside what is so anyway, and what makes it otherwise. A dict is how the
# scripted container behaves, a tuple how the API or the edge answers.
VARIANTS: dict[str, tuple[Any, Any]] = {
    "image-map": ({}, {"images": {}}),
    "first-start": ({}, {"startSeconds": 320}),
    "later-start": ({}, {"startSeconds": 40}),
    "command-waits": ({}, {"execThrows": True}),
    "command-environment": ({}, {"inherited": ["HERMES_HOME", "OF_THE_START"]}),
    "image-by-digest": ({}, {"refusesDigests": True}),
    "size-basic": ({}, {"refusedSize": "basic"}),
    "kill-after-exit": ({}, {"killThrows": True}),
    "command-pipes": ({}, {"pipesGoOn": True}),
    "rights-of-a-user": ({}, {"rights": {"rights": "000001ffffffffff", "file": "read"}}),
    "snapshot-start": ({"snapshotFailures": 2}, {"snapshotFailures": 1000}),
    "end-is-seen": ({}, {"keepsOn": True}),
    "stays-without-requests": ({"view": {"lives": ["a", "b"]}}, {"view": {"lives": ["a", "a"]}}),
    "client-leaves": ({}, {"cuts": True}),
    "object-place": ({}, {"trace": "loc=US\ncolo=IAD\n"}),
    "container-place": ({}, {"environ": "CLOUDFLARE_COUNTRY_A2=HK\n"}),
    "names-resolve": ({}, network(name=["104.18.0.1"])),
    "nonsense-resolves": ({}, network(nonsense="gaierror: not known")),
    "no-mx": ({}, network(mx={"code": 0, "answers": 2})),
    "other-ports": ({}, network(port="ConnectionRefusedError: refused")),
    "tls-to-an-address": ({}, network(tls="connected")),
    "intercepted-address": ({}, network(http="URLError: timed out")),
    "intercepted-websocket": ({}, network(websocket="HTTP/1.1 400 Bad Request")),
    "fetch-to-an-address": ({}, {"address": {"status": 301, "text": "moved"}}),
    "body-64": ({}, ("POST", "workers.dev/size$", always((413, None)))),
    "body-101": (("POST", "workers.dev/size$", always((413, None))), {}),
    "update-arrives": ({}, {"view": {"VERSION": "1"}}),
    "secret-arrives": ({}, {"view": {"SECRET": "the one before"}}),
    "rollback-arrives": ({}, {"view": {"VERSION": "3"}}),
    "etag": ({}, ("GET", "/workers/scripts$", listings())),
    "secrets-after-rollback": (
        ("PATCH", SECRETS, always(refusal(400, 10215))),
        ("PATCH", SECRETS, always(good({"bindings": []}))),
    ),
    "version-images": ({}, ("GET", "/versions/", always(good({"id": "v", "resources": {}})))),
    "nine-tags": (
        ("PATCH", TAGS, once(refusal(400, 10072))),
        ("PATCH", TAGS, once(good({"tags": []}))),
    ),
    "many-secrets": (
        ("PATCH", SECRETS, always(refusal(400, 10001))),
        ("PATCH", SECRETS, always(good({"bindings": []}))),
    ),
    "second-application": (
        (
            "POST",
            APPLICATIONS,
            always(refusal(400, 1000, "DURABLE_OBJECT_ALREADY_HAS_APPLICATION")),
        ),
        ("POST", APPLICATIONS, always(refusal(409, 1000, "Conflict"))),
    ),
    "zones": ({}, ("GET", "/client/v4/zones$", always(refusal(403, 9109)))),
    "mail-zone": ({}, ("GET", "/email/routing$", always(good({"status": "ready"})))),
    "mail-rule": ({}, ("POST", RULES, always(refusal(400, 2020)))),
    "mail-addresses": ({}, ("GET", ADDRESSES, always(good([{"email": "a@x.test"}])))),
    "mail-binding": ({}, ("PUT", "/workers/scripts/probing$", once(refusal(400, 10021)))),
    # Gone at once, and never.
    "application-deletion": ({}, ("DELETE", "/containers/applications/", always(good(None)))),
}


class Clock:
    """Time that passes only while somebody waits, for the stand-in as well."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def pause(self, seconds: float) -> None:
        self.seconds += seconds
        self.plane.advance(seconds)
        time.sleep(0.01)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ControlPlane, Field]]:
    """The stand-in with the probing Worker on it, whose container is scripted."""
    folder = tmp_path_factory.mktemp("probes")
    with (
        ControlPlane(folder / "cloudflare") as plane,
        pytest.MonkeyPatch.context() as patch,
    ):
        plane.add_account(ACCOUNT, TOKEN, zones=["example.com"])
        (zone,) = plane.state.zones.values()
        zone.takes_mails = True
        plane.state.accounts[ACCOUNT].destinations |= {"a@x.test": now(), "b@x.test": None}
        for name, value in plane.env.items():
            patch.setenv(name, value)
        clock = Clock(plane)
        digest = plane.registry.add_image(f"{ACCOUNT}/hermes")
        there = Field(
            Cloudflare(TOKEN, ACCOUNT),
            "probing",
            f"registry.cloudflare.com/{ACCOUNT}/hermes@{digest}",
            hostname="hermes.example.com",
            megabyte=1000,
            pause=clock.pause,
            clock=clock.now,
            code=CODE.read_text() + STAND_IN.read_text(),
        )
        with there.deployed(folder):
            yield plane, there
        assert plane.state.accounts[ACCOUNT].workers == {}
        assert plane.state.accounts[ACCOUNT].applications == {}
        assert zone.mail_rules == []


def told(stand: tuple[ControlPlane, Field], probe: Probe, variant: Any) -> Verdict:
    plane, there = stand
    there.forget()
    behaves = FINE | (variant if isinstance(variant, dict) else {})
    assert there.request("POST", "stand-in", json=behaves).status_code == 200
    plane.answers[:] = [] if isinstance(variant, dict) else [variant]
    try:
        return ask(probe, there)
    finally:
        plane.answers.clear()


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.id)
def test_a_probe_tells_what_is_otherwise_and_what_is_as_assumed(
    stand: tuple[ControlPlane, Field], probe: Probe
) -> None:
    assumed, otherwise = VARIANTS[probe.id]
    found = told(stand, probe, otherwise)
    assert found.outcome == OTHERWISE, found.told
    assert found.words, "what was seen is told"
    found = told(stand, probe, assumed)
    assert found.outcome == AS_ASSUMED, found.told


def test_each_probe_has_two_variants_and_one_name() -> None:
    assert [probe.id for probe in PROBES] == list(VARIANTS)


def test_without_a_container_a_probe_says_that_it_could_not_be_asked() -> None:
    there = Field(Cloudflare(TOKEN, ACCOUNT), "probing", "image")
    for question in ("start", "environment", "network", "place", "kill", "digest", "size"):
        there._facts[question] = {"error": "there is no ctx.container"}
    asked = {"first-start", "command-environment", "names-resolve", "object-place"}
    asked |= {"kill-after-exit", "image-by-digest", "size-basic"}
    found = [ask(probe, there) for probe in PROBES if probe.id in asked]
    assert {one.told for one in found} == {f"{NOT_ASKED}: there is no ctx.container"}
    there._facts["network"] = {"facts": {}}
    broken = [ask(probe, there) for probe in PROBES if probe.id == "names-resolve"]
    assert [one.outcome for one in broken] == [NOT_ASKED], "another shape is no verdict"


def test_without_a_zone_that_takes_mails_it_is_said_that_nothing_could_be_asked(
    stand: tuple[ControlPlane, Field],
) -> None:
    plane, there = stand
    (zone,) = plane.state.zones.values()
    asked = [probe for probe in PROBES if probe.id in ("mail-rule", "mail-binding")]
    zone.takes_mails = False
    try:
        found = {ask(probe, there).told for probe in asked}
    finally:
        zone.takes_mails = True
    assert found == {f"{NOT_ASKED}: Email Routing is not enabled for example.com"}
    alone = Field(there.api, "probing", "image")
    found = {ask(probe, alone).told for probe in PROBES if probe.id in ("zones", "mail-zone")}
    assert found == {f"{NOT_ASKED}: HERMES_LIVE_HOSTNAME is not set"}


def test_the_report_begins_with_what_is_otherwise() -> None:
    first, second, third = PROBES[:3]
    lines = report(
        [
            Verdict(first, AS_ASSUMED, "after 3.0 s"),
            Verdict(second, NOT_ASKED, "a | b"),
            Verdict(third, OTHERWISE, "after 90.0 s"),
        ]
    )
    assert lines[2:] == [
        f"| `{third.id}` | {third.assumed} | otherwise: after 90.0 s |",
        f"| `{second.id}` | {second.assumed} | could not be asked: a \\| b |",
        f"| `{first.id}` | {first.assumed} | as assumed: after 3.0 s |",
    ]


def test_the_documentation_lists_every_probe() -> None:
    page = (ROOT / "docs" / "cloudflare-differences.md").read_text()
    assert "\n".join(table()) in page

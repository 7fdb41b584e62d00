# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What a deploy will change at Cloudflare is what differs there, and what stands against it is told before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card, Problem
from ansible_collections.hermes.workers.plugins.plugin_utils.build.runtime import Runtime
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.build.variables import (
    COMPATIBILITY_DATE,
    compatibility_flags,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare import account as accounts
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare import place as places
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.place import CloudflarePlace
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.wrangler_config import (
    worker_variables,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.controller import Controller
from api_server import Call, Reply, refused
from cloudflare_play import Play
from fake_account import ACCOUNT, TOKEN, FakeAccount

REFERENCE = f"registry.cloudflare.com/{ACCOUNT}/hermes-workers@sha256:{'0' * 64}"
SOURCES = Sources()


def place(play: Play, **known: Any) -> CloudflarePlace:
    """The place of alice's deployment. known: what was found out about the account already."""
    runtime = Runtime(play.deployment, SOURCES, play.said.append, "cloudflare")
    token = known.pop("token", TOKEN)
    return CloudflarePlace(
        play.settings, play.deployment, runtime, token, lambda _key: known or None
    )


def changes(play: Play) -> list[tuple[str, str, str]]:
    """What a deploy will do."""
    found = place(play).changes({})
    return [(one.action, one.what, one.detail) for one in found]


@pytest.fixture
def deployed(account: FakeAccount, play: Play) -> None:
    """All is as the inventory wants it."""
    play.deployment.create()
    play.deployment.keep_token("old")
    account.variables["alice"] = worker_variables(play.settings, SOURCES, REFERENCE)
    account.configuration = {
        "compatibility_date": COMPATIBILITY_DATE,
        "compatibility_flags": compatibility_flags(play.settings),
    }
    account.bindings = [{"type": "durable_object_namespace", "name": "INSTANCE"}]
    account.applications = [{"id": "n", "name": "alice-hermes"}]
    account.etags = {"alice": "e1"}
    assert changes(play) == []


WORKER = ("update", "worker")


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"WORKER_VERSION": "old"}, "version old -> {version}"),
        ({"WORKER_VERSION": ""}, "version unknown -> {version}"),
        ({"HERMES_SLEEP_AFTER": "1"}, "HERMES_SLEEP_AFTER was changed by hand"),
        ({"MINE": "1"}, "MINE was changed by hand"),
    ],
)
def test_a_variable_that_differs(
    account: FakeAccount, play: Play, change: dict[str, str], words: str
) -> None:
    version = account.variables["alice"]["WORKER_VERSION"]
    # So that what runs is no second difference.
    play.worker.answers["/api/health"] = {"worker": {"version": version}, "instance": {}}
    account.variables["alice"] |= change
    (found,) = changes(play)
    assert found == (*WORKER, words.format(version=version))


@pytest.mark.usefixtures("deployed")
def test_a_version_that_was_proved_here_was_changed_by_hand(
    account: FakeAccount, play: Play
) -> None:
    play.deployment.note_proof(account.variables["alice"]["WORKER_VERSION"])
    account.variables["alice"]["WORKER_VERSION"] = "other"
    ((_action, _what, words),) = changes(play)
    assert words.startswith("version other (changed by hand) -> ")


@pytest.mark.usefixtures("deployed")
def test_what_differs_of_the_worker_itself(account: FakeAccount, play: Play) -> None:
    account.configuration["compatibility_date"] = "2020-01-01"
    account.applications.clear()
    assert changes(play) == [
        (
            *WORKER,
            "its compatibility date was changed by hand; its container application is missing",
        )
    ]


@pytest.mark.usefixtures("deployed")
def test_another_version_that_serves_than_is_newest(account: FakeAccount, play: Play) -> None:
    play.worker.answers["/api/health"] = {"worker": {"version": "old"}, "instance": {}}
    assert changes(play) == [(*WORKER, "version old serves, though a newer one is there")]


@pytest.mark.usefixtures("deployed")
def test_an_image_that_is_only_in_the_registry(
    account: FakeAccount, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.variables["alice"]["HERMES_IMAGE_REFERENCE"] = ""
    monkeypatch.setattr(places.PushedImage, "reference", lambda _image: REFERENCE)
    assert changes(play) == [(*WORKER, "another image")]
    monkeypatch.setattr(places.PushedImage, "reference", lambda _image: "")
    words = f"Hermes {SOURCES.hermes_version}, image {SOURCES.image_for(play.settings)}"
    assert changes(play) == [("create", "image", words)]


BY_SECRET = {"annotations": {"workers/triggered_by": "secret"}}
CARRIED = {"annotations": {"workers/message": "Secrets were changed"}}


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize(
    ("versions", "by_hand"),
    [
        ([("ours", {})], False),
        ([("a", BY_SECRET), ("b", CARRIED), ("ours", {})], False),
        ([("a", {}), ("ours", {})], True),
        ([("a", BY_SECRET), ("b", {}), ("ours", {})], True),
        ([("a", BY_SECRET)], True),
        ([], True),
    ],
)
def test_code_is_changed_by_hand_unless_only_secrets_were(
    account: FakeAccount, play: Play, versions: list[tuple[str, dict[str, Any]]], by_hand: bool
) -> None:
    play.deployment.keep_note("etag", "e0")
    play.deployment.keep_note("version", "ours")
    account.versions = [{"id": identity, **more} for identity, more in versions]
    expected = [(*WORKER, "its code was changed by hand")] if by_hand else []
    assert changes(play) == expected
    # Nobody knows which version was uploaded: what Cloudflare knows it by is all there is.
    play.deployment.drop_note("version")
    assert changes(play) == [(*WORKER, "its code was changed by hand")]
    play.deployment.keep_note("etag", "e1")
    assert changes(play) == []


@pytest.mark.usefixtures("deployed")
def test_secrets_that_differ_by_the_names_that_people_know(
    account: FakeAccount, play: Play
) -> None:
    account.secrets["alice"]["MINE"] = "1"
    assert changes(play) == [("update", "secrets", "MINE (added by hand)")]
    account.secrets["alice"] = {"API_TOKEN": "old", "OPENAI_API_KEY": "x"}
    (found,) = place(play).changes({"OPENAI_API_KEY": "y"})
    assert (found.what, found.detail) == ("secrets", "openai_api_key")
    del account.secrets["alice"]["OPENAI_API_KEY"]
    (found,) = place(play).changes({"OPENAI_API_KEY": "y"})
    assert found.detail == "openai_api_key (missing)"


@pytest.mark.usefixtures("deployed")
def test_a_worker_that_proves_nothing_is_uploaded_again(play: Play) -> None:
    play.worker.silent = True
    play.worker.asked.clear()
    (found,) = place(play).changes({"API_TOKEN": "another"})
    assert found.detail == "it does not answer to our token, or not with its version"
    assert play.worker.asked == ["GET /api/health"], "which may take its time, and is waited once"


@pytest.mark.usefixtures("deployed")
def test_an_object_that_is_behind_its_worker(play: Play) -> None:
    play.worker.in_step = False
    ((_action, what, words),) = changes(play)
    assert what == "secrets"
    assert words.startswith("the Worker has them, its Durable Object still runs with")


@pytest.mark.usefixtures("deployed")
def test_a_token_of_the_inventory_is_tried_after_the_kept_one(
    account: FakeAccount, play: Play
) -> None:
    account.secrets["alice"]["API_TOKEN"] = "new"
    play.worker.asked.clear()
    assert place(play).changes({"API_TOKEN": "new"}) == []
    assert play.worker.asked[:2] == ["GET /api/health", "GET /api/health"]


@pytest.mark.usefixtures("deployed")
def test_tags_and_addresses_that_are_missing(account: FakeAccount, play: Play) -> None:
    account.tags["alice"] = ["own"]
    assert changes(play) == [("update", "routes", "tags that mark the Worker as this deployment")]
    # Whoever gives an address writes them too.
    play.settings = replace(play.settings, mail_address="hermes@example.com")
    routes = [one for one in changes(play) if one[1] == "routes"]
    assert routes == [
        ("create", "routes", "rule that hands mails to hermes@example.com to the Worker")
    ]


def test_a_first_deploy(account: FakeAccount, play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    account.secrets.clear()
    monkeypatch.setattr(places.PushedImage, "reference", lambda _image: REFERENCE)
    ((action, what, words),) = changes(play)
    assert (action, what) == ("create", "worker")
    assert words.endswith(" on alice.acme.workers.dev")
    assert not [call for call in play.server.calls if call.path.endswith("alice/settings")]


def test_what_cloudflare_refuses_of_a_plan_is_a_card(play: Play, account: FakeAccount) -> None:
    made = place(play)
    assert made.deployed.exists
    made.__dict__["reference"] = REFERENCE
    play.deployment.create()
    play.deployment.keep_note("etag", "e0")
    play.deployment.keep_note("version", "ours")
    account.etags = {"alice": "e1"}
    del made.__dict__["account"]
    account.variables["alice"] = worker_variables(play.settings, SOURCES, REFERENCE)
    made.__dict__["deployed"] = replace(
        made.deployed,
        variables=account.variables["alice"],
        bindings={"INSTANCE": "durable_object_namespace"},
        compatibility_date=COMPATIBILITY_DATE,
        compatibility_flags=set(compatibility_flags(play.settings)),
    )
    account.applications = [{"id": "n", "name": "alice-hermes"}]
    made.account.scripts["alice"] = "e1"

    def refuse(call: Call) -> Reply:
        if call.path.endswith("/versions"):
            return refused(400, 7003, "Could not route")
        return account(call)

    play.server.answer = refuse
    with pytest.raises(Card, match="preflight of alice: Cloudflare answers: Could not route"):
        made.changes({})


# What stands against a deployment.


@pytest.fixture
def nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing on this machine stands against it, and the image is in the registry."""
    monkeypatch.setattr(Controller, "problems", lambda _place: [])
    monkeypatch.setattr(Controller, "problems_of_keys", lambda _place: [])
    monkeypatch.setattr(places.PushedImage, "reference", lambda _image: REFERENCE)


def told(problems: list[Problem]) -> list[str]:
    return [f"{one.subject}: {one.sentence}" for one in problems]


@pytest.mark.usefixtures("nothing_here")
def test_nothing_stands_against_it(play: Play) -> None:
    made = place(play)
    assert made.problems() == made.problems_of_keys() == []
    assert made.settings.host == "alice.acme.workers.dev"
    assert made.address == made.connect("t").url == "https://alice.acme.workers.dev"


@pytest.mark.usefixtures("nothing_here")
def test_inputs_that_are_missing_are_told_by_themselves(play: Play) -> None:
    assert place(play, token="").problems() == []
    assert play.server.calls == []


@pytest.mark.usefixtures("nothing_here")
def test_what_was_found_out_for_all_hosts_is_not_asked_again(play: Play) -> None:
    lacking = {"subject": "cloudflare_api_token", "sentence": "x.", "remedy": "y.", "code": "z"}
    known = accounts.Account(problems=[lacking]).as_dict()
    assert told(place(play, **known).problems()) == ["cloudflare_api_token: x."]
    assert told(place(play, **known).problems_of_keys()) == ["cloudflare_api_token: x."]
    assert play.server.calls == []


@pytest.mark.usefixtures("nothing_here")
def test_an_account_without_a_subdomain_and_a_name_that_is_taken(
    account: FakeAccount, play: Play
) -> None:
    known = accounts.Account(scripts={"alice": "e"}).as_dict()
    account.tags["alice"], account.variables["alice"] = [], {}
    (first, second) = told(place(play, **known).problems())
    assert first.startswith("hermes_account_id: the account has no workers.dev subdomain yet")
    taken = "hermes_name: alice is the name of a Worker that was not deployed by this collection."
    assert second == taken
    assert told(place(play, **known).problems_of_keys()) == [taken]


@pytest.mark.usefixtures("nothing_here")
def test_a_refusal_while_it_is_looked_at_is_one_of_the_problems(
    account: FakeAccount, play: Play
) -> None:
    known = accounts.Account(subdomain="acme", scripts={"alice": "e"}).as_dict()
    account.denied = {"script"}
    (sentence,) = told(place(play, **known).problems())
    assert sentence.startswith("preflight of alice: Cloudflare answers: Authentication error")
    assert "alice/settings" in sentence
    (sentence,) = told(place(play, **known).problems_of_keys())
    assert sentence.startswith("cloudflare: Cloudflare answers: Authentication error")


@pytest.mark.usefixtures("nothing_here")
def test_an_address_of_the_api_that_would_show_the_token(play: Play) -> None:
    play.settings.api_base_url = "http://api.example.com"
    (sentence,) = told(place(play).problems())
    assert sentence == "cloudflare_api_token: cloudflare_api_base_url is not an https:// address"


@pytest.mark.usefixtures("nothing_here")
def test_an_image_that_has_to_be_built_needs_an_engine(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_engine = Problem("hermes_engine", "no engine answers.", "start it.", "engine")
    monkeypatch.setattr(places.ContainerEngine, "problems", lambda _engine: [no_engine])
    assert place(play).problems() == []
    monkeypatch.setattr(places.PushedImage, "reference", lambda _image: "")
    assert place(play).problems() == [no_engine]


@pytest.mark.usefixtures("deployed")
def test_the_table_tells_of_what_was_said(account: FakeAccount, play: Play) -> None:
    made = place(play)
    made.settings = replace(
        play.settings,
        location="weur",
        dashboard_hostname="a.example.com",
        route_mode="zone_route",
        mail_address="hermes@example.com",
    )
    rows = {what: (value, source) for what, value, source in made.rows(lambda name: name)}
    assert rows["location"] == ("weur", "as made")
    assert rows["hostname"] == ("a.example.com (zone route)", "hermes_dashboard_hostname")
    assert rows["mail"] == ("hermes@example.com", "hermes_channels")
    assert rows["image"] == ("in the registry", "found")
    bare = {what for what, *_ in place(play).rows(lambda name: name)}
    assert bare == {"size", "image", "cost"}
    del account.secrets["alice"]
    first = place(play)
    first.__dict__["reference"] = ""
    first.wanted_location = "enam"
    rows = {what: (value, source) for what, value, source in first.rows(lambda name: name)}
    assert rows["location"] == ("near its first request", "hermes_location")
    assert rows["image"] == ("will be built and pushed", "found")

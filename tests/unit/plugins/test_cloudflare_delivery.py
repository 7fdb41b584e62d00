# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Keys come to a Worker at Cloudflare and are taken back there; and what a proof of it permits to remove."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.plugin_utils import platform
from ansible_collections.hermes.workers.plugins.plugin_utils.build.runtime import Runtime
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.delivery import (
    CloudflareDelivery,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.place import CloudflarePlace
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.service import (
    CloudflareService,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.delivery import WorkerdDelivery
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.place import WorkerdPlace
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.service import WorkerdService
from api_server import Call, Reply, ok
from cloudflare_play import Play
from fake_account import TOKEN, FakeAccount, Images

KEYS = {"OPENAI_API_KEY": "sk-new"}
BY_SECRET = {"workers/triggered_by": "secret"}
HOLD = "POST /api/instance/hold"


def runtime(play: Play) -> Runtime:
    return Runtime(play.deployment, Sources(), play.said.append, "cloudflare")


@pytest.fixture
def delivery(play: Play) -> CloudflareDelivery:
    made = platform.delivery_of(play.settings, play.deployment, runtime(play), TOKEN)
    assert isinstance(made, CloudflareDelivery)
    assert made.url == "https://alice.acme.workers.dev"
    return made


def test_keys_are_delivered_with_one_call_and_proved(
    delivery: CloudflareDelivery, account: FakeAccount, play: Play
) -> None:
    client = delivery.connect("old")
    assert delivery.before() == "alice-v1"
    delivery.deliver(KEYS, client)
    assert account.secrets["alice"] == {"API_TOKEN": "old"} | KEYS
    assert [one.rpartition("/")[2] for one in play.wrote] == ["secrets-bulk"]
    assert play.worker.asked[0] == HOLD, "requests under way come first"


def test_a_delivery_that_was_cut_off_is_waited_for(
    delivery: CloudflareDelivery, account: FakeAccount, play: Play
) -> None:
    client = delivery.connect("old")
    delivery.deliver({}, client)
    assert HOLD not in play.worker.asked, "its object has it"
    play.worker.in_step = False

    def urged(call: Call) -> Reply:
        if call.method == "POST" and call.path.endswith("/deployments"):
            play.worker.in_step = True
            return ok({})
        return account(call)

    play.server.answer = urged
    delivery.deliver({}, client)
    assert [one.rpartition("/")[2] for one in play.wrote] == ["deployments"]
    assert account.secrets["alice"] == {"API_TOKEN": "old"}


def test_keys_that_are_not_proved_are_told(
    delivery: CloudflareDelivery, account: FakeAccount, play: Play
) -> None:
    play.server.answer = lambda call: ok({}) if call.write else account(call)
    with pytest.raises(
        Card, match="the Worker does not prove its new secrets within 120 s"
    ) as told:
        delivery.deliver(KEYS, delivery.connect("old"))
    assert "The API token of before is valid" in told.value.render()
    # It takes the keys, and its object is in step with it, but it shows nobody which they are.
    play.server.answer = account
    play.worker.answers["/api/secrets/proof"] = 503
    with pytest.raises(Card, match="does not prove its new secrets"):
        delivery.deliver(KEYS, delivery.connect("old"))
    play.worker.silent = True
    with pytest.raises(Card, match="does not prove its new secrets"):
        delivery.deliver(KEYS, delivery.connect("old"))


class Deployments:
    """The account after a change of keys; serving `before` takes the keys back."""

    def __init__(self, account: FakeAccount, *since: dict[str, Any]) -> None:
        self.account = account
        self.since = list(since)
        self.takes_back = True
        self.before = [{"versions": [{"version_id": "before", "percentage": 100}]}]
        self.served: list[dict[str, Any]] = []
        account.secrets["alice"] |= KEYS

    def __call__(self, call: Call) -> Reply:
        if call.path.endswith("/deployments") and call.method == "POST":
            self.served.append(call.body | call.query)
            if self.takes_back:
                self.account.secrets["alice"] = {"API_TOKEN": "old"}
            return ok({})
        if call.path.endswith("/deployments"):
            return ok({"deployments": [*self.since, *self.before]})
        if "/versions/" in call.path:
            made = call.path.rpartition("/")[2]
            return ok({"annotations": BY_SECRET if made == "by-secret" else {}})
        return self.account(call)


def deployment(version: str, **annotations: str) -> dict[str, Any]:
    shares = [{"version_id": version, "percentage": 100}]
    return {"versions": shares, "annotations": annotations}


@pytest.mark.parametrize(
    "since",
    [
        [deployment("a", **BY_SECRET)],
        [deployment("by-secret"), deployment("b", **BY_SECRET)],
    ],
    ids=["by a call", "by an upload too"],
)
def test_keys_are_taken_back_by_serving_the_version_of_before(
    delivery: CloudflareDelivery, account: FakeAccount, play: Play, since: list[dict[str, Any]]
) -> None:
    play.server.answer = made = Deployments(account, *since)
    delivery.undo("before", KEYS, delivery.connect("old"))
    (served,) = made.served
    assert served["versions"] == [{"version_id": "before", "percentage": 100}]
    assert served["force"] == "true", "although it holds other secrets than today's"
    assert HOLD in play.worker.asked


def test_what_serves_already_is_not_served_again(
    delivery: CloudflareDelivery, account: FakeAccount, play: Play
) -> None:
    play.server.answer = made = Deployments(account)
    delivery.undo("before", KEYS, delivery.connect("old"))
    assert made.served == []
    assert play.worker.asked == []


@pytest.mark.parametrize(
    ("before", "since"),
    [
        ("", [deployment("a", **BY_SECRET)]),
        ("before", [deployment("a", **BY_SECRET), deployment("code")]),
    ],
    ids=["nobody knows what served", "somebody deployed"],
)
def test_a_deploy_since_is_not_taken_back_with_them(
    delivery: CloudflareDelivery,
    account: FakeAccount,
    play: Play,
    before: str,
    since: list[dict[str, Any]],
) -> None:
    play.server.answer = made = Deployments(account, *since)
    made.before = made.before if before else []
    with pytest.raises(Card, match="something was deployed since the keys were changed"):
        delivery.undo(before, KEYS, delivery.connect("old"))
    assert made.served == []


def test_keys_that_are_there_all_the_same_are_not_taken_back(
    delivery: CloudflareDelivery, account: FakeAccount, play: Play
) -> None:
    play.server.answer = made = Deployments(account, deployment("a", **BY_SECRET))
    made.takes_back = False
    with pytest.raises(Card, match="does not prove"):
        delivery.undo("before", KEYS, delivery.connect("old"))


# What is served.


@pytest.fixture
def service(play: Play) -> CloudflareService:
    play.deployment.create()
    return serve(play)


def serve(play: Play) -> CloudflareService:
    made = platform.service_of(play.settings, play.deployment, runtime(play), TOKEN)
    assert isinstance(made, CloudflareService)
    return made


def test_the_registry_is_left_alone_unless_it_is_asked_for(
    service: CloudflareService, play: Play
) -> None:
    old = play.deployment.runtime / "bundle-of-before"
    old.mkdir()
    service.prune()
    assert not old.exists(), "here what nobody uses goes"
    assert play.server.calls == []


def test_old_images_go_and_are_told(play: Play, images: Images, account: FakeAccount) -> None:
    play.settings = replace(play.settings, prune_images=True)
    images.repository = "hermes-workers"
    account.variables["alice"]["HERMES_IMAGE_REFERENCE"] = "r/hermes-workers@sha256:odd"
    play.deployment.create()
    service = serve(play)
    service.prune()
    assert set(images.tags) == {"new", "odd"}
    assert play.said == ["deleted old images from the registry: old"]
    assert images.collected == 1
    service.prune()
    assert len(play.said) == images.collected == 1, "nothing was left to delete"
    account.denied = {"credentials"}
    with pytest.raises(Card, match="hermes_prune_images: Cloudflare answers"):
        service.prune()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dashboard": False, "dashboard_hostname": "a.example.com"}, "off (hermes_dashboard)"),
        ({"dashboard_hostname": ""}, "off (hermes_dashboard_hostname is not set)"),
        ({"dashboard_hostname": "a.example.com"}, "https://a.example.com (sign in with the token)"),
    ],
)
def test_where_the_dashboard_is(play: Play, change: dict[str, Any], words: str) -> None:
    play.settings = replace(play.settings, **change)
    service = serve(play)
    assert service.dashboard({}) == words


def test_what_is_told_of_what_is_served(service: CloudflareService) -> None:
    assert service.url == service.reached == "https://alice.acme.workers.dev"
    assert service.is_as_built()
    assert dict(service.rows({}))["sandbox"] == "Cloudflare container, standard-1"
    assert service.connect("t").token == service.stranger("t").token == "t"
    assert "does not answer" in service.not_served(None).render()


def test_each_platform_has_its_three_faces(play: Play) -> None:
    faces: dict[str, tuple[type, ...]] = {
        "cloudflare": (CloudflarePlace, CloudflareDelivery, CloudflareService),
        "workerd": (WorkerdPlace, WorkerdDelivery, WorkerdService),
    }
    for name, kinds in faces.items():
        settings = replace(play.settings, platform=name)
        given = (settings, play.deployment, runtime(play))
        place = platform.place_of(
            *given, listens=False, cloudflare_token=TOKEN, known=lambda _key: None
        )
        made = (place, platform.delivery_of(*given, TOKEN), platform.service_of(*given, TOKEN))
        assert tuple(type(one) for one in made) == kinds

# SPDX-License-Identifier: Apache-2.0
"""What the product's client makes of an account that pages, delays, conflicts and refuses as Cloudflare does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import client as cloudflare
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import (
    containers,
    dns,
    domains,
    scripts,
    secrets,
    zones,
)
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import (
    Cloudflare,
    CloudflareError,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare import account as accounts
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.plan import code_changed
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder

from tests.cloudflare import ControlPlane
from tests.cloudflare.accounts import Worker, Zone
from tests.cloudflare.uploading import ACCOUNT, OTHER, TOKEN, upload

Make = Callable[..., Cloudflare]
IDN, ASCII = "bücher.example", "xn--bcher-kva.example"
LIMITED = "token-of-one-zone"


@pytest.fixture
def worker(plane: ControlPlane, client: Make) -> Worker:
    """A Worker whose Durable Objects start a container."""
    upload(client(), containers=starting(plane.add_image(ACCOUNT)))
    return plane.state.accounts[ACCOUNT].workers["box"]


def starting(image: str) -> list[dict[str, Any]]:
    return [{"name": "box", "class_name": "Box", "images": {"hermes": image}}]


def namespace(worker: Worker) -> str:
    return worker.namespaces["Box"].id


def test_a_zone_in_another_script_is_found_by_what_dns_calls_it(
    plane: ControlPlane, client: Make
) -> None:
    zone = plane.add_zone(ACCOUNT, IDN)
    found = zones.find(client(), f"hermes.{ASCII}")
    assert (found["id"], found["name"]) == (zone.id, IDN)
    survey = accounts.of_hostnames(client(), [f"hermes.{ASCII}"])
    assert survey.zone_of(f"hermes.{ASCII}")["id"] == zone.id
    upload(client())
    domains.attach(client(), f"hermes.{ASCII}", "box", zone.id)
    assert [one["name"] for one in zone.records.values()] == [f"hermes.{ASCII}"]


def test_a_token_of_one_zone_asks_for_it_by_name(plane: ControlPlane, client: Make) -> None:
    plane.add_zone(ACCOUNT, "example.org")
    plane.add_account(ACCOUNT, LIMITED)
    (zone,) = [one for one in plane.state.zones.values() if one.name == "example.com"]
    plane.state.tokens[LIMITED].zones = {zone.id}
    api = client(LIMITED)
    with pytest.raises(CloudflareError):
        zones.listing(api)
    survey = accounts.survey(api, ["a.b.example.com", "x.example.org"])
    assert (survey.problems, survey.zone_problems[""]) == ([], [])
    assert [one["id"] for one in survey.zones] == [zone.id]
    plane.state.tokens[LIMITED].permissions.discard("Zone Read")
    survey = accounts.survey(api, ["a.b.example.com"])
    assert "lacks the permission Zone: Read" in str(survey.zone_problems[""])


def test_a_zone_of_that_name_in_another_account_is_not_ours(
    plane: ControlPlane, client: Make
) -> None:
    plane.state.zones.clear()
    plane.add_account(OTHER, TOKEN, subdomain="other")
    theirs, ours = plane.add_zone(OTHER, "example.com"), plane.add_zone(ACCOUNT, "example.com")
    assert zones.find(client(), "a.example.com")["id"] == ours.id
    del plane.state.zones[ours.id]
    assert zones.find(client(), "a.example.com") is None
    assert theirs.id in plane.state.zones


def test_two_deploys_at_once_make_one_application(worker: Worker, client: Make) -> None:
    api = client()
    for _ in range(2):
        containers.create_application(api, "box-hermes", namespace(worker))
    assert [one["id"] for one in containers.applications(api)] == [namespace(worker)]
    with pytest.raises(CloudflareError, match="DURABLE_OBJECT_NOT_FOUND"):
        containers.create_application(api, "box-hermes", "f" * 32)


def test_a_deleted_application_is_waited_for(
    plane: ControlPlane, worker: Worker, client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.deletion_seconds = 60
    api = client()
    containers.create_application(api, "box-hermes", namespace(worker))
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        assert containers.application(api, namespace(worker)), "it is there until it is gone"
        waits.append(seconds)
        plane.advance(seconds * 10)

    monkeypatch.setattr(containers.time, "sleep", sleep)
    assert containers.delete_application(api, namespace(worker))
    assert containers.applications(api) == []
    assert waits
    assert not containers.delete_application(api, namespace(worker))


def test_an_application_that_stays_is_told(
    plane: ControlPlane, worker: Worker, client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.deletion_seconds = 1e9
    containers.create_application(client(), "box-hermes", namespace(worker))
    monkeypatch.setattr(containers, "DELETION_SECONDS", 0.0)
    with pytest.raises(CloudflareError, match="still there"):
        containers.delete_application(client(), namespace(worker))


def test_an_account_that_may_not_prepare_images_is_not_told_of_its_token(
    plane: ControlPlane, client: Make
) -> None:
    plane.state.accounts[ACCOUNT].prepares_images = False
    with pytest.raises(CloudflareError) as caught:
        containers.prepare_image(client(), plane.add_image(ACCOUNT))
    card = caught.value.card("worker of alice").render()
    assert "Image preparation is not enabled for this account" in card
    assert "the account may not use what Cloudflare names" in card
    assert "docs/errors.md#account" in card


def test_only_workers_that_can_start_containers_are_asked_for_their_images(
    plane: ControlPlane, worker: Worker, client: Make
) -> None:
    for number in range(20):
        upload(client(), f"plain-{number}", "export default {}", bindings=[], migrations=None)
    containers.create_application(client(), "box-hermes", namespace(worker))
    start = len(plane.calls)
    assert containers.images_in_use(client()) == {worker.current.containers[0]["images"]["hermes"]}
    assert len(plane.calls) - start <= 4
    assert not [call for call in plane.calls[start:] if "plain-" in call.path]


def test_images_that_are_not_told_are_not_taken_for_unused(
    plane: ControlPlane, worker: Worker, client: Make
) -> None:
    image = worker.current.containers[0]["images"]["hermes"]
    containers.create_application(client(), "box-hermes", namespace(worker))
    worker.current.metadata["containers"] = []
    with pytest.raises(CloudflareError, match="does not tell which images"):
        containers.images_in_use(client())
    named = {"type": "plain_text", "name": "HERMES_IMAGE_REFERENCE", "text": image}
    worker.current.bindings.append(named)
    assert containers.images_in_use(client()) == {image}


def test_pages_by_a_token_are_followed_by_its_name() -> None:
    info = {"next_page_token": "two"}
    assert cloudflare._next_page(info, {}, 1) == {"page_token": "two"}


class TestRecordsThatGiveWay:
    """What had to go for a hostname comes back where Cloudflare refuses the hostname."""

    HOST = "hermes.example.com"

    @pytest.fixture
    def zone(self, plane: ControlPlane, client: Make) -> Zone:
        upload(client())
        zone = next(iter(plane.state.zones.values()))
        record = {"type": "A", "name": self.HOST, "content": "192.0.2.1", "proxied": True}
        dns.create(client(), zone.id, record | {"ttl": 1, "comment": "the blog's"})
        return zone

    def shown(self, zone: Zone) -> list[tuple[str, str, str | None]]:
        return [(one["type"], one["content"], one["comment"]) for one in zone.records.values()]

    def test_it_goes_for_a_custom_domain(self, zone: Zone, client: Make) -> None:
        records = dns.listing(client(), zone.id, self.HOST)
        domains.attach_over(client(), self.HOST, "box", zone.id, records)
        assert self.shown(zone) == [("AAAA", "100::", None)]

    def test_it_stays_where_something_else_is_in_the_way(
        self, zone: Zone, plane: ControlPlane, client: Make
    ) -> None:
        records, start = dns.listing(client(), zone.id, self.HOST), len(plane.calls)
        with pytest.raises(CloudflareError):
            domains.attach_over(client(), self.HOST, "nobody", zone.id, records)
        assert [call.method for call in plane.writes(start)] == ["PUT"], "it was not even touched"

    def test_it_comes_back_where_the_hostname_is_refused_then(
        self, zone: Zone, client: Make, plane: ControlPlane
    ) -> None:
        before = self.shown(zone)
        records = dns.listing(client(), zone.id, self.HOST)
        api = client()
        real, tries = api.put, []

        def put(path: str, body: Any = None, **query: Any) -> Any:
            tries.append(path)
            if len(tries) == 2:
                plane.faults.on("PUT", "/workers/domains$", "refused")
            return real(path, body, **query)

        api.put = put
        with pytest.raises(CloudflareError):
            domains.attach_over(api, self.HOST, "box", zone.id, records)
        assert self.shown(zone) == before


def test_a_change_of_secrets_is_no_change_of_the_code(
    plane: ControlPlane, worker: Worker, client: Make
) -> None:
    uploaded = worker.current.id
    bulk = {"KEY": {"name": "KEY", "type": "secret_text", "text": "new"}}
    client().patch(scripts.path(client(), "box", "secrets-bulk"), {"secrets": bulk}, merge=True)
    newest, *_ = scripts.versions(client(), "box")
    assert newest["id"] != uploaded
    assert scripts.changes_secrets_only(newest)
    upload(client(), code="export class Box {}", migrations=None)
    assert not scripts.changes_secrets_only(scripts.versions(client(), "box")[0])


def test_secrets_after_an_upload_are_not_told_as_other_code_and_other_code_is(
    worker: Worker, client: Make, tmp_path: Path
) -> None:
    """Cloudflare may list another etag for either."""
    deployment = StateFolder(str(tmp_path), "box")
    deployment.folder.mkdir()
    deployment.keep_note("etag", worker.current.etag)
    deployment.keep_note("version", worker.current.id)
    listed = accounts.Account(scripts={"box": "another"})
    for value in ("new", "newer"):
        secrets.write(client(), "box", {"KEY": value})
        assert not code_changed(client(), deployment, listed, "box")
    upload(client(), code="export class Box {}", migrations=None)
    assert code_changed(client(), deployment, listed, "box")
    secrets.write(client(), "box", {"KEY": "newest"})
    assert code_changed(client(), deployment, listed, "box"), "whatever was changed after it"

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A deployment is taken away from Cloudflare whole, the Worker last; and nothing that is another's goes with it."""

from __future__ import annotations

import hashlib
import json

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.plugin_utils.containers.image import Containers
from api_server import Call, Reply, refused
from cloudflare_play import Play
from fake_account import ACCOUNT, ZONE, FakeAccount, Images

NAME, MAIL = "a.example.com", "hermes@example.com"
SLEEP, BACKUPS = "POST /api/instance/sleep", "/api/instance/backups"


def rule(address: str, worker: str) -> dict[str, object]:
    matchers = [{"type": "literal", "field": "to", "value": address}]
    return {
        "id": f"m-{worker}",
        "matchers": matchers,
        "actions": [{"type": "worker", "value": [worker]}],
    }


@pytest.fixture(autouse=True)
def deployed(account: FakeAccount, play: Play) -> None:
    """Two deployments, of which alice's has a hostname, a mail address and an application."""
    account.secrets["bob"] = {}
    account.tags["bob"] = ["hermes.workers", "hermes.workers:bob"]
    account.tags["alice"] += [f"hermes.workers.host:{NAME}", f"hermes.workers.mail:{MAIL}"]
    for name, worker in ((NAME, "alice"), ("b.example.com", "bob")):
        made = {"id": f"d-{worker}", "hostname": name, "service": worker, "zone_id": ZONE}
        account.domains[made["id"]] = made
    account.rules = {
        f"m-{worker}": rule(f"{name}@example.com", worker)
        for name, worker in (("hermes", "alice"), ("bob", "bob"))
    }
    account.applications = [{"id": one, "name": f"{one}-hermes"} for one in ("alice", "bob")]
    play.deployment.create()
    play.deployment.keep_token("old")
    play.deployment.keep_note("host", "alice.acme.workers.dev")
    play.worker.answers[BACKUPS] = {"backups": []}


def test_all_of_it_goes_the_worker_last_and_nothing_of_another(
    account: FakeAccount, play: Play
) -> None:
    result = play.run("cloudflare_destroy", confirmed="yes")
    assert result["changed"] is True, result
    assert [one.rpartition("/")[2] for one in play.wrote] == [
        "d-alice",
        "m-alice",
        "alice",
        "alice",
    ]
    assert "applications" in play.wrote[2]
    assert "services" in play.wrote[3]
    assert set(account.secrets) == {"bob"}
    assert set(account.domains) == {"d-bob"}
    assert set(account.rules) == {"m-bob"}
    assert [one["id"] for one in account.applications] == ["bob"]
    assert not play.state.exists()
    assert "  no backup was kept" in play.shown


def test_its_last_state_is_saved_and_kept_before_anything_goes(
    account: FakeAccount, play: Play
) -> None:
    digest = hashlib.sha256(b"state").hexdigest()
    play.worker.content = json.dumps({"sha256": digest}).encode() + b"\nstate"
    made = {"id": "1", "state": "good", "created": "2026-01-02T03:04:05Z", "bytes": 5}
    play.worker.answers[BACKUPS] = {"backups": [made | {"sha256": digest}]}
    result = play.run("cloudflare_destroy", confirmed="yes")
    (kept,) = (play.state / "backups").iterdir()
    assert result["backup"] == str(kept)
    assert kept.read_bytes() == play.worker.content
    assert SLEEP in play.worker.asked
    assert any("make restore" in line or "restore" in line for line in play.shown)
    assert "alice" not in account.secrets


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "its last backup cannot be taken: the Worker does not answer"),
        ({BACKUPS: 503}, "its last backup cannot be taken: "),
        ({SLEEP: 503}, "its state could not be saved before it is destroyed"),
    ],
)
def test_without_a_backup_nothing_goes(
    play: Play, answer: dict[str, int] | None, words: str
) -> None:
    play.worker.silent = answer is None
    play.worker.answers |= answer or {}
    result = play.run("cloudflare_destroy", confirmed="yes")
    assert words in result["msg"]
    assert play.wrote == []
    assert play.deployment.token() == "old"


def test_what_may_be_forgotten_is_not_asked_for(account: FakeAccount, play: Play) -> None:
    play.worker.silent = True
    assert play.run("cloudflare_destroy", confirmed="yes", forget="yes")["changed"]
    assert "alice" not in account.secrets


def test_nothing_goes_that_nobody_confirmed(play: Play) -> None:
    result = play.run("cloudflare_destroy")
    assert "not destroyed: nobody confirmed it" in result["msg"]
    assert play.run("cloudflare_destroy", check=True, confirmed="yes")["changed"] is True
    assert play.wrote == []
    assert play.worker.asked == []


def test_the_plan_names_what_goes(account: FakeAccount, play: Play) -> None:
    result = play.run("cloudflare_destroy", only_plan=True, prune_images="yes")
    assert (result["changed"], result["exists"]) == (False, True)
    assert [line.strip() for line in play.shown][1:8] == [
        "Plan to destroy alice",
        f"delete  Worker alice with its memory (account {ACCOUNT})",
        "delete  container application alice-hermes",
        f"delete  {NAME}: custom domain or route, and record",
        f"delete  rule of Email Routing for {MAIL}",
        "remove  state/alice (token, build, logs)",
        "delete  images of Hermes that no other Worker names",
    ]
    assert play.wrote == []


def test_the_plan_names_nothing_that_is_not_there(account: FakeAccount, play: Play) -> None:
    def named() -> list[str]:
        play.run("cloudflare_destroy", only_plan=True)
        return [line.split()[1] for line in play.shown if line.split()[0:1] == ["delete"]]

    account.applications.clear()
    account.tags["alice"] = account.tags["alice"][:2]
    account.domains.clear()
    assert named() == ["Worker"]
    assert "remove  state/alice" in " ".join(play.shown)
    play.deployment.folder.rename(play.state / "elsewhere")
    assert named() == ["Worker"]
    assert "remove" not in " ".join(play.shown)
    account.applications = [{"id": "alice", "name": "alice-hermes"}]
    del account.secrets["alice"]
    assert named() == ["container"]
    assert "backup" not in " ".join(play.shown), "nobody is there to ask for one"


def test_where_there_is_nothing_the_plan_says_so(account: FakeAccount, play: Play) -> None:
    del account.secrets["alice"]
    account.applications = []
    account.domains.clear()
    play.deployment.folder.rename(play.state / "elsewhere")
    result = play.run("cloudflare_destroy", only_plan=True)
    assert (result["changed"], result["exists"]) == (False, False)
    assert "nothing to remove" in " ".join(play.shown)
    assert play.run("cloudflare_destroy", confirmed="yes")["changed"] is False


def test_a_destroy_that_was_cut_is_gone_on_with(account: FakeAccount, play: Play) -> None:
    """The Worker is gone: what is left is found by its names, and by whom a custom domain would lead to."""
    del account.secrets["alice"]
    result = play.run("cloudflare_destroy", confirmed="yes")
    assert result["changed"] is True, result
    assert set(account.domains) == {"d-bob"}
    assert [one["id"] for one in account.applications] == ["bob"]
    assert not [line for line in play.said if "deleting the Worker" in line]
    assert "  no backup was kept" in play.shown


def test_a_worker_of_another_is_no_deployment(account: FakeAccount, play: Play) -> None:
    account.tags["alice"], account.variables["alice"] = ["team"], {}
    result = play.run("cloudflare_destroy", confirmed="yes")
    assert "alice is the name of a Worker that was not deployed by this collection" in result["msg"]
    assert play.wrote == []
    # Tags may have been cut off by hand.
    account.variables["alice"] = {"HERMES_PLATFORM": "cloudflare"}
    assert play.run("cloudflare_destroy", confirmed="yes")["changed"]


@pytest.mark.parametrize(
    ("denied", "words"),
    [
        ("verify", "not valid"),
        ("all_routes", "Workers Routes: Edit"),
        ("all_rules", "Email Routing Rules: Edit"),
    ],
)
def test_a_token_that_could_not_take_all_of_it_takes_nothing(
    account: FakeAccount, play: Play, denied: str, words: str
) -> None:
    account.denied = {denied}
    result = play.run("cloudflare_destroy", confirmed="yes")
    assert words in result["msg"]
    assert play.wrote == []


def test_a_failure_in_the_middle_tells_what_is_gone(account: FakeAccount, play: Play) -> None:
    def refuse(call: Call) -> Reply:
        if call.method == "DELETE" and "applications" in call.path:
            return refused(400, 1000, "APPLICATION_IS_LOCKED")
        return account(call)

    play.server.answer = refuse
    result = play.run("cloudflare_destroy", confirmed="yes")
    assert "destroying alice: Cloudflare answers: APPLICATION_IS_LOCKED" in result["msg"]
    assert f"Deleted: {NAME}, {MAIL}." in result["msg"]
    assert "alice" in account.secrets
    assert play.deployment.token() == "old", "the next run needs it"


def test_a_failure_before_anything_went_tells_of_nothing(account: FakeAccount, play: Play) -> None:
    play.server.answer = lambda _call: refused(400, 1000, "Bad request")
    result = play.run("cloudflare_destroy", confirmed="yes")
    assert "Deleted" not in result["msg"]
    assert "Bad request" in result["msg"]


def test_an_application_that_stays_is_no_success(account: FakeAccount, play: Play) -> None:
    """Cloudflare says yes at once, and does it later."""
    looks: list[int] = []

    def late(call: Call) -> Reply:
        if call.path.endswith("/applications/alice") and call.method == "DELETE":
            return Reply(200, {"result": None, "success": True})
        if call.path.endswith("/applications/alice") and len(looks) < stays:
            looks.append(1)
            return Reply(200, {"result": {"id": "alice"}, "success": True})
        if call.path.endswith("/applications/alice"):
            return refused(404, 1000, "APPLICATION_NOT_FOUND")
        return account(call)

    stays = 1000
    play.server.answer = late
    result = play.run("cloudflare_destroy", confirmed="yes")
    assert "the container application is still there 120 s after it was deleted" in result["msg"]
    assert "alice" in account.secrets
    looks.clear()
    stays = 3
    assert play.run("cloudflare_destroy", confirmed="yes")["changed"]
    assert len(looks) == 3


def test_an_application_that_somebody_deletes_meanwhile_is_gone(
    account: FakeAccount, play: Play
) -> None:
    def gone(call: Call) -> Reply:
        if call.path.endswith("/applications/alice"):
            return refused(404, 1000, "APPLICATION_NOT_FOUND")
        return account(call)

    play.server.answer = gone
    assert play.run("cloudflare_destroy", confirmed="yes")["changed"]
    assert "alice" not in account.secrets


def test_what_the_inventory_says_wrong_is_told_with_where_it_runs(play: Play) -> None:
    play.variables["hermes_account_id"] = "not an account"
    result = play.run("cloudflare_destroy", confirmed="yes")
    assert "hermes_account_id" in result["msg"]
    assert play.server.calls == []
    play.variables["hermes_account_id"] = ACCOUNT
    play.variables["hermes_platform"] = "mars"
    assert "hermes_platform: " in play.run("cloudflare_destroy", confirmed="yes")["msg"]
    assert play.server.calls == []
    result = play.run("cloudflare_destroy", prune_images="perhaps")
    assert "'perhaps' is neither yes nor no" in result["msg"]


def test_what_runs_here_is_not_looked_for_at_cloudflare(play: Play) -> None:
    (play.deployment.folder / "storage" / "db").write_text("")
    play.deployment.drop_note("host")
    result = play.run("cloudflare_destroy", confirmed="yes")
    assert "alice was deployed to this machine, and the inventory says cloudflare" in result["msg"]
    assert play.server.calls == []
    # What was kept here before it moved there is no reason.
    play.deployment.keep_note("host", "alice.acme.workers.dev")
    assert play.run("cloudflare_destroy", confirmed="yes")["changed"]


def test_images_that_no_other_worker_names_go_with_it(play: Play, images: Images) -> None:
    """One of another Worker's is kept by its digest, one of another application's by its tag."""
    images.repository = "hermes-workers"
    play.account.applications[0] |= {
        "name": "odd",
        "configuration": {"image": f"r/{images.repository}:odd"},
    }
    new = {"configuration": {"image": play.account.images["alice"]["hermes"]}}
    play.account.applications.append(new | {"id": "bob", "name": "bob-hermes"})
    assert play.run("cloudflare_destroy", confirmed="yes", prune_images="yes")["changed"]
    assert set(images.tags) == {"new", "odd"}
    assert "deleted images: old" in play.said


def test_an_engine_that_is_gone_keeps_nobody_from_destroying(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def remove_all(made: Containers) -> None:
        asked.append(made.session)
        raise Card.of("docker", "no engine answers.", "", "engine")

    monkeypatch.setattr(Containers, "remove_all", remove_all)
    play.deployment.note_containers("/run/docker.sock", "s1")
    assert play.run("cloudflare_destroy", confirmed="yes")["changed"]
    assert asked == ["s1"]

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""The steps of a deploy at Cloudflare, image, Worker, secrets and addresses: what was planned, or why not."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.action import cloudflare_worker
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import Cloudflare
from ansible_collections.hermes.workers.plugins.module_utils.docker import DockerError
from ansible_collections.hermes.workers.plugins.plugin_utils.agent.content import ARCHIVE
from ansible_collections.hermes.workers.plugins.plugin_utils.build.runtime import Runtime
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare import image as images_of
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare import upload
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.image import PushedImage
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.wrangler import Wrangler
from api_server import Call, Reply, ok, refused
from cloudflare_play import Play
from fake_account import ACCOUNT, FakeAccount, Images

REFERENCE = f"registry.cloudflare.com/{ACCOUNT}/hermes@sha256:{'0' * 64}"
SECRETS = {"OPENAI_API_KEY": "sk-canary-0123456789"}


@pytest.fixture
def deployed(account: FakeAccount, play: Play) -> None:
    """Alice's Worker is there, with the token of the state folder and a key that the inventory has too."""
    play.deployment.create()
    play.deployment.keep_token("old")
    account.secrets["alice"] |= SECRETS
    play.variables["openai_api_key"] = SECRETS["OPENAI_API_KEY"]
    assert play.run("cloudflare_secrets", planned=True)["changed"] is False
    play.server.calls.clear()
    play.worker.asked.clear()


# Secrets.


def secrets(play: Play, **more: Any) -> Any:
    return play.run("cloudflare_secrets", planned=True, **more)


@pytest.mark.usefixtures("deployed")
def test_secrets_that_were_not_planned_are_not_looked_at(play: Play) -> None:
    assert play.run("cloudflare_secrets")["changed"] is False
    assert play.server.calls == []
    assert play.worker.asked == []


@pytest.mark.usefixtures("deployed")
def test_a_secret_that_differs_is_written_with_one_call_and_proved(
    account: FakeAccount, play: Play
) -> None:
    account.secrets["alice"] |= {"OPENAI_API_KEY": "sk-of-before", "MINE": "1"}
    told = secrets(play, check=True, diff=True)
    assert (told["changed"], told["names"]) == (True, ["MINE", "openai_api_key"])
    assert told["diff"] == {"prepared": "changed MINE\nchanged openai_api_key\n"}
    assert play.wrote == []
    told = secrets(play)
    assert (told["changed"], told["msg"]) == (True, "changed MINE, openai_api_key")
    assert "diff" not in told
    assert account.secrets["alice"] == {"API_TOKEN": "old"} | SECRETS
    assert [one.rpartition("/")[2] for one in play.wrote] == ["secrets-bulk"]
    assert "canary" not in json.dumps(told) + " ".join(play.said)
    assert play.deployment.token() == "old"


@pytest.mark.usefixtures("deployed")
def test_a_worker_that_proves_nothing_keeps_its_secrets(play: Play) -> None:
    play.worker.silent = True
    assert "the Worker does not prove what secrets it holds" in secrets(play)["msg"]
    assert play.wrote == []


@pytest.mark.usefixtures("deployed")
def test_an_object_that_is_behind_is_brought_to_what_the_worker_has(
    account: FakeAccount, play: Play
) -> None:
    """Whoever changed the secrets was ended before the Durable Object had them too."""
    play.worker.in_step = False

    def served(call: Call) -> Reply:
        if call.method == "POST" and call.path.endswith("deployments"):
            play.worker.in_step = True
            return ok({})
        return account(call)

    play.server.answer = served
    assert secrets(play, check=True)["changed"] is True
    assert play.wrote == []
    told = secrets(play)
    assert (told["changed"], told["names"]) == (True, [])
    assert "its Durable Object still runs with what it had before" in told["msg"]
    assert [one.rpartition("/")[2] for one in play.wrote] == ["deployments"]
    assert "bringing the Worker's Durable Object" in play.said[0]
    assert secrets(play)["changed"] is False


@pytest.mark.usefixtures("deployed")
def test_an_object_that_takes_them_by_itself_is_not_urged(play: Play) -> None:
    looks: list[int] = []
    play.worker.in_step = False
    answer = play.worker.answer

    def late(token: str | None, method: str, path: str, body: Any) -> Any:
        if path == "/api/health":
            looks.append(1)
            play.worker.in_step = len(looks) > 4
        return answer(token, method, path, body)

    play.worker.answer = late
    assert secrets(play)["changed"] is True
    assert play.wrote == []


@pytest.mark.parametrize("shares", [(), ("a", "b")], ids=["none", "two"])
@pytest.mark.usefixtures("deployed")
def test_of_versions_that_share_the_requests_none_is_chosen(
    account: FakeAccount, play: Play, shares: tuple[str, ...]
) -> None:
    play.worker.in_step = False
    versions = [{"version_id": one, "percentage": 50} for one in shares]
    there = [{"id": "d", "versions": versions}] if versions else []

    def served(call: Call) -> Reply:
        return ok({"deployments": there}) if call.path.endswith("deployments") else account(call)

    play.server.answer = served
    assert "does not prove its new secrets within 120 s" in secrets(play)["msg"]
    assert play.wrote == []


@pytest.mark.usefixtures("deployed")
def test_secrets_that_are_never_proved_are_told(account: FakeAccount, play: Play) -> None:
    def lost(call: Call) -> Reply:
        return ok({}) if call.path.endswith("secrets-bulk") else account(call)

    play.server.answer = lost
    account.secrets["alice"]["OPENAI_API_KEY"] = "sk-of-before"
    told = secrets(play)
    assert "the Worker does not prove its new secrets within 120 s" in told["msg"]
    assert "Changed: secrets, as far as Cloudflare answered." in told["msg"]
    assert play.now >= 120


@pytest.mark.usefixtures("deployed")
def test_who_wants_no_token_has_none_written_down(account: FakeAccount, play: Play) -> None:
    play.settings.allow_unauthenticated = True
    told = secrets(play)
    assert (told["changed"], told["names"]) == (True, ["hermes_api_token"])
    assert account.secrets["alice"] == SECRETS
    assert play.deployment.token() == "old", "the Worker's step forgets it"


@pytest.mark.usefixtures("deployed")
def test_what_cloudflare_refuses_of_secrets_names_the_step(
    account: FakeAccount, play: Play
) -> None:
    account.secrets["alice"]["OPENAI_API_KEY"] = "sk-of-before"

    def refuse(call: Call) -> Reply:
        if call.path.endswith("secrets-bulk"):
            return refused(400, 10021, f"{SECRETS['OPENAI_API_KEY']} is too long")
        return account(call)

    play.server.answer = refuse
    told = secrets(play)
    assert "secrets of alice: Cloudflare answers:" in told["msg"]
    assert "canary" not in told["msg"]


# Addresses.


def test_addresses_that_were_not_planned_are_not_asked_for(play: Play) -> None:
    assert play.run("cloudflare_routes")["changed"] is False
    assert play.run("cloudflare_routes", planned=True, check=True)["changed"] is True
    assert play.server.calls == []


def test_both_addresses_come_and_are_noted_beside_each_other(
    account: FakeAccount, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str] = []
    plugin = "ansible_collections.hermes.workers.plugins.action.cloudflare_routes.ActionModule"
    monkeypatch.setattr(f"{plugin}._wait", lambda _action, hostname: waited.append(hostname))
    play.settings.dashboard_hostname = "a.example.com"
    play.settings.mail_address = "hermes@example.com"
    told = play.run("cloudflare_routes", planned=True)
    assert told["steps"] == [
        "custom domain a.example.com",
        "rule that hands mails to hermes@example.com to the Worker",
    ]
    assert waited == ["a.example.com"]
    assert account.tags["alice"][2:] == [
        "hermes.workers.mail:hermes@example.com",
        "hermes.workers.host:a.example.com",
    ]
    # What only goes has no certificate to wait for.
    play.settings.dashboard_hostname = ""
    told = play.run("cloudflare_routes", planned=True)
    assert told["steps"] == ["a.example.com, which the inventory no longer names"]
    assert waited == ["a.example.com"]


def test_an_old_mail_rule_that_stays_tells_of_all_that_came(
    account: FakeAccount, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = "ansible_collections.hermes.workers.plugins.action.cloudflare_routes.ActionModule"
    monkeypatch.setattr(f"{plugin}._wait", lambda *_: None)

    def refuse(call: Call) -> Reply:
        if call.method == "DELETE" and "email" in call.path:
            return refused(400, 2021, "Rule is locked")
        return account(call)

    account.tags["alice"].append("hermes.workers.mail:old@example.com")
    account.rules["m"] = {
        "id": "m",
        "matchers": [{"type": "literal", "value": "old@example.com"}],
        "actions": [{"type": "worker", "value": ["alice"]}],
    }
    play.server.answer = refuse
    play.settings.dashboard_hostname = "a.example.com"
    play.settings.mail_address = "hermes@example.com"
    told = play.run("cloudflare_routes", planned=True)
    assert "routes of alice: Cloudflare answers: Rule is locked" in told["msg"]
    came = "custom domain a.example.com, rule that hands mails to hermes@example.com to the Worker"
    assert f"Changed: its tags, {came}." in told["msg"]


# The Worker.


@pytest.fixture
def built(play: Play, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle, as if it were built."""
    bundle = play.state.parent / "worker.js"
    bundle.write_text("export default {}")
    monkeypatch.setattr(Runtime, "install_tools", lambda _runtime: None)
    monkeypatch.setattr(Runtime, "install_bundle", lambda _runtime: bundle)
    return bundle


def worker(play: Play, **more: Any) -> Any:
    return play.run("cloudflare_worker", planned=True, image=REFERENCE, **more)


def test_a_worker_that_was_not_planned_is_not_looked_at(play: Play) -> None:
    assert play.run("cloudflare_worker")["changed"] is False
    assert play.server.calls == []


@pytest.mark.usefixtures("built")
def test_a_first_deploy_makes_worker_application_address_tags_and_a_token(
    account: FakeAccount, play: Play
) -> None:
    account.secrets.clear()
    account.tags.clear()
    told = worker(play, check=True, diff=True)
    assert told["changed"] is True
    assert told["diff"][0]["before"] == ""
    assert 'name = "alice"' in told["diff"][0]["after"]
    assert play.wrote == []
    assert not play.state.exists()
    told = worker(play)
    assert told["version_id"] == "ffffffff-ffff-ffff-ffff-ffffffffffff", told
    token = play.deployment.token()
    assert account.secrets == {"alice": {"API_TOKEN": token}}
    assert token.startswith("hw_")
    assert account.tags["alice"] == ["hermes.workers", "hermes.workers:alice"]
    assert [one["id"] for one in account.applications] == ["n"]
    assert account.applications[0]["observability"] == {"logs": {"enabled": False}}
    assert account.uploads[0]["migrations"]["new_tag"] == "v1"
    assert play.deployment.note("host") == "alice.acme.workers.dev"
    assert play.deployment.note("etag") == "new-etag"
    assert token not in json.dumps(told) + " ".join(play.said)
    assert not any("hold" in one for one in play.worker.asked), "there was nothing to hold back"


@pytest.mark.usefixtures("deployed", "built")
def test_an_update_lets_requests_end_and_takes_away_what_is_not_wanted_any_more(
    account: FakeAccount, play: Play
) -> None:
    account.secrets["alice"] |= {"ANTHROPIC_API_KEY": "of-before", "API_TOKEN_PREVIOUS": "x"}
    account.applications = [{"id": "n", "name": "alice-hermes", "observability": {}}]
    account.tags["alice"] = ["own"]
    told = worker(play)
    assert told["changed"] is True, told
    assert "POST /api/instance/hold" in play.worker.asked
    assert account.secrets["alice"] == {"API_TOKEN": "old", "API_TOKEN_PREVIOUS": "x"} | SECRETS
    assert account.tags["alice"] == ["hermes.workers", "hermes.workers:alice", "own"]
    assert any(one.startswith("PATCH") and "applications/n" in one for one in play.wrote), (
        "what containers print lies in no log"
    )
    writes = len(play.wrote)
    assert writes
    # A diff of what is there by then.
    told = worker(play, check=True, diff=True)
    assert told["diff"][0]["before"] == told["diff"][0]["after"] != ""
    assert len(play.wrote) == writes


def test_what_is_declared_of_the_agent_is_uploaded_beside_the_code(
    account: FakeAccount, api: Cloudflare, play: Play, tmp_path: Path
) -> None:
    made = {"worker.js": b"code", ARCHIVE: b"archive"}
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    for agent, names in (({}, {"worker.js"}), ({"archive": "a"}, {*made})):
        settings = replace(play.settings, agent=agent)
        upload.Upload(api, settings, tmp_path).deploy({}, {}, REFERENCE, True)
        assert account.files == {name: made[name] for name in names}


@pytest.mark.usefixtures("deployed", "built")
def test_a_worker_that_is_opened_to_everybody_forgets_its_token(
    account: FakeAccount, play: Play
) -> None:
    play.settings.allow_unauthenticated = True
    answer = play.worker.answer

    def opened(token: str | None, method: str, path: str, body: Any) -> Any:
        return answer(token or account.secrets["alice"].get("API_TOKEN"), method, path, body)

    play.worker.answer = opened
    assert worker(play)["changed"] is True
    assert play.deployment.token() is None
    assert account.secrets["alice"] == SECRETS


@pytest.mark.usefixtures("deployed", "built")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (False, "Changed: image."),
        (True, "Changed: Worker (version "),
        (None, "Whether the Worker was changed is not known: Cloudflare does not answer that"),
    ],
    ids=["nothing", "half of it", "nobody knows"],
)
def test_an_upload_that_is_cut_tells_what_it_has_changed(
    account: FakeAccount, play: Play, changes: bool | None, words: str
) -> None:
    play.variables["image_result"] = {"changed": True}
    tried: list[str] = []

    def cut(call: Call) -> Reply:
        if call.method == "PUT" and call.path.endswith("scripts/alice"):
            tried.append(call.path)
            if changes:
                account(call)
            return refused(400, 10021, "No such image")
        if tried and changes is None:
            return refused(400, 7003, "Could not route")
        return account(call)

    play.server.answer = cut
    told = worker(play)
    assert "worker of alice: Cloudflare answers: No such image" in told["msg"]
    assert words in told["msg"]


@pytest.mark.usefixtures("deployed", "built")
def test_a_wrangler_that_failed_halfway_tells_what_it_has_changed(
    account: FakeAccount, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_wrangler: Wrangler, _token: str, _secrets: Any) -> str:
        account.variables["alice"] = {"WORKER_VERSION": "new"}
        raise Card.of("alice", "wrangler could not deploy", "", "wrangler")

    monkeypatch.setattr(Runtime, "install_wrangler", lambda _runtime: ["node", "wrangler"])
    monkeypatch.setattr(Wrangler, "deploy", fails)
    play.settings.uploader = "wrangler"
    told = worker(play)["msg"]
    assert "wrangler could not deploy" in told
    assert "Changed: Worker (version new is uploaded). Not finished: its container" in told


@pytest.mark.usefixtures("built")
def test_a_first_deploy_that_is_cut_is_taken_up_with_its_token(
    account: FakeAccount, play: Play
) -> None:
    """Whether the upload came through nobody knows; whoever has the state folder gets in."""
    account.secrets.clear()

    def cut(call: Call) -> Reply:
        reply = account(call)
        return refused(400, 10021, "cut") if call.path.endswith("scripts/alice") else reply

    play.server.answer = cut
    assert "cut" in worker(play)["msg"]
    token = play.deployment.token()
    assert account.secrets["alice"] == {"API_TOKEN": token}
    play.server.answer = account
    assert worker(play)["changed"] is True
    assert play.deployment.token() == account.secrets["alice"]["API_TOKEN"] == token


@pytest.mark.usefixtures("deployed", "built")
@pytest.mark.parametrize(
    ("uploader", "hosts", "by_wrangler"),
    [
        ("wrangler", 50, True),
        ("api", 1, False),
        ("auto", cloudflare_worker.MANY, True),
        ("auto", cloudflare_worker.MANY + 1, False),
    ],
)
def test_who_uploads(
    account: FakeAccount,
    play: Play,
    monkeypatch: pytest.MonkeyPatch,
    uploader: str,
    hosts: int,
    by_wrangler: bool,
) -> None:
    monkeypatch.setattr(Runtime, "install_wrangler", lambda _runtime: ["node", "wrangler"])

    def fails(_wrangler: Wrangler, _token: str, _secrets: Any) -> str:
        raise Card.of("alice", "wrangler could not deploy", "", "wrangler")

    monkeypatch.setattr(Wrangler, "deploy", fails)
    play.settings.uploader = uploader
    play.variables["ansible_play_hosts_all"] = ["x"] * hosts
    told = worker(play)
    assert bool(account.uploads) is not by_wrangler
    assert ("wrangler could not deploy" in str(told.get("msg"))) is by_wrangler


@pytest.mark.usefixtures("deployed", "built")
@pytest.mark.parametrize(
    ("silent", "words"),
    [(False, "version old is running, and the inventory makes version"), (True, "does not answer")],
)
def test_a_version_that_never_comes_is_told(
    account: FakeAccount, play: Play, silent: bool, words: str
) -> None:
    play.worker.answers["GET /api/health"] = {
        "worker": {"version": "old"},
        "instance": {"version": "old"},
    }
    play.worker.answers["/api/health"] = play.worker.answers["GET /api/health"]
    if silent:

        def down(call: Call) -> Reply:
            play.worker.silent = play.worker.silent or call.method == "PUT"
            return account(call)

        play.server.answer = down
    told = worker(play)
    assert words in told["msg"]
    assert play.now >= 360


@pytest.mark.usefixtures("deployed", "built")
def test_a_refusal_of_the_new_version_is_quoted(account: FakeAccount, play: Play) -> None:
    play.worker.answers["/api/health"] = 503
    assert "/api/health is answered with 503: not now" in worker(play)["msg"]


@pytest.mark.usefixtures("deployed")
def test_a_build_folder_that_cannot_be_written_is_told(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runtime, "install_tools", lambda _runtime: None)
    monkeypatch.setattr(Runtime, "install_bundle", lambda _runtime: play.state / "not there")
    told = worker(play)
    assert "alice/build cannot be written" in told["msg"]
    assert play.wrote == []


@pytest.mark.usefixtures("deployed", "built")
def test_an_object_that_is_not_ready_at_once_is_waited_for(
    account: FakeAccount, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "POLL_SECONDS", 50.0)
    looks: list[str] = []

    def late(call: Call) -> Reply:
        if call.path.endswith("ffffffff-ffff-ffff-ffff-ffffffffffff"):
            looks.append(call.path)
            if len(looks) < ready:
                return refused(400, code, "not ready")
        return account(call)

    play.server.answer = late
    ready, code = 3, 100146
    assert worker(play)["changed"] is True
    looks.clear()
    ready = 1000
    assert "(code 100146)" in worker(play)["msg"]
    assert play.now >= 300
    looks.clear()
    code = 7003
    assert "(code 7003)" in worker(play)["msg"]
    assert len(looks) == 1


# The image.


@contextlib.contextmanager
def no_lock(*_: Any) -> Iterator[bool]:
    yield True


@pytest.fixture
def engine(play: Play, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A container engine that builds and pushes; `fails`: what stands against a push."""
    made = SimpleNamespace(pushed=[], pruned=[], fails=None)

    def push(_image: PushedImage) -> str:
        if made.fails:
            raise made.fails
        made.pushed.append(play.deployment.containers())
        return REFERENCE

    def prune(_image: PushedImage, keep: str | None) -> None:
        made.pruned.append(keep)
        if made.fails:
            raise made.fails

    monkeypatch.setattr(PushedImage, "_build_and_push", push)
    monkeypatch.setattr(PushedImage, "prune", prune)
    return made


@pytest.mark.usefixtures("images")
def test_an_image_that_would_be_made_has_no_name_yet(play: Play, engine: SimpleNamespace) -> None:
    told = play.run("cloudflare_image", planned=True, check=True)
    assert (told["changed"], told["reference"]) == (True, "")
    assert play.server.calls == []


@pytest.mark.usefixtures("images")
def test_the_image_that_a_worker_runs_from_is_not_looked_for(
    account: FakeAccount, play: Play, engine: SimpleNamespace
) -> None:
    account.variables["alice"] |= {
        "HERMES_IMAGE_REFERENCE": REFERENCE,
        "HERMES_IMAGE": Sources().image_for(play.settings),
    }
    told = play.run("cloudflare_image")
    assert (told["changed"], told["reference"]) == (False, REFERENCE)
    assert not [call for call in play.server.calls if "registries" in call.path]


def test_an_image_that_another_deploy_pushed_is_found(
    play: Play, images: Images, engine: SimpleNamespace
) -> None:
    images.tags[Sources().container_image("")] = f"sha256:{'0' * 64}"
    told = play.run("cloudflare_image", planned=False)
    assert told["reference"].endswith(f"/{ACCOUNT}/hermes-workers@sha256:{'0' * 64}")
    assert engine.pushed == engine.pruned == []
    # What a push that failed left in the engine goes then, unless nothing may be changed.
    play.deployment.create()
    play.deployment.note_containers("/run/docker.sock", "s")
    play.run("cloudflare_image", check=True)
    assert engine.pruned == []
    play.run("cloudflare_image")
    assert engine.pruned == [None]
    engine.fails = Card.of("docker", "no engine answers.", "", "engine")
    assert play.run("cloudflare_image")["reference"] == told["reference"], "it is not needed"


@pytest.mark.usefixtures("images")
def test_where_an_image_is_made_is_noted_before_it_is(play: Play, engine: SimpleNamespace) -> None:
    told = play.run("cloudflare_image", planned=True)
    assert (told["changed"], told["reference"]) == (True, REFERENCE), told
    (noted,) = engine.pushed
    assert noted is not None
    assert not list(play.deployment.runtime.glob("push-*"))
    engine.fails = Card.of("the image of Hermes", "no push.", "", "image")
    assert "no push" in play.run("cloudflare_image", planned=True)["msg"]
    assert play.deployment.containers() == noted
    assert not list(play.deployment.runtime.glob("push-*"))


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("fails", [False, True], ids=["taken", "not taken"])
def test_a_push_leaves_no_name_in_the_engine_and_is_heard_of(
    play: Play, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    class Engine:
        """A container engine, as far as a push goes."""

        def __init__(self) -> None:
            self.names: list[str] = []

        def tag(self, _name: str, repository: str, tag: str) -> None:
            self.names.append(f"{repository}:{tag}")

        def images(self, _repository: str) -> list[dict[str, Any]]:
            return []

        def remove_image(self, name: str) -> None:
            self.names.remove(name)

        def push(self, repository: str, tag: str, user: str, password: str, tell: Any) -> str:
            assert f"{repository}:{tag}" in self.names
            assert (user, password) == ("v1", "canary-password")
            for line in ("1a Pushing", "1a Pushed", "2b Pushed"):
                play.now += images_of.QUIET_SECONDS * 0.6
                tell(line)
            if fails:
                raise DockerError(500, "denied for canary-password")
            return f"sha256:{'0' * 64}"

    engine = Engine()
    monkeypatch.setattr(PushedImage, "install", lambda image: setattr(image, "engine", engine))
    told = play.run("cloudflare_image", planned=True)
    assert engine.names == []
    assert "pushing the image: 1a Pushed" in play.said
    assert "pushing the image: 2b Pushed" not in play.said, "now and then, not each line"
    assert "canary" not in json.dumps(told)
    if fails:
        assert "did not take it" in told["msg"]
        assert "Nothing was deployed." in told["msg"]
    else:
        assert told["reference"].endswith(f"/{ACCOUNT}/hermes-workers@sha256:{'0' * 64}")


def test_an_image_that_another_run_pushed_meanwhile_is_not_built(
    play: Play, images: Images, engine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def waits(folder: Path, *_: Any) -> Iterator[bool]:
        folder.mkdir()
        images.tags[Sources().container_image("")] = f"sha256:{'0' * 64}"
        yield True

    monkeypatch.setattr(images_of.installer, "installing", waits)
    assert play.run("cloudflare_image", planned=True)["reference"].endswith("0" * 64)
    assert engine.pushed == []

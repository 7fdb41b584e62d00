# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""How a deploy brings build, processes and secrets of this machine to what they should be, in the lightest way."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.template import trust_as_template
from ansible_collections.hermes.workers.plugins.action import (
    container_image,
    process_image,
    worker_bundle,
    workerd_secrets,
    workerd_service,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.agent.declaration import Declaration
from ansible_collections.hermes.workers.plugins.plugin_utils.agent.sources import Finder
from ansible_collections.hermes.workers.plugins.plugin_utils.build.installer import finish
from ansible_collections.hermes.workers.plugins.plugin_utils.build.runtime import Runtime
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.containers.image import ContainerImage
from ansible_collections.hermes.workers.plugins.plugin_utils.platform import delivery_of
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import session_of
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.at_boot import AtBoot
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.config import render
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.processes import Processes
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.storage import Storage
from api_server import Reply
from deployed_here import HEALTH, TOKEN, DeployedHere, error

SERVICE, SECRETS = workerd_service.ActionModule, workerd_secrets.ActionModule
KEY = "sk-canary-of-a-provider"
GIVEN = {"openai_api_key": KEY}


class Managed(DeployedHere):
    """A deployment whose supervisor only notes what it is told, in order, with what the Worker is asked."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        super().__init__(folder)
        self.done: list[tuple[str, Any]] = []
        self.left = ""
        """What is left to do for a start after a reboot."""
        self.wanted = self.settings()
        self.host = Sources().host
        self.is_served()
        note = self._note
        patch.setattr(Runtime, "install_host", lambda _runtime: None)
        patch.setattr(Runtime, "workerd", lambda _runtime: Path("workerd"))
        patch.setattr(Processes, "start", lambda _one, *given: note("start", given))
        patch.setattr(Processes, "stop", lambda _one: note("stop", None))
        patch.setattr(Processes, "restart_workerd", lambda _one, given: note("restart", given))
        patch.setattr(Processes, "set_secrets", lambda _one, given: note("secrets", given))
        patch.setattr(Processes, "wait_until_served", lambda _one, client, _v: note("up", client))
        patch.setattr(AtBoot, "settle", lambda *_: self.left)
        patch.setattr(workerd_service.Containers, "hold_bridge", lambda *_: note("bridge", None))
        patch.setattr(
            workerd_service.Containers,
            "remove_all",
            lambda containers: note("containers", containers.session),
        )
        self.answers |= {
            "GET /api/instance/channels": {"channels": {}},
            "GET /api/instance/status": {"requestsInFlight": 0},
            "POST /api/instance/backups": lambda _call: self._note("saved", {}) or {},
            "POST /api/instance/sleep": lambda _call: self._note("asleep", {}) or {},
        }

    def _note(self, what: str, given: Any) -> None:
        self.done.append((what, given))

    @property
    def steps(self) -> list[str]:
        return [what for what, _given in self.done]

    def given(self, what: str) -> Any:
        return next(given for step, given in self.done if step == what)

    def is_served(self, version: str | None = None) -> None:
        """Have the Worker be of a version, by default of the one that the settings make."""
        made = render(self.wanted, Sources()).version
        self.answers["GET /api/health"] = HEALTH | {"worker": {"version": version or made}}

    def deploy(
        self, action: Any = SERVICE, check: bool = False, options: Any = None, **variables: Any
    ) -> dict[str, Any]:
        given = {"settings": self.wanted.as_dict()} | (options or {})
        return self.run(action, given, check=check, **variables)

    def running(self, **more: Any) -> Any:
        ours = {"kind": "process", "host": self.host, "ports": self.wanted.ports}
        return super().running(**(ours | more))


@pytest.fixture
def managed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Managed]:
    monkeypatch.chdir(tmp_path)
    made = Managed(tmp_path, monkeypatch)
    with made.worker:
        yield made


def test_what_runs_as_it_should_is_left_alone(managed: Managed) -> None:
    with managed.running():
        result = managed.deploy()
    assert result["changed"] is False and managed.done == []


def test_another_version_restarts_workerd_alone_with_todays_secrets(managed: Managed) -> None:
    managed.is_served("0")
    with managed.running():
        planned = managed.deploy(check=True, **GIVEN)
        assert planned["changed"] is True and managed.done == []
        result = managed.deploy(**GIVEN)
    assert result["detail"].startswith("Worker 0 -> ")
    assert managed.steps == ["restart", "up"]
    changes = managed.given("restart")
    assert changes["secrets"] == {"API_TOKEN": TOKEN, "OPENAI_API_KEY": KEY}
    assert changes["workerd"][1:4] == ["serve", "build/config.capnp", "--experimental"]
    assert changes["workerd"][4:] == [
        f"--socket-fd={name}=$(circus.sockets.{name})" for name in managed.wanted.ports
    ]
    assert managed.deployment.token() == TOKEN


def test_secrets_that_nobody_proves_are_a_restart_too(managed: Managed) -> None:
    managed.answers["POST /api/secrets/proof"] = {"proofs": None}
    with managed.running():
        result = managed.deploy()
    assert result["detail"] == "the Worker does not prove what secrets it holds"
    assert result["secrets_changed"] == [] and managed.steps == ["restart", "up"]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"kind": "docker"}, "process engine"),
        ({"host": "older"}, "another supervisor or engine"),
        ({"ports": {}}, "ports "),
        ({"folder": "/before"}, "moved here from /before"),
    ],
)
def test_another_supervisor_is_put_in_the_place_of_what_runs_once_that_has_saved(
    managed: Managed, record: dict[str, Any], words: str
) -> None:
    with managed.running(**record):
        result = managed.deploy()
    assert result["detail"].startswith(words)
    assert managed.steps == ["asleep", "stop", "start", "up"]
    kind, _workerd, ports, _drain, secrets, helpers, _reboot = managed.given("start")
    assert (kind, ports, secrets) == ("process", managed.wanted.ports, {"API_TOKEN": TOKEN})
    assert list(helpers) == ["engine"]


def test_one_that_does_not_answer_is_stopped_without_being_asked(managed: Managed) -> None:
    managed.answers["GET /api/health"] = ["another"]
    with managed.running(host="older"):
        managed.answers["GET /api/health"] = lambda _call: Exception
        managed.secrets["API_TOKEN"] = "another"
        managed.deploy()
    assert managed.steps == ["stop", "start", "up"]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (error(401, "no"), "the Worker refuses the token that is kept"),
        (error(500, "Oh."), "the Worker does not answer"),
    ],
)
def test_a_plan_tells_a_refusal_from_silence(managed: Managed, reply: Reply, words: str) -> None:
    managed.answers["GET /api/health"] = reply
    with managed.running():
        assert managed.deploy(check=True)["detail"] == words


def test_nothing_is_ended_that_could_not_be_saved(managed: Managed) -> None:
    managed.answers["POST /api/instance/sleep"] = error(507, "It is too large.")
    with managed.running(host="older"):
        card = managed.deploy()["msg"]
    assert card.startswith("alice: its state could not be saved before its engine is replaced")
    assert managed.done == [] and "processes" in card


def test_a_first_deploy_makes_a_token_and_starts_all(managed: Managed) -> None:
    managed.deployment.drop_token()
    managed.left = "run loginctl"
    result = managed.deploy()
    assert result["detail"].startswith("workerd and engine on 127.0.0.1:")
    assert managed.steps == ["start", "up"]
    token = managed.given("start")[4]["API_TOKEN"]
    assert token.startswith("hw_") and managed.deployment.token() == token
    assert managed.given("up").token == token
    assert any("after a reboot: run loginctl" in line for line in managed.lines)


def test_a_deployment_for_all_on_the_machine_gets_no_token(managed: Managed) -> None:
    managed.deployment.drop_token()
    managed.wanted = managed.settings(allow_unauthenticated=True)
    managed.deploy()
    assert managed.given("start")[4] == {} and managed.deployment.token() is None


def test_a_token_of_the_inventory_is_kept_once_the_worker_has_it(managed: Managed) -> None:
    with managed.running():
        managed.is_served("0")
        managed.deploy(hermes_api_token="hw_" + "given-by-the-owner" * 3)
    assert managed.given("restart")["secrets"]["API_TOKEN"] == managed.deployment.token() != TOKEN


def test_of_processes_that_never_came_up_none_changed(
    managed: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Processes, "start", refuse)
    card = managed.deploy()["msg"]
    assert "Input/output error" in card and "Nothing was changed." in card


def storage_is_gone(managed: Managed) -> None:
    Storage(managed.deployment).note({"id": "abc", "backups": 2})


def test_a_memory_that_is_gone_keeps_it_down_until_its_owner_says_so(managed: Managed) -> None:
    storage_is_gone(managed)
    card = managed.deploy()["msg"]
    assert card.startswith("alice: its storage (state/alice/storage) is gone; it had 2 backups.")
    assert managed.done == []
    assert managed.deploy(hermes_forget="yes")["changed"] is True
    assert managed.steps == ["start", "up"] and Storage(managed.deployment).known() is None


@pytest.fixture
def contained(managed: Managed) -> Managed:
    """The same under a container engine."""
    managed.wanted = managed.settings(engine="docker", docker_socket="/run/docker.sock")
    managed.is_served()
    return managed


def test_a_container_engine_is_noted_before_anything_is_started_in_it(contained: Managed) -> None:
    result = contained.deploy()
    assert result["detail"].startswith("workerd on 127.0.0.1:")
    session = session_of(contained.wanted)
    assert contained.deployment.containers() == {"socket": "/run/docker.sock", "session": session}
    assert contained.steps == ["bridge", "start", "up"]
    assert list(contained.given("start")[5]) == ["cleaner"]


def test_workerd_before_containers_is_drained_and_has_saved(contained: Managed) -> None:
    session = session_of(contained.wanted)
    contained.deployment.note_containers("/run/docker.sock", session)
    contained.is_served("0")
    with contained.running(kind="docker"):
        contained.deploy()
    assert contained.steps == ["bridge", "saved", "restart", "up"]


@pytest.mark.parametrize("engine", ["process", "docker"])
def test_containers_that_were_elsewhere_are_removed(contained: Managed, engine: str) -> None:
    contained.deployment.note_containers("/run/another.sock", "alice-before")
    contained.wanted = contained.settings(engine=engine, docker_socket="/run/docker.sock")
    contained.is_served("0")
    with contained.running(kind="docker"):
        contained.deploy()
    assert contained.given("containers") == "alice-before"
    assert contained.steps.index("stop") < contained.steps.index("containers")
    found = contained.deployment.containers()
    assert (found or {}).get("socket") == ("/run/docker.sock" if engine == "docker" else None)


def test_secrets_that_differ_are_given_to_workerd_and_proved_again(managed: Managed) -> None:
    managed.deployment.note_proof("1")

    def taken(_one: Any, secrets: dict[str, str]) -> None:
        managed._note("secrets", secrets)
        managed.secrets = secrets

    with managed.running(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Processes, "set_secrets", taken)
        tried = managed.deploy(SECRETS, check=True, **GIVEN)
        assert tried["changed"] is True and managed.done == []
        assert managed.deployment.is_proved("1")
        result = managed.deploy(SECRETS, **GIVEN)
        again = managed.deploy(SECRETS, **GIVEN)
    assert result["names"] == ["openai_api_key"] and again["changed"] is False
    assert result["diff"] == {"prepared": "changed openai_api_key\n"}
    assert managed.steps == ["secrets", "up"] and not managed.deployment.is_proved("1")
    assert managed.given("secrets") == {"API_TOKEN": TOKEN, "OPENAI_API_KEY": KEY}
    assert KEY not in str(result) + str(managed.lines)


def test_a_worker_that_does_not_take_them_is_told_of(managed: Managed) -> None:
    with managed.running():
        card = managed.deploy(SECRETS, **GIVEN)["msg"]
    assert card.startswith("alice: the Worker still holds another value of openai_api_key.")
    assert "Changed: openai_api_key." in card and KEY not in card


def test_a_worker_that_proves_nothing_is_given_nothing(managed: Managed) -> None:
    managed.answers["POST /api/secrets/proof"] = lambda _call: []
    with managed.running():
        card = managed.deploy(SECRETS, **GIVEN)["msg"]
    assert card.startswith("alice: the Worker does not prove what secrets it holds.")
    assert managed.done == []


def test_a_try_leaves_secrets_to_the_processes_that_will_start(managed: Managed) -> None:
    result = managed.deploy(SECRETS, check=True, options={"delivered": True}, **GIVEN)
    assert result["msg"] == "The processes start with today's secrets."
    assert result["changed"] is False and managed.worker.calls == []


def test_a_worker_without_a_token_gets_one(managed: Managed) -> None:
    """The folder's was lost; the Worker is asked with that of the inventory, or not at all."""
    managed.deployment.drop_token()
    managed.secrets = {"API_TOKEN": ""}
    card = managed.deploy(SECRETS)["msg"]
    assert "does not prove what secrets it holds" in card and managed.deployment.token() is None


@pytest.mark.parametrize("key", ["sk canary\nof two lines", "{{ nothing_of_that_name }}"])
def test_a_key_that_is_none_is_told_and_given_to_nobody(managed: Managed, key: str) -> None:
    with managed.running():
        card = managed.deploy(SECRETS, openai_api_key=trust_as_template(key))["msg"]
    assert card.startswith("openai_api_key: ") and "canary" not in card
    assert managed.worker.calls == []


def test_before_containers_secrets_wait_for_what_is_under_way(contained: Managed) -> None:
    with contained.running(kind="docker"):
        contained.deploy(SECRETS, **GIVEN)
    assert contained.steps[:3] == ["saved", "secrets", "up"]


@pytest.mark.parametrize("engine", ["process", "docker"])
def test_a_rotation_waits_where_workerd_does_not_before_it_ends(
    managed: Managed, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    for name in ("change_secrets", "undo_secrets", "settle_secrets"):
        monkeypatch.setattr(
            Processes, name, lambda _one, *given, name=name: managed._note(name, given)
        )
    managed.wanted = managed.settings(engine=engine)
    with managed.running():
        runtime = Runtime(managed.deployment, Sources(), print)
        delivery = delivery_of(managed.wanted, managed.deployment, runtime, "")
        client = delivery.connect(TOKEN)
        delivery.deliver({"A": "b"}, client)
        delivery.deliver({}, client)
        delivery.undo(delivery.before(), {}, client)
        delivery.settle()
    assert managed.given("change_secrets") == ({"A": "b"},)
    saved = ["saved"] if engine == "docker" else []
    assert managed.steps == [
        *(*saved, "change_secrets", "up"),
        "up",
        *(*saved, "undo_secrets", "up"),
        "settle_secrets",
    ]


IMAGES = {"process": process_image.ActionModule, "docker": container_image.ActionModule}


@pytest.mark.parametrize("engine", IMAGES)
def test_an_image_is_made_once_and_not_by_a_try(
    managed: Managed, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    made: list[str] = []
    managed.wanted = managed.settings(engine=engine, docker_socket="/run/docker.sock")
    monkeypatch.setattr(Runtime, "installing_ahead", lambda _runtime: contextlib.nullcontext())
    for kind, name in ((Runtime, "install_image"), (ContainerImage, "install")):
        monkeypatch.setattr(kind, name, lambda _one: made.append(engine))
    for kind in (Runtime, ContainerImage):
        monkeypatch.setattr(kind, "has_image", lambda _one: bool(made))
    assert managed.deploy(IMAGES[engine], check=True)["changed"] is True
    assert made == [] and list(managed.deployment.build.iterdir()) == []
    result = managed.deploy(IMAGES[engine])
    assert result["changed"] is True and made == [engine]
    assert list(managed.deployment.build.iterdir()) != [], "nobody is told what is used"
    noted = managed.deployment.containers()
    assert noted == (
        {"socket": "/run/docker.sock", "session": session_of(managed.wanted)}
        if engine == "docker"
        else None
    )
    managed.deployment.note_containers("/run/another.sock", "before")
    assert managed.deploy(IMAGES[engine])["changed"] is False and made == [engine]
    made.clear()
    managed.deploy(IMAGES[engine])
    assert managed.deployment.containers() == {"socket": "/run/another.sock", "session": "before"}


class Built(Managed):
    """A deployment whose bundle only has to be copied."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, patch)
        self.bundle = Runtime(self.deployment, Sources(), print).bundle
        patch.setattr(Runtime, "install_tools", lambda _runtime: self._note("tools", None))
        patch.setattr(Runtime, "install_bundle", lambda _runtime: self._bundle())

    def _bundle(self) -> Path:
        self._note("bundle", None)
        self.bundle.mkdir(exist_ok=True)
        (self.bundle / "worker.js").write_text("export default {};")
        finish(self.bundle, {})
        return self.bundle / "worker.js"


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Built]:
    monkeypatch.chdir(tmp_path)
    made = Built(tmp_path, monkeypatch)
    with made.worker:
        yield made


BUNDLE = worker_bundle.ActionModule


def test_a_build_is_made_once_and_a_try_makes_none(built: Built) -> None:
    build = built.deployment.build
    tried = built.deploy(BUNDLE, check=True)
    assert tried["changed"] is True and list(build.iterdir()) == [] and built.done == []
    assert tried["diff"][0]["before"] == "" and "capnp" in tried["diff"][0]["after_header"]
    result = built.deploy(BUNDLE)
    assert result["changed"] is True and built.steps == ["tools", "bundle"]
    assert (build / "version").read_text().strip() == result["version"]
    assert (build / "config.capnp").read_text() == tried["diff"][0]["after"]
    assert (build / "worker.js").read_text() == "export default {};"
    assert built.deploy(BUNDLE)["changed"] is False and built.steps == ["tools", "bundle"]
    (build / "config.capnp").write_text("# by hand\n")
    again = built.deploy(BUNDLE)
    assert again["changed"] is True and again["diff"][0]["before"] == "# by hand\n"


def test_a_declared_agent_is_laid_beside_the_worker_and_goes_when_it_is_declared_no_more(
    built: Built,
) -> None:
    soul = {"hermes_soul": "You are kind.\nAnd short.\n"}
    declared = Declaration(soul, built.wanted, {}, Finder([], str)).read()
    without, built.wanted = built.wanted, built.settings(agent=declared.label)
    result = built.deploy(BUNDLE, **soul)
    archive = built.deployment.build / "agent.tar.gz"
    assert archive.read_bytes() == declared.archive
    assert any("You are kind." in one["after"] for one in result["diff"])
    built.wanted = without
    assert built.deploy(BUNDLE)["changed"] is True and not archive.exists()


def test_a_build_that_found_no_room_is_seen_as_unfinished(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    built.deploy(BUNDLE)
    (built.deployment.build / "config.capnp").unlink()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(worker_bundle, "write_private", full)
        card = built.deploy(BUNDLE)["msg"]
    assert card.startswith("disk: no space left below ")
    assert not (built.deployment.build / "version").exists()
    assert built.deploy(BUNDLE)["changed"] is True

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What is checked and planned on this machine before anything is changed: a deploy, a proof, a rotation of keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ansible_collections.hermes.workers.plugins.action import preflight
from ansible_collections.hermes.workers.plugins.plugin_utils.build.installer import finish
from ansible_collections.hermes.workers.plugins.plugin_utils.build.runtime import Runtime
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.containers import engine
from ansible_collections.hermes.workers.plugins.plugin_utils.containers.image import ContainerImage
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd import confinement, place
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.at_boot import AtBoot
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.config import render
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.plan import build_digest
from deployed_here import HEALTH, TOKEN, DeployedHere

KEY = "sk-canary-of-a-provider"
MODEL = {"hermes_default_model": "openai/gpt-4o", "openai_api_key": KEY}


class Planned(DeployedHere):
    """A deployment on a machine that has all that one needs, but for what a test takes away."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        super().__init__(folder)
        self.patch = patch
        self.taken: set[int] = set()
        self.secrets["OPENAI_API_KEY"] = KEY
        patch.setattr(place, "port_taken", lambda port: port in self.taken)
        patch.setattr(confinement, "confines", lambda _container: True)
        patch.setattr(place.shutil, "which", lambda program: f"/usr/bin/{program}")
        patch.setattr(place.WorkerdPlace, "node", lambda _place: "of this machine")
        patch.setattr(place.Controller, "problems", lambda _place: [])
        patch.setattr(preflight, "provider_problems", lambda *_: [])

    def plan(self, options: dict[str, Any] | None = None, **variables: Any) -> dict[str, Any]:
        port = self.worker.server_address[1]
        given = {"hermes_platform": "workerd", "hermes_port": port, **MODEL, **variables}
        return self.run(preflight.ActionModule, options, **given)

    def changes(self, **variables: Any) -> dict[str, str]:
        return {one["what"]: one["detail"] for one in self.plan(**variables)["changes"]}

    def rows(self, **variables: Any) -> dict[str, list[str]]:
        return {name: rest for name, *rest in self.plan(**variables)["rows"]}

    def deployed(self) -> dict[str, Any]:
        """Lay what a deploy would have laid; returns what the supervisor's record says beside."""
        settings = self.plan()["settings"]
        wanted = self.settings(
            **{key: value for key, value in settings.items() if key not in ("name", "platform")}
        )
        runtime = Runtime(self.deployment, Sources(), print)
        made = render(wanted, Sources())
        build = self.deployment.build
        runtime.bundle.mkdir()
        for folder in (build, runtime.bundle):
            (folder / "worker.js").write_text("export default {};")
        finish(runtime.bundle, {})
        self.patch.setattr(Runtime, "has_image", lambda _runtime: True)
        (build / "config.capnp").write_text(made.text)
        (build / "version").write_text(made.version)
        noted = {"workerd": {"build": build_digest(build)}}
        (self.deployment.folder / "run" / "processes.json").write_text(json.dumps(noted))
        instance = {"state": "asleep"}
        told = {"worker": {"version": made.version}, "instance": instance}
        self.answers["GET /api/health"] = HEALTH | told
        return {"kind": "process", "host": Sources().host, "ports": wanted.ports}


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Planned]:
    monkeypatch.chdir(tmp_path)
    made = Planned(tmp_path, monkeypatch)
    with made.worker:
        yield made


def test_of_a_first_deploy_all_is_new(planned: Planned) -> None:
    changes = planned.changes()
    assert list(changes) == ["image", "worker", "processes"]
    assert changes["processes"].startswith("workerd and engine on 127.0.0.1:")


def test_of_what_is_as_it_should_be_nothing_changes(planned: Planned) -> None:
    with planned.running(**planned.deployed()):
        assert planned.changes() == {}


def test_keys_alone_are_a_change_that_restarts_workerd(planned: Planned) -> None:
    planned.answers["POST /api/instance/preview"] = {"restart": "nothing", "because": []}
    with planned.running(**planned.deployed()):
        result = planned.plan(openai_api_key="sk-canary-of-another")
    (change,) = result["changes"]
    assert (change["what"], change["detail"]) == ("secrets", "openai_api_key")
    assert change["restarts"] == "workerd" and "canary" not in str(result)


def test_secrets_that_nobody_proves_restart_workerd(planned: Planned) -> None:
    planned.answers["POST /api/secrets/proof"] = {}
    with planned.running(**planned.deployed()):
        changes = planned.changes()
    assert changes["processes"] == "the Worker does not prove what secrets it holds"


def test_what_starts_after_a_reboot_is_a_change_of_its_own(planned: Planned) -> None:
    planned.patch.setattr(AtBoot, "differs", lambda *_: "after a reboot: nothing starts it")
    with planned.running(**planned.deployed()):
        assert planned.changes()["processes"] == "after a reboot: nothing starts it"


def test_the_table_tells_what_was_said_of_models_endpoints_and_features(planned: Planned) -> None:
    said = {
        "hermes_models": ["openai/gpt-4o-mini"],
        "hermes_provider_base_url": "https://models.example/v1",
        "hermes_dashboard": False,
    }
    rows = planned.rows(**said)
    assert rows["more models"] == ["openai/gpt-4o-mini", "inventory"]
    assert rows["endpoint"] == ["https://models.example/v1", "inventory"]
    assert rows["dashboard"] == ["off", "inventory"]
    assert rows["confined"][0] == "by bubblewrap, no host tools"
    assert KEY not in str(rows)


def test_a_machine_without_bubblewrap_serves_no_dashboard(planned: Planned) -> None:
    planned.patch.setattr(confinement, "confines", lambda _container: False)
    planned.patch.setattr(place.shutil, "which", lambda _program: None)
    rows = planned.rows()
    assert rows["dashboard"] == ["not served: nothing confines it here", "bubblewrap not found"]
    assert rows["confined"] == ["no, no host tools", "bubblewrap not found"]
    planned.patch.setattr(place.shutil, "which", lambda program: f"/usr/bin/{program}")
    assert planned.rows()["dashboard"][1] == "/usr/bin/bwrap does not work here"


def test_of_containers_the_table_tells_the_engine_the_network_and_the_browser(
    planned: Planned,
) -> None:
    planned.patch.setattr(engine.ContainerEngine, "problems", lambda _engine: [])
    planned.patch.setattr(ContainerImage, "network_words", lambda *_: "open to all")
    planned.patch.setattr(preflight.debian, "told", lambda *_: "123")
    for name in ("has_image", "has_other"):
        planned.patch.setattr(ContainerImage, name, lambda _image: False)
    said = {
        "hermes_engine": "docker",
        "hermes_docker_socket": "/run/docker.sock",
        "hermes_features": ["browser", "chromium"],
    }
    rows = planned.rows(**said)
    assert rows["sandbox"] == ["container (docker)", "not reachable, unix:/run/docker.sock"]
    assert rows["network"][0] == "open to all"
    assert rows["browser"] == ["Chromium 123", "pinned"]


def test_an_unfinished_rotation_comes_first(planned: Planned) -> None:
    planned.deployment.keep_rotation({"token": "hw_new", "names": ["API_TOKEN"], "before": ""})
    card = planned.plan()["msg"]
    assert card.startswith("alice: a rotation of its keys was interrupted.")
    assert "hermes.workers.rotate_keys`: it finishes it." in card and "hw_new" not in card


class Version(NamedTuple):
    major: int
    minor: int
    micro: int


@pytest.mark.parametrize("version", [(3, 10, 9), (3, 14, 0)])
def test_a_python_that_cannot_run_hermes_is_told(planned: Planned, version: Any) -> None:
    planned.patch.setattr(place.sys, "version_info", Version(*version))
    card = planned.plan()["msg"]
    assert card.startswith(f"python: {'.'.join(map(str, version))} cannot run Hermes")


def test_the_ports_of_the_deployment_itself_are_not_taken(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = planned.deployed()
    planned.taken = set(record["ports"].values())
    assert "are in use by another program" in planned.plan()["msg"]
    with monkeypatch.context() as patch:
        patch.setattr(type(planned.deployment), "orphans", lambda _folder: [{"pid": 1}])
        assert "changes" in planned.plan()
    with planned.running(**record):
        assert planned.changes() == {}
        # To another deployment these are the first one's, which is named.
        (planned.deployment.state_dir / "carol" / "run").mkdir(parents=True)
        card = planned.plan(hermes_name="bob")["msg"]
    assert "are in use by the deployment alice." in card
    assert "set hermes_port, for example to " in card


def test_a_proof_asks_a_deployment_where_it_is(planned: Planned) -> None:
    with planned.running(**planned.deployed()):
        result = planned.plan({"purpose": "prove"}, hermes_port=8000)
    port = planned.worker.server_address[1]
    assert result["settings"]["port"] == port and result["changes"] == []
    row = ["found", f"hermes_port: {port}", "the inventory makes it 8000"]
    assert row in result["rows"]


@pytest.mark.parametrize("options", [{"purpose": "prove"}, {"rotate": "all"}])
def test_of_what_does_not_run_nothing_is_proved_or_rotated(
    planned: Planned, options: dict[str, str]
) -> None:
    assert planned.plan(options)["msg"].startswith("alice: its processes do not run.")
    card = planned.plan(options, hermes_name="bob")["msg"]
    assert card.startswith("bob: not deployed: there is no state/bob.")
    assert planned.plan(options, hermes_port="no")["msg"].startswith("hermes_port: ")


def test_a_rotation_is_planned_by_what_the_worker_holds(planned: Planned) -> None:
    health = {"token": {"which": "current"}, "instance": {"state": "asleep"}}
    with planned.running(**planned.deployed()):
        planned.answers["GET /api/health"] |= health
        result = planned.plan({"rotate": "provider_keys"}, openai_api_key="sk-canary-of-another")
        assert result["chosen_keys"] == ["provider_keys"]
        assert [one["what"] for one in result["changes"]] == ["openai_api_key"]
        assert ["Hermes", "is asleep", "found"] in result["rows"]
        assert "canary" not in str(result["changes"]) + str(result["rows"])
        card = planned.plan({"rotate": "nothing-of-that-name"})["msg"]
        assert card.startswith("hermes_keys: nothing-of-that-name: not among api_token")
        card = planned.plan({"rotate": "api_token"}, hermes_api_token=TOKEN)["msg"]
        assert "a rotation does not know where to write the new one" in card
        planned.secrets["API_TOKEN"] = "another"
        card = planned.plan({"rotate": "api_token"})["msg"]
    assert "takes no API token that this machine or the inventory has" in card
    assert TOKEN not in card and planned.asked == []

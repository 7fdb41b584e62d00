# SPDX-License-Identifier: Apache-2.0
"""A Hermes in an image of upstream's layout, by digest, with the sandbox as a thin layer upon it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.docker import DockerEngine
from ansible_collections.hermes.workers.plugins.plugin_utils.build import build_context
from contained import HOME, Contained, in_container
from fleets import ACCOUNT
from plays import ROOT, Deployment
from running_hermes import Asked, asked_by

from tests.cloudflare import ControlPlane
from tests.docker.engine import Docker
from tests.standins.telegram import Telegram
from tests.standins.upstream_image.build import (
    CONFIG,
    SKILL,
    Python,
    lay_environment,
    lay_hermes,
    publish,
)

NAME = f"{ACCOUNT}/nousresearch/hermes-agent"
PINNED = build_context.hermes_version(ROOT / "container")
THIN = 30_000_000
KNOWN = ["CVE-2026-71963"]


@dataclass
class Published:
    """A registry that gives two images to anybody, by their names with a digest."""

    upstream: str
    foreign: str


@pytest.fixture(scope="module")
def published(
    docker: Docker, base: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Published]:
    folder = tmp_path_factory.mktemp("upstream")
    ask = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"
    python = Python(*docker("run", "--rm", "--entrypoint", "python3", base, "-c", ask).split())
    lock = (ROOT / "container" / build_context.LOCK).read_text()
    lay_hermes(folder / "hermes", python, lock, Path(sys.executable).with_name("uv"))
    # What its Python has is not asked for where it is not: the program alone is missing.
    lay_environment(folder / "foreign", python)
    saved = folder / "base.tar"
    docker("save", "--output", str(saved), base)
    with ControlPlane(folder / "plane") as plane:
        registry, host = plane.registry, f"127.0.0.1:{plane.registry_port}"
        registry.public.add(NAME)
        names = [
            f"{host}/{NAME}@{publish(registry, NAME, saved, folder / tree, CONFIG)}"
            for tree in ("hermes", "foreign")
        ]
        yield Published(*names)
        for name in names:
            docker("rmi", name, check=False)


class InContainer(Asked):
    """A Hermes in a container, by whom each assumption is looked at."""

    def __init__(self, contained: Contained, telegram: Telegram) -> None:
        super().__init__(contained.deployment, telegram)
        self.contained = contained

    def own(self, name: str) -> str:
        return self.contained.inside("cat", f"{HOME}/{name}")

    def pids(self) -> set[str]:
        return {
            line.split()[0]
            for line in self.contained.engine(
                "top", self.contained.hermes, "-eo", "pid,comm"
            ).splitlines()
            if line.split()[1] == "hermes"
        }

    def keeps_to_what_is_pinned(self) -> bool:
        """The model is the deployment's, whatever its own configuration says."""
        words = "model: {provider: custom, default: other, base_url: 'http://127.0.0.1:9/v1'}"
        before = self.own("config.yaml")
        for text in (words, before):
            script = f"cat > {HOME}/config.yaml"
            engine = self.contained.engine
            engine("exec", "-i", self.contained.hermes, "sh", "-c", script, text=text)
            if text == words:
                answered = self.answers()
        return answered


def test_upstreams_image_is_run_as_it_is_and_left_again(
    make_deployment: Callable[..., Deployment],
    docker: Docker,
    base: str,
    sidecar: str,
    published: Published,
    telegram: Telegram,
) -> None:
    variables = in_container(docker, base, sidecar)
    del variables["hermes_base_image"]
    deployment = make_deployment("upstream", **variables, **asked_by(telegram))
    contained = Contained(deployment, docker)
    name, _, digest = published.upstream.partition("@")

    def refused(image: str, **more: object) -> str:
        deployment.variables["hermes_source"] = {"image": image}
        play = deployment.play("deploy", "-e", json.dumps(more))
        assert play.code != 0
        assert "Nothing was changed." in play.output
        assert not deployment.state.exists()
        return " ".join(play.output.split())

    assert "names no image by its digest" in refused(f"{name}:published")
    assert "cannot be pulled" in refused(f"{name}@sha256:{'0' * 64}")
    assert "it has no /opt/hermes/.venv/bin/hermes" in refused(published.foreign)
    assert f"{PINNED} has {KNOWN[0]}" in refused(published.upstream)

    deployment.variables["hermes_source"] = {"image": published.upstream}
    deployment.variables["hermes_accept_advisories"] = KNOWN
    first = contained.deploy()
    assert f"image {name}, sha256 {digest[7:19]}: looked at" in first.output
    built = docker.inspect(contained.image())
    below = docker.inspect(published.upstream)
    layers = below["RootFS"]["Layers"]
    assert built["RootFS"]["Layers"][: len(layers)] == layers
    assert built["Size"] - below["Size"] < THIN

    assert deployment.chat("Hello").status == 200
    told = deployment.status()
    assert told["hermesVersion"] == PINNED
    assert told["sqlite"] >= "3.51.3"
    assert contained.inside("readlink", "/proc/1/exe").startswith("/usr/bin/python3")
    said = deployment.chat(f"call terminal {json.dumps({'command': 'command -v python3'})}").said
    assert "/opt/sandbox/bin/python3" in said or "/opt/hermes/.venv/bin/python3" in said
    where = json.dumps({"path": "/srv/note.txt", "content": "written"})
    deployment.chat(f"call write_file {where}")
    assert contained.inside("cat", "/srv/note.txt") == "written"
    assert contained.inside("ls", f"{HOME}/state.db")
    assert SKILL in deployment.call("GET", "/v1/skills").text
    assert InContainer(contained, telegram).broken() == []

    assert deployment.deploy().changed(deployment.name) == 0
    # Which volume goes with a container is what the cleaner asks before, and removes after.
    engine = DockerEngine(str(docker.socket))
    (volume,) = engine.anonymous_volumes(contained.session)
    assert not engine.remove_volume(volume), "it is in use"
    contained.sleep()
    assert volume in docker("volume", "ls", "--quiet"), "workerd leaves it"
    assert engine.anonymous_volumes(contained.session) == set()
    assert engine.remove_volume(volume)
    assert volume not in docker("volume", "ls", "--quiet")
    assert deployment.chat("And now?").status == 200, "it is restored"

    for variable in ("hermes_source", "hermes_accept_advisories"):
        deployment.variables.pop(variable)
    deployment.variables["hermes_base_image"] = base
    back = contained.deploy()
    assert "Hermes in a new sandbox, because of a new image" in back.output
    assert deployment.chat("Hello").status == 200
    assert contained.inside("sh", "-c", "command -v hermes") == "/opt/hermes/bin/hermes"

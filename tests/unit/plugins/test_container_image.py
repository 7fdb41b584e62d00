# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""The image that a deployment runs Hermes from: what is pulled, built, claimed, and left when that fails."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.docker import DockerEngine
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.build.build_context import (
    BuildContextError,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.containers import image
from ansible_collections.hermes.workers.plugins.plugin_utils.containers.engine import (
    ContainerEngine,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.state.disk import (
    IMAGE_BYTES,
    RUN_BYTES,
)
from container_engine import StandIn, stand_in

__all__ = ["stand_in"]

BASE, SIDECAR = "a.example/python:3", "a.example/sidecar:1"
NAME = "hermes-workers:digest"
PODMAN = {"Version": "5", "Components": [{"Name": "Podman Engine"}]}


class Making:
    """One deployment's image; what is brought into it is one file, and a container reaches this machine."""

    def __init__(self, engine: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine, self.runtime = engine, folder / "runtime"
        self.said: list[str] = []
        self.pythons: list[str] = []
        self.release: Any = None
        self.settings = Settings(
            platform="workerd",
            engine="docker",
            docker_socket=engine.path,
            base_image=BASE,
            sidecar_image=SIDECAR,
        )
        engine.refused["/version"] = (200, {"Version": "1"})
        engine.printed = (0, "3.12\n")
        engine.built = [{"stream": "Step 1\n ---> 0123456789ab\n"}, {"stream": "Done\n"}]
        monkeypatch.setattr(image.build_context, "prepare", self.prepare)
        monkeypatch.setattr(image.installer, "find_uv", lambda: "uv")
        monkeypatch.setattr(image.network, "why_unreachable", lambda *_: "")

    def prepare(self, _container: Path, folder: Path, python: str, *_more: object) -> None:
        self.pythons.append(python)
        (folder / "Dockerfile").write_text("FROM scratch\n")

    @property
    def image(self) -> image.ContainerImage:
        sources = SimpleNamespace(
            container=Path("container"),
            container_image=lambda _base: "digest",
            hermes_version="1.2.3",
            lock_text="",
            features={},
            release=self.release,
        )
        return image.ContainerImage(self.settings, sources, self.runtime, self.said.append)

    def install(self) -> None:
        self.image.install()

    def refused(self) -> str:
        """Return the card of an installation that fails, and leaves neither a claim nor a folder."""
        with pytest.raises(Card) as caught:
            self.install()
        assert not any(name.startswith(f"{NAME}-") for name in self.engine.names())
        assert not list(self.runtime.glob("context-*"))
        return caught.value.render()

    def posted(self, path: str) -> int:
        return self.engine.seen.count(("POST", path))


@pytest.fixture
def making(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Making:
    return Making(stand_in, tmp_path, monkeypatch)


def test_what_is_missing_is_pulled_and_the_image_is_built_once_for_all_deployments(
    making: Making,
) -> None:
    made = making.image
    assert (made.has_image(), made.has_other()) == (False, False)
    assert made.missing() == [("hermes_base_image", BASE), ("hermes_sidecar_image", SIDECAR)]
    making.install()
    assert making.engine.names() == {BASE, SIDECAR, NAME, made.claim}
    assert making.pythons == ["3.12"]
    assert making.engine.containers == {}
    assert (made.has_image(), made.has_other(), made.missing()) == (True, True, [])
    assert f"pulling {BASE}: 1a Pull complete" in making.said

    making.settings.name = "another"
    another = making.image
    assert another.claim != made.claim and not another.has_image()
    making.install()
    assert (making.posted("/build"), making.posted("/images/create")) == (1, 2)
    assert {made.claim, another.claim} < making.engine.names()


def test_what_the_builder_kept_of_its_steps_goes_with_a_build_that_fails_too(
    making: Making,
) -> None:
    making.engine.add("0123456789ab")
    making.engine.add("ba9876543210", "somebody/else:1")
    steps = [f"Step {number}\n" for number in range(10)]
    layers = " ---> 0123456789ab\n---> ba9876543210\n ---> 000000000000\n"
    making.engine.built = [{"stream": text} for text in (layers, *steps)] + [{"error": "no space"}]
    card = making.refused()
    assert "the image of Hermes 1.2.3: the container engine could not build it: no space" in card
    assert "Step 9" in card and "Step 2" in card and "Step 1\n" not in card, "the last lines"
    assert "0123456789ab" not in making.engine.images
    assert "ba9876543210" in making.engine.images, "it has a name"


def test_of_an_image_of_upstreams_its_own_layers_stay(making: Making) -> None:
    layer = "0123456789ab"
    made = making.image
    made.upstream = "a.example/hermes"
    for digests, kept in ((["a.example/hermes@sha256:1"], True), ([], False)):
        making.engine.add(layer)
        making.engine.images[layer]["RepoDigests"] = digests
        made._drop_layers([f" ---> {layer}"])
        assert (layer in making.engine.images) is kept


@pytest.mark.parametrize(
    ("printed", "found"),
    [
        ((0, "3.9\n"), "(3.9)"),
        ((127, "exec: python3: not found\n"), "(exec: python3: not found)"),
        ((1, "Segmentation fault\n" * 50), "(Segmentation fault Segmentation"),
    ],
    ids=["another", "none", "broken"],
)
def test_a_base_without_a_python_for_hermes_is_told(
    making: Making, printed: tuple[int, str], found: str
) -> None:
    making.engine.printed = printed
    card = making.refused()
    assert card.startswith(f"hermes_base_image: {BASE} has no Python that Hermes runs on {found}")
    assert len(card) < 800
    assert making.posted("/build") == 0


def test_an_engine_that_starts_no_container_is_not_taken_for_a_base_without_python(
    making: Making,
) -> None:
    making.engine.refused["/containers/create"] = (500, {"message": "no space left on device"})
    assert "refuses: no space left on device" in making.refused()


def test_without_uv_nothing_is_built(making: Making, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image.installer, "find_uv", lambda: None)
    assert making.refused().startswith("uv: not found")
    assert making.posted("/build") == 0


@pytest.mark.parametrize("detail", [["error: no route", "the last line"], []], ids=["told", "not"])
def test_packages_that_cannot_be_had_are_told_with_the_tools_own_words(
    making: Making, monkeypatch: pytest.MonkeyPatch, detail: list[str]
) -> None:
    error = BuildContextError("uv failed")
    error.detail = detail

    def failing(*_given: object) -> None:
        raise error

    monkeypatch.setattr(image.build_context, "prepare", failing)
    card = making.refused()
    assert (detail or ["uv failed"])[-1] in card
    assert making.posted("/build") == 0
    error.overwritten = "a_thing"
    assert "cache clean a-thing`, then run it again" in making.refused()


def test_a_hermes_that_lacks_what_is_needed_leaves_no_image(making: Making) -> None:
    lost = [{"name": "gateway", "lost": "no chat", "needed": True}]
    making.release = SimpleNamespace(
        image="", version="9.9.9", python="3.12", wheels=None, debian=None
    )
    run = DockerEngine.run

    def suite(engine: DockerEngine, name: str, command: list[str], *more: Any) -> str:
        return json.dumps(lost) if name == NAME else run(engine, name, command, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DockerEngine, "run", suite)
        card = making.refused()
    assert "this Hermes has no gateway: no chat" in card
    assert making.engine.names() == {BASE, SIDECAR}


@pytest.mark.parametrize("held", [False, True], ids=["new", "another deployment's"])
def test_where_no_container_reaches_this_machine_nothing_of_the_attempt_stays(
    making: Making, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    """Podman's bridge is held by a container, which stays only if it was there before."""
    making.engine.refused["/version"] = (200, PODMAN)
    holder = f"hermes-bridge-{making.image.session}"
    if held:
        making.engine.containers[holder] = ""
    monkeypatch.setattr(image.network, "why_unreachable", lambda *_: "timed out")
    card = making.refused()
    assert "those of unix:" in card and "cannot: timed out" in card
    assert "hermes_engine: process needs none" in card
    assert (holder in making.engine.containers) is held
    assert making.posted("/build") == 0


@pytest.mark.parametrize(
    ("name", "variable"), [(BASE, "hermes_base_image"), (SIDECAR, "hermes_sidecar_image")]
)
def test_an_image_that_cannot_be_pulled_names_its_variable(
    making: Making, name: str, variable: str
) -> None:
    making.engine.add("there", SIDECAR if name == BASE else BASE)
    making.engine.refused["/images/create"] = (404, {"message": "manifest\n  unknown"})
    card = making.refused()
    assert card.startswith(
        f"{variable}: {name} is not in the container engine and cannot be pulled: manifest unknown."
    )


def test_somebody_who_may_not_open_the_socket_is_told_of_its_group() -> None:
    with pytest.raises(Card) as caught, image.speaking("/run/d.sock"):
        raise PermissionError(errno.EACCES, "Permission denied")
    assert "you may not open unix:/run/d.sock" in caught.value.render()


def test_a_file_that_cannot_be_had_is_not_taken_for_the_engine(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), image.speaking("/run/d.sock"):
        (tmp_path / "none").read_text()


def test_an_engines_registry_and_disk_are_looked_at_before_anything_is_pulled(
    making: Making, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = making.engine.refused
    refused["/version"] = (200, {"Version": "1", "Arch": "amd64"})
    refused["/networks/bridge"] = (200, {"IPAM": {"Config": [{}, {"Gateway": "172.17.0.1"}]}})
    refused["/info"] = (200, {"DockerRootDir": str(tmp_path)})
    refused[f"/distribution/{BASE}/json"] = (401, {"message": "no\n such user"})
    free = [IMAGE_BYTES - 1]
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=free[0]))

    def told() -> list[str]:
        engine = ContainerEngine(making.settings, SimpleNamespace(), making.image)  # type: ignore[arg-type]
        return [f"{one.subject}: {one.sentence}" for one in engine.problems()]

    registry, disk = told()
    assert registry.startswith(f"hermes_base_image: {BASE} is not in the container engine")
    assert "no such user" in registry and str(tmp_path) in disk
    free[0] = IMAGE_BYTES
    making.engine.add("base", BASE)
    making.engine.add("sidecar", SIDECAR)
    assert told() == []
    # The image is there, so that only what a run takes has to be free.
    making.engine.add("made", making.image.name, making.image.claim)
    free[0] = RUN_BYTES
    assert told() == []
    free[0] = 0
    refused["/info"] = (200, {"DockerRootDir": "/in/a/virtual/machine"})
    assert told() == []

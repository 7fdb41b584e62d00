# SPDX-License-Identifier: Apache-2.0
"""A real engine pushes the image of Hermes to the account's registry: once, for all, and past the user's own Docker."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import (
    REPOSITORY,
    Sources,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder
from fleets import ACCOUNT, KEY, Fleet

from tests.cloudflare import ControlPlane
from tests.cloudflare.acceptance import Failed
from tests.cloudflare.rehearse import no_images
from tests.docker.engine import Docker, Image

FOREIGN = json.dumps({"auths": {"registry.example": {"auth": "Y2FuYXJ5"}}, "credsStore": "absent"})


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, docker: Docker, base: str) -> Iterator[Fleet]:
    """Two hosts whose image no registry has."""
    folder = tmp_path_factory.mktemp("pushing")
    with ControlPlane(folder / "plane") as plane:
        made = Fleet(plane, folder)
        plane.registry.repositories.clear()
        for name in ("one", "two"):
            made.add(name)
            made.variables[name] = {
                "hermes_base_image": base,
                "hermes_docker_socket": f"unix:{docker.socket}",
            }
        yield made
        docker("image", "rm", built_image(base), check=False)


@pytest.fixture(autouse=True)
def built(docker: Docker, base: str, image: Image) -> None:
    """The engine has built it already."""
    docker("tag", image.name, built_image(base))


def built_image(base: str) -> str:
    return f"{REPOSITORY}:{Sources().container_image(base)}"


def images(docker: Docker) -> str:
    return docker("images", "--format", "{{.Tag}}", REPOSITORY)


def test_a_rehearsal_that_fails_leaves_no_image(docker: Docker, base: str, tmp_path: Path) -> None:
    deployment = StateFolder(str(tmp_path), "hermes")
    deployment.create()
    with pytest.raises(Failed), no_images(tmp_path):
        deployment.note_containers(str(docker.socket), "hermes-00")
        docker("tag", built_image(base), f"{built_image(base)}-hermes-00")
        raise Failed("the push")
    assert not images(docker)


def test_what_a_failed_push_leaves_goes_with_the_deployments(fleet: Fleet, docker: Docker) -> None:
    fleet.plane.faults.on("PUT", "/manifests/", "refused", times=100)
    assert fleet.play().code != 0
    fleet.plane.faults.clear()
    assert images(docker)
    play = fleet.destroy()
    assert play.code == 0, play.output
    assert not images(docker), play.output


def test_it_is_pushed_once_and_then_needs_no_engine(
    fleet: Fleet, docker: Docker, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = fleet.home / "config.json"
    config.write_text(FOREIGN)
    monkeypatch.setenv("DOCKER_CONFIG", str(fleet.home))
    check = fleet.play("--check")
    assert "create  image" in check.output
    assert fleet.plane.registry.repositories == {}

    fleet.plane.faults.on("PUT", "/manifests/", "refused", times=100)
    cut = fleet.play()
    fleet.plane.faults.clear()
    assert cut.code != 0
    assert "the image of Hermes: 127.0.0.1" in cut.output
    assert "Nothing was deployed." in cut.output
    assert not any(fleet.worker(name) for name in ("one", "two"))
    refused = len(pushes(fleet))

    play = fleet.play()
    assert play.code == 0, play.output
    assert "building the image" not in play.output, "it was built before the push that failed"
    assert "pushing the image to 127.0.0.1" in play.output
    assert config.read_text() == FOREIGN
    repository = fleet.plane.registry.repositories[f"{ACCOUNT}/{REPOSITORY}"]
    (digest,) = repository.tags.values()
    tag = Sources().container_image(base)
    assert set(repository.tags) == {tag}
    pushed = sum("manifests" in one.path for one in pushes(fleet)[refused:])
    assert pushed == 1, "one push for both"
    (lent, *_others) = [one for one in fleet.plane.calls if one.path.endswith("/credentials")]
    assert lent.body["expiration_minutes"] <= 15
    for name in ("one", "two"):
        (container,) = fleet.worker(name).current.containers
        assert container["images"]["hermes"].endswith(f"/{ACCOUNT}/{REPOSITORY}@{digest}")
    assert KEY not in play.output
    assert "127.0.0.1" not in docker("images", "--format", "{{.Repository}}"), "no tag is left"
    assert REPOSITORY not in docker("images", "--format", "{{.Repository}}"), "a host claims it"

    fleet.variables = {name: {"hermes_base_image": base} for name in ("one", "two")}
    for variables in fleet.variables.values():
        variables["hermes_docker_socket"] = "unix:/nowhere"
    again = fleet.play("--check")
    assert "No changes. 0 calls written." in again.output, again.output


def pushes(fleet: Fleet) -> list:
    return [one for one in fleet.plane.calls if one.method == "PUT" and "/v2/" in one.path]


def test_no_layer_holds_a_secret(fleet: Fleet) -> None:
    blobs = list((fleet.plane.folder / "registry" / "blobs").iterdir())
    assert blobs
    secrets = [KEY, *fleet.tokens.values()]
    secrets += [path.read_text().strip() for path in fleet.home.glob("*/api_token")]
    for blob in blobs:
        assert not holds(blob, [secret.encode() for secret in secrets]), blob


def holds(blob: Path, secrets: list[bytes]) -> bool:
    """Whether a blob, unpacked, holds a secret; read in pieces that overlap."""
    with blob.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    tail = b""
    with gzip.open(blob) if packed else blob.open("rb") as content:
        while piece := content.read(1 << 22):
            if any(secret in tail + piece for secret in secrets):
                return True
            tail = piece[-128:]
    return False

# SPDX-License-Identifier: Apache-2.0
"""The registry really stores, for one account each, by credentials that expire; a real engine pushes to it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable

import pytest
import requests
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import Cloudflare
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.registry import Registry

from tests.cloudflare import ControlPlane
from tests.cloudflare.registry import CATALOG_PAGE
from tests.cloudflare.uploading import ACCOUNT, OTHER
from tests.docker.engine import Docker

Make = Callable[..., Cloudflare]


@pytest.fixture
def borrow(plane: ControlPlane, client: Make) -> Callable[..., tuple[str, str]]:
    """Ask the API for credentials."""

    def ask(*permissions: str, minutes: int = 5) -> tuple[str, str]:
        path = f"containers/registries/{plane.env['CLOUDFLARE_CONTAINER_REGISTRY']}/credentials"
        body = {"expiration_minutes": minutes, "permissions": list(permissions)}
        lent = client().post(client().account(path), body)
        return lent["username"], lent["password"]

    return ask


def base(plane: ControlPlane, scheme: str = "https") -> str:
    return f"{scheme}://{plane.env['CLOUDFLARE_CONTAINER_REGISTRY']}/v2"


def test_credentials_are_for_one_account_and_one_purpose_and_expire(
    plane: ControlPlane, borrow: Callable[..., tuple[str, str]]
) -> None:
    plane.add_image(ACCOUNT, "hermes")
    mine = f"{base(plane)}/{ACCOUNT}/hermes/manifests/latest"
    foreign = f"{base(plane)}/{OTHER}/hermes/manifests/latest"
    assert requests.get(mine, timeout=10).status_code == 401
    pull = borrow("pull")
    assert requests.head(mine, auth=pull, timeout=10).status_code == 200
    assert requests.get(foreign, auth=pull, timeout=10).status_code == 403
    assert requests.delete(mine, auth=pull, timeout=10).status_code == 403
    plane.advance(301)
    assert requests.head(mine, auth=pull, timeout=10).status_code == 401


def test_images_are_listed_and_deleted(
    plane: ControlPlane, borrow: Callable[..., tuple[str, str]]
) -> None:
    plane.add_image(ACCOUNT, "hermes")
    auth = borrow("pull", "push")
    for url in (base(plane), base(plane, "http"), "https://registry.cloudflare.com/v2"):
        listed = requests.get(f"{url}/_catalog?tags=true", auth=auth, timeout=10).json()
        assert listed == {"repositories": {f"{ACCOUNT}/hermes": ["latest"]}}
    manifest = f"{base(plane)}/{ACCOUNT}/hermes/manifests/latest"
    assert requests.delete(manifest, auth=auth, timeout=10).status_code == 202
    assert requests.get(manifest, auth=auth, timeout=10).status_code == 404
    assert requests.put(f"{base(plane)}/gc/layers", auth=auth, timeout=10).status_code == 200
    assert list((plane.folder / "registry" / "blobs").iterdir()) == []


def test_the_catalogue_is_read_beyond_its_first_page(plane: ControlPlane, client: Make) -> None:
    for number in range(CATALOG_PAGE * 2 + 1):
        plane.registry.add_image(f"{ACCOUNT}/image-{number:03}", "one")
    found = Registry(client()).repositories()
    assert len(found) == CATALOG_PAGE * 2 + 1
    assert found["image-200"] == ["one"]


def test_a_real_engine_pushes_and_pulls(
    plane: ControlPlane,
    borrow: Callable[..., tuple[str, str]],
    docker: Docker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(plane.folder / "docker"))
    name = f"{plane.env['CLOUDFLARE_CONTAINER_REGISTRY']}/{ACCOUNT}/pushed:one"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("marker")
        entry.size = 6
        tar.addfile(entry, io.BytesIO(b"pushed"))
    folder = plane.folder / "context"
    folder.mkdir()
    (folder / "layer.tar").write_bytes(archive.getvalue())
    docker("import", str(folder / "layer.tar"), name)
    user, password = borrow("pull", "push")
    host = name.partition("/")[0]
    docker("login", "--username", user, "--password-stdin", host, text=password)
    pushed = docker("push", name)
    digest = pushed.rpartition("digest: ")[2].split()[0]
    assert plane.registry.has(f"{ACCOUNT}/pushed", digest)
    docker("image", "rm", name)
    docker("pull", f"{name.rpartition(':')[0]}@{digest}")
    docker("image", "rm", f"{name.rpartition(':')[0]}@{digest}")
    manifest = json.loads(
        plane.registry.repositories[f"{ACCOUNT}/pushed"].manifests[digest].content
    )
    assert len(manifest["layers"]) == 1

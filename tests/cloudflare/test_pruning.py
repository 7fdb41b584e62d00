# SPDX-License-Identifier: Apache-2.0
"""Old images go on request, never one that a deployment names or would go back to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import Cloudflare
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import REPOSITORY
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.image import prune

from tests.cloudflare import ControlPlane
from tests.cloudflare.uploading import ACCOUNT, upload

Make = Callable[..., Cloudflare]


@pytest.fixture
def push(plane: ControlPlane) -> Callable[[str], str]:
    """Put an image into the registry; returns the reference by its digest."""

    def one(tag: str) -> str:
        digest = plane.registry.add_image(f"{ACCOUNT}/{REPOSITORY}", tag, note=tag)
        return f"{plane.env['CLOUDFLARE_CONTAINER_REGISTRY']}/{ACCOUNT}/{REPOSITORY}@{digest}"

    return one


def tags(plane: ControlPlane) -> set[str]:
    return set(plane.registry.repositories[f"{ACCOUNT}/{REPOSITORY}"].tags)


def starting(image: str) -> list[dict[str, Any]]:
    return [{"name": "box", "class_name": "Box", "images": {"hermes": image}}]


def test_only_what_nobody_names_is_deleted(
    plane: ControlPlane, client: Make, push: Callable[[str], str]
) -> None:
    ours, before, now = push("ours"), push("before"), push("now")
    push("forgotten")
    upload(client(), "box", containers=starting(before))
    upload(client(), "box", containers=starting(now), migrations=None)

    assert prune(client(), keep=ours) == ["forgotten"]
    assert tags(plane) == {"ours", "before", "now"}, "a rollback goes back to the one before"
    start = len(plane.calls)
    assert prune(client(), keep=ours) == []
    assert plane.writes(start) == []


def test_the_images_of_a_worker_that_is_gone_go_too(
    plane: ControlPlane, client: Make, push: Callable[[str], str]
) -> None:
    upload(client(), "box", containers=starting(push("its")))
    client().delete(client().account("workers/services/box"), force="true")
    assert prune(client(), keep="") == ["its"]
    assert list((plane.folder / "registry" / "blobs").iterdir()) == [], "and their space is freed"

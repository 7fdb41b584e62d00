# SPDX-License-Identifier: Apache-2.0
"""Secrets change although the newest version is not the one that serves, and nothing else comes into service."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import scripts, secrets
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import (
    Cloudflare,
    CloudflareError,
)

from tests.cloudflare import ControlPlane
from tests.cloudflare.accounts import Worker
from tests.cloudflare.uploading import ACCOUNT, CODE, metadata, upload

Make = Callable[..., Cloudflare]


@pytest.fixture
def worker(plane: ControlPlane, client: Make) -> Worker:
    """A Worker with a container, whose change of KEY was taken back."""
    image = plane.add_image(ACCOUNT)
    containers = [{"name": "box", "class_name": "Box", "images": {"box": image}}]
    upload(client(), containers=containers)
    made = plane.state.accounts[ACCOUNT].workers["box"]
    good = made.current
    secrets.write(client(), "box", {"KEY": "rejected", "EXTRA": "rejected"})
    scripts.serve(client(), "box", good.id, "taken back", force=True)
    assert made.current is good
    return made


def served_since(worker: Worker, start: int) -> list[dict[str, str]]:
    """The secrets of each version that served since."""
    return [one.version.secrets() for one in worker.deployments[start:]]


def test_cloudflare_refuses_what_would_deploy_another_version(worker: Worker, client: Make) -> None:
    api = client()
    bulk = {"secrets": {"KEY": {"name": "KEY", "type": "secret_text", "text": "new"}}}
    for act, code in (
        (lambda: api.patch(scripts.path(api, "box", "secrets-bulk"), bulk, merge=True), 10215),
        (lambda: api.put(scripts.path(api, "box", "secrets"), bulk["secrets"]["KEY"]), 10215),
        (lambda: api.call("DELETE", scripts.path(api, "box", "secrets/EXTRA")), 10215),
        (lambda: api.patch(scripts.path(api, "box", "settings"), {}), 10214),
    ):
        with pytest.raises(CloudflareError) as caught:
            act()
        assert caught.value.codes == [code]
    assert worker.current.secrets() == {"KEY": "sekret"}


def test_after_a_change_was_taken_back_every_further_one_works(
    worker: Worker, client: Make
) -> None:
    good, start = worker.current, len(worker.deployments)
    secrets.write(client(), "box", {"OTHER": "new"})
    assert served_since(worker, start) == [{"KEY": "sekret", "OTHER": "new"}]
    assert worker.current.etag == good.etag, "the code stays"
    assert worker.current.containers == good.containers, "and what it starts"
    assert worker.current.variables() == good.variables()
    secrets.write(client(), "box", {"KEY": "newer", "OTHER": None})
    assert worker.current.secrets() == {"KEY": "newer"}


def test_two_versions_that_share_the_requests(
    worker: Worker, client: Make, plane: ControlPlane
) -> None:
    plane.unready_versions = 0
    served, newest = worker.current, worker.versions[-1]
    shares = [(served.id, 60), (newest.id, 40)]
    body = {
        "strategy": "percentage",
        "versions": [{"version_id": one, "percentage": share} for one, share in shares],
    }
    client().post(scripts.path(client(), "box", "deployments"), body)
    secrets.write(client(), "box", {"OTHER": "new"})
    assert worker.current.secrets() == {"KEY": "sekret", "OTHER": "new"}
    assert not worker.deployments[-1].others


def test_a_version_that_was_only_uploaded_does_not_come_into_service(
    plane: ControlPlane, client: Make
) -> None:
    api = client()
    upload(api)
    worker = plane.state.accounts[ACCOUNT].workers["box"]
    good = worker.current
    parts: dict[str, Any] = {
        "metadata": (None, json.dumps(metadata(migrations=None)), "application/json"),
        "index.js": ("index.js", CODE + "// another", "application/javascript+module"),
    }
    api.upload("POST", scripts.path(api, "box", "versions"), parts)
    secrets.write(api, "box", {"OTHER": "new"})
    assert worker.current.etag == good.etag
    assert worker.current.secrets() == {"KEY": "sekret", "OTHER": "new"}


def test_images_that_are_not_told_are_not_dropped(
    worker: Worker, client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, start = worker.current, len(worker.deployments)
    told = scripts.version(client(), "box", good.id)
    del told["resources"]["script_runtime"]["containers"]
    monkeypatch.setattr(scripts, "version", lambda *_: told)
    with pytest.raises(CloudflareError, match="does not tell which images"):
        secrets.write(client(), "box", {"OTHER": "new"})
    assert served_since(worker, start) == []
    secrets.write(client(), "box", {"OTHER": "new"}, lambda _variables: good.containers)
    assert worker.current.containers == good.containers


def test_more_secrets_than_one_call_holds(plane: ControlPlane, client: Make) -> None:
    upload(client())
    worker = plane.state.accounts[ACCOUNT].workers["box"]
    many = {f"S{number}": "x" for number in range(101)}
    secrets.write(client(), "box", many)
    assert worker.current.secrets() == many | {"KEY": "sekret"}
    secrets.write(client(), "box", dict.fromkeys(many))
    assert worker.current.secrets() == {"KEY": "sekret"}

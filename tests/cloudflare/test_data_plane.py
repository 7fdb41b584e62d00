# SPDX-License-Identifier: Apache-2.0
"""Uploaded Workers answer at their hostnames, as the edge would have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import Cloudflare

from tests.cloudflare import ControlPlane
from tests.cloudflare.uploading import upload

Make = Callable[..., Cloudflare]
URL = "https://box.acme.workers.dev/"


def ask(url: str = URL) -> dict[str, Any]:
    answer = requests.get(url, timeout=30)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def enable(client: Cloudflare, enabled: bool = True) -> None:
    client.post(client.account("workers/scripts/box/subdomain"), {"enabled": enabled})


def test_an_uploaded_worker_runs_with_its_variables_secrets_and_objects(client: Make) -> None:
    upload(client())
    enable(client())
    assert ask() == {"GREETING": "hi", "KEY": "sekret", "count": 1, "url": URL}
    assert ask()["count"] == 2


def test_workers_dev_answers_only_while_it_is_enabled(plane: ControlPlane, client: Make) -> None:
    upload(client())
    assert requests.get(URL, timeout=30).status_code == 404
    enable(client())
    ask()
    enable(client(), False)
    assert requests.get(URL, timeout=30).status_code == 404
    with pytest.raises(requests.exceptions.SSLError):
        requests.get("https://one.box.acme.workers.dev/", timeout=30)


def test_storage_outlives_versions_and_dies_with_the_worker(client: Make) -> None:
    upload(client())
    enable(client())
    ask()
    secrets = {"KEY": {"name": "KEY", "text": "other", "type": "secret_text"}}
    client().patch(
        client().account("workers/scripts/box/secrets-bulk"), {"secrets": secrets}, merge=True
    )
    assert ask() | {"url": ""} == {"GREETING": "hi", "KEY": "other", "count": 2, "url": ""}
    client().delete(client().account("workers/services/box"), force="true")
    assert requests.get(URL, timeout=30).status_code == 404
    upload(client())
    enable(client())
    assert ask()["count"] == 1

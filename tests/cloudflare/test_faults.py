# SPDX-License-Identifier: Apache-2.0
"""Ordered faults hit the calls they were ordered for, before or after these had their effect."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import requests
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import client as cloudflare
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import (
    Cloudflare,
    CloudflareError,
)

from tests.cloudflare import ControlPlane
from tests.cloudflare.uploading import ACCOUNT, TOKEN, upload

Make = Callable[..., Cloudflare]
URL = f"https://api.cloudflare.com/client/v4/accounts/{ACCOUNT}/workers/scripts"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client try again at once."""
    monkeypatch.setattr(cloudflare.time, "sleep", lambda _seconds: None)


def ask() -> int:
    """Return the status of one plain call, 0 when the connection was cut."""
    try:
        return requests.get(
            URL, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10
        ).status_code
    except requests.exceptions.ConnectionError:
        return 0


def test_after_so_many_calls_all_fail_until_it_is_over(plane: ControlPlane) -> None:
    plane.faults.after(2, "error")
    assert [ask() for _ in range(4)] == [200, 200, 500, 500]
    plane.faults.clear()
    assert ask() == 200


def test_every_so_many_calls_one_is_lost(plane: ControlPlane) -> None:
    plane.faults.every(3, "cut-before")
    assert [ask() for _ in range(6)] == [200, 200, 0, 200, 200, 0]
    assert [call.status for call in plane.calls] == [200, 200, 0, 200, 200, 0]


def test_chosen_calls_fail_so_many_times(plane: ControlPlane, client: Make) -> None:
    plane.faults.on("PUT", "/workers/scripts/box$", "unavailable", times=2)
    upload(client())
    assert [call.status for call in plane.writes()] == [503, 503, 200]


@pytest.mark.parametrize(
    ("kind", "status", "stored"),
    [("cut-before", 0, False), ("cut-after", 0, True), ("error-after", 500, True)],
)
def test_a_call_fails_before_or_after_its_effect(
    plane: ControlPlane, client: Make, kind: str, status: int, stored: bool
) -> None:
    plane.faults.on("PUT", "/workers/scripts/box$", kind, times=10)
    with pytest.raises(CloudflareError) as caught:
        upload(client())
    assert caught.value.status == status
    assert ("box" in plane.state.accounts[ACCOUNT].workers) is stored


def test_a_call_that_hangs_is_given_up_and_sent_again(
    plane: ControlPlane, client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloudflare, "TIMEOUT", (10.0, 0.5))
    plane.faults.on("GET", "/workers/scripts$", "timeout", times=1)
    assert client().get(client().account("workers/scripts")) == []


def test_too_many_calls_say_when_to_come_back(plane: ControlPlane, client: Make) -> None:
    plane.faults.on("GET", "/workers/scripts$", "rate-limit")
    assert client().get(client().account("workers/scripts")) == []
    assert [call.status for call in plane.calls] == [429, 200]


def test_an_image_is_prepared_in_steps(plane: ControlPlane, client: Make) -> None:
    image = plane.add_image(ACCOUNT)
    plane.preparations[:] = ["pending", "error"]
    path = client().account("containers/image-preparations")
    told = [client().post(path, {"image": image})["status"] for _ in range(3)]
    assert told == ["pending", "error", "ready"]

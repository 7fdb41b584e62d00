# SPDX-License-Identifier: Apache-2.0
"""Uploaded Workers answer at their hostnames, as the edge would have it."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Any

import pytest
import requests
from aiohttp import ClientSession
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import (
    Cloudflare,
    CloudflareError,
)

from tests.cloudflare import ControlPlane
from tests.cloudflare.uploading import ACCOUNT, upload

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


def test_storage_outlives_versions_and_dies_with_the_worker(
    plane: ControlPlane, client: Make
) -> None:
    plane.defers_secrets = False
    upload(client())
    enable(client())
    ask()
    change_secret(client(), "other")
    assert ask() | {"url": ""} == {"GREETING": "hi", "KEY": "other", "count": 2, "url": ""}
    client().delete(client().account("workers/services/box"), force="true")
    assert requests.get(URL, timeout=30).status_code == 404
    upload(client())
    enable(client())
    assert ask()["count"] == 1


STREAM = """
import { DurableObject } from "cloudflare:workers";
export class Box extends DurableObject {
  async fetch() {
    const { readable, writable } = new TransformStream();
    const writer = writable.getWriter();
    const say = async () => {
      for (let count = 0; ; count++) {
        await writer.write(new TextEncoder().encode(`${count}\\n`));
        await scheduler.wait(50);
      }
    };
    this.ctx.waitUntil(say());
    return new Response(readable);
  }
}
export default {
  fetch(request, env) {
    if (request.headers.get("Upgrade") !== "websocket")
      return env.BOX.get(env.BOX.idFromName("one")).fetch(request);
    const { 0: client, 1: server } = new WebSocketPair();
    server.accept();
    server.addEventListener("message", ({ data }) => server.send(`you said ${data}`));
    return new Response(null, { status: 101, webSocket: client });
  },
};
"""


def test_an_immediate_version_cuts_the_streams_of_the_one_before(client: Make) -> None:
    upload(client(), code=STREAM)
    enable(client())
    with requests.get(URL, stream=True, timeout=30) as answer:
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(3)] == [b"0", b"1", b"2"]
        upload(client(), migrations=None, code_update_strategy=IMMEDIATE)
        with pytest.raises(requests.exceptions.RequestException):
            for _ in lines:
                pass
    assert ask()["GREETING"] == "hi"


def test_an_object_in_use_keeps_its_code_until_its_time_is_over_and_is_then_cut(
    plane: ControlPlane, client: Make
) -> None:
    upload(client(), code=STREAM)
    enable(client())
    with requests.get(URL, stream=True, timeout=30) as answer:
        lines = answer.iter_lines()
        assert next(lines) == b"0"
        upload(client(), migrations=None)
        with requests.get(URL, stream=True, timeout=30) as another:
            assert next(another.iter_lines()) == b"0", "the object of before answers"
        assert int(next(lines)) > 0
        plane.advance(301)
        with pytest.raises(requests.exceptions.RequestException):
            for _ in lines:
                pass
    assert ask()["GREETING"] == "hi"


def both() -> tuple[str, str]:
    """What the Worker has of its secret, and its object."""
    answer = requests.get(URL, timeout=30)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    return told["worker"], told["object"]


def change_secret(client: Cloudflare, value: str) -> None:
    secrets = {"KEY": {"name": "KEY", "text": value, "type": "secret_text"}}
    path = client.account("workers/scripts/box/secrets-bulk")
    client.patch(path, {"secrets": secrets}, merge=True)


def serve(client: Cloudflare, version_id: str, **more: Any) -> None:
    share = [{"version_id": version_id, "percentage": 100}]
    path = client.account("workers/scripts/box/deployments")
    client.call(
        "POST", path, {"strategy": "percentage", "versions": share, **more}, {"force": True}
    )


def test_secrets_and_rollbacks_reach_the_worker_first_and_its_object_when_that_is_said(
    plane: ControlPlane, client: Make
) -> None:
    upload(client(), code=TWO)
    enable(client())
    assert both() == ("sekret", "sekret")
    (first,) = plane.state.accounts[ACCOUNT].workers["box"].versions
    change_secret(client(), "other")
    assert both() == ("other", "sekret")
    current = plane.state.accounts[ACCOUNT].workers["box"].current
    serve(client(), current.id, code_update_strategy=IMMEDIATE)
    assert both() == ("other", "other")
    serve(client(), first.id)
    assert both() == ("sekret", "other")
    plane.advance(301)
    wait_for(lambda: both() == ("sekret", "sekret"))
    plane.defers_secrets = False
    # Secrets change only where the newest version serves.
    serve(client(), current.id, code_update_strategy=IMMEDIATE)
    change_secret(client(), "third")
    assert both() == ("third", "third")


def test_an_object_that_left_memory_comes_back_with_the_newest_version(
    plane: ControlPlane, client: Make
) -> None:
    upload(client(), code=TWO)
    enable(client())
    both()
    plane.advance(141)
    change_secret(client(), "other")
    assert both() == ("other", "other")


@pytest.mark.parametrize("strategy", [{"mode": "immediate", "max_delay": 60}, {"mode": "soon"}])
def test_a_code_update_strategy_that_is_none_is_refused(
    client: Make, strategy: dict[str, Any]
) -> None:
    with pytest.raises(CloudflareError):
        upload(client(), code_update_strategy=strategy)


def test_a_body_over_100_mb_is_refused_before_any_worker_sees_it(client: Make) -> None:
    upload(client())
    enable(client())
    answer = requests.put(URL, data=bytes(100_000_001), timeout=60)
    assert answer.status_code == 413
    assert "cloudflare" in answer.text
    assert ask()["count"] == 1, "the Worker was not asked before"


TWO = """
import { DurableObject } from "cloudflare:workers";
export class Box extends DurableObject {
  key() {
    return this.env.KEY;
  }
}
export default {
  async fetch(request, env) {
    return Response.json({ worker: env.KEY, object: await env.BOX.getByName("one").key() });
  },
};
"""
IMMEDIATE = {"mode": "immediate"}


def wait_for(true: Callable[[], bool]) -> None:
    for _ in range(600):
        if true():
            return
        time.sleep(0.1)
    pytest.fail("not within 60 s")


def test_websockets_pass(plane: ControlPlane, client: Make) -> None:
    upload(client(), code=STREAM)
    enable(client())
    context = ssl.create_default_context(cafile=plane.env["SSL_CERT_FILE"])

    async def talk() -> str:
        async with (
            ClientSession() as session,
            session.ws_connect(URL, proxy=plane.env["HTTPS_PROXY"], ssl=context) as socket,
        ):
            await socket.send_str("hello")
            return await socket.receive_str()

    assert asyncio.run(talk()) == "you said hello"

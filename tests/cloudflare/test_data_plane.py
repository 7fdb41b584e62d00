# SPDX-License-Identifier: Apache-2.0
"""Uploaded Workers answer at their hostnames, as the edge would have it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import pytest
import requests
from aiohttp import ClientSession
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


def test_a_new_version_cuts_the_streams_of_the_one_before(client: Make) -> None:
    upload(client(), code=STREAM)
    enable(client())
    with requests.get(URL, stream=True, timeout=30) as answer:
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(3)] == [b"0", b"1", b"2"]
        upload(client(), migrations=None)
        with pytest.raises(requests.exceptions.RequestException):
            for _ in lines:
                pass
    assert ask()["GREETING"] == "hi"


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

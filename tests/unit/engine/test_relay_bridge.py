# SPDX-License-Identifier: Apache-2.0
"""What Hermes' own relay, of the pinned release, says to the bridge beside it, and what becomes of that."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.standins.ports import free_port

SPEAKS = """
import asyncio, json, os, sys

sys.path.insert(0, sys.argv[1])
from gateway.relay.auth import make_upgrade_token
from gateway.relay.ws_transport import WebSocketRelayTransport
from sandbox.in_hermes import relay_bridge
from sandbox.in_hermes.questions import Questions
from websockets.asyncio.client import connect

relay_bridge.serve(os.environ, Questions())
address, name = os.environ["GATEWAY_RELAY_URL"], os.environ["GATEWAY_RELAY_ID"]
secret = os.environ["GATEWAY_RELAY_SECRET"]


def hermes(given):
    relay = WebSocketRelayTransport(address, "telegram", "4242", gateway_id=name, upgrade_secret=secret)

    async def hear(event):
        given.put_nowait(event.text)

    relay.set_inbound_handler(hear)
    return relay


async def media(method, path, token):
    host, port = address.removeprefix("ws://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"{method} {path} HTTP/1.1\\r\\nHost: {host}\\r\\nAuthorization: Bearer {token}\\r\\n"
    if method == "POST":
        head += "Content-Length: 6\\r\\n\\r\\na file"
    writer.write(head.encode() + b"\\r\\n")
    answer = await reader.read()
    writer.close()
    return answer.decode().split("\\r\\n")[0]


async def main():
    seen, given = {}, asyncio.Queue()
    before = hermes(given)
    await before.connect()
    seen["greeted"] = (await before.handshake()).label
    token = make_upgrade_token(name, secret)
    seen["media"] = [
        await media(method, path, one)
        for method, path in (("POST", "/relay/media"), ("GET", "/relay/media/1"))
        for one in (token, "wrong")
    ]
    seen["idle"] = await before.go_idle(30)
    await before.disconnect()
    key = {"Authorization": "Bearer " + os.environ["API_SERVER_KEY"]}
    async with connect(address + "/connector", additional_headers=key) as worker:
        seen["held"] = json.loads(await worker.recv())["held"]
        source = {"platform": "telegram", "chat_id": "77", "chat_type": "dm", "user_id": "77", "message_id": "1"}
        event = {"text": "hello", "message_type": "text", "message_id": "1", "source": source}
        await worker.send(json.dumps({"type": "inbound", "event": event, "bufferId": "1"}))
        after = hermes(given)
        await after.connect()
        seen["given"] = await given.get()
        await after.disconnect()
    print(json.dumps(seen))


asyncio.run(main())
"""
DESCRIPTOR = {
    "contract_version": 1,
    "platform": "telegram",
    "label": "Telegram",
    "max_message_length": 4096,
    "supports_draft_streaming": False,
    "supports_edit": False,
    "supports_threads": True,
    "markdown_dialect": "plain",
    "len_unit": "utf16",
}


@pytest.fixture(scope="module")
def seen(image: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Hermes' relay and a Worker saw of the bridge."""
    home = str(tmp_path_factory.mktemp("home"))
    done = subprocess.run(
        [image / "venv" / "bin" / "python", "-P", "-c", SPEAKS, image],
        env={
            "HERMES_HOME": home,
            "HOME": home,
            "PATH": "/usr/bin:/bin",
            "HERMES_RELAY_BOTS": json.dumps([{"botId": "4242", "descriptor": DESCRIPTOR}]),
            "API_SERVER_KEY": "k" * 32,
            "PORT_18790": str(free_port()),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_hermes_is_greeted_in_the_workers_place(seen: dict[str, Any]) -> None:
    assert seen["greeted"] == "Telegram"


def test_a_file_by_reference_is_refused_to_whoever_brings_or_asks_for_it(
    seen: dict[str, Any],
) -> None:
    """A later Hermes brings its files so; nobody reads them, and none of it is answered but with a refusal."""
    assert seen["media"] == ["", "", *["HTTP/1.1 401 Unauthorized"] * 2]


def test_a_hermes_that_goes_idle_is_told_so_and_what_comes_then_is_the_next_ones(
    seen: dict[str, Any],
) -> None:
    assert (seen["idle"], seen["held"], seen["given"]) == (True, [], "hello")

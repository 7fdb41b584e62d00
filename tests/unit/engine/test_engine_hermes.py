# SPDX-License-Identifier: Apache-2.0
"""Engine, sandbox and real Hermes together: a conversation outlives every way to end."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from engine_client import Client, Done
from engine_server import Server, bubblewrap_works, gone, ok
from sandbox_box import header, wait_for
from stand_in_model import model

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="looks for survivors in /proc"
)

KEY = "gateway-key-of-this-boot-0123456789"
TOKEN = "dashboard-token-of-this-boot-0123456789"


@pytest.fixture
def hermes(tmp_path: Path, image: Path) -> Iterator[Server]:
    with Server(tmp_path / "state", confine="auto", images=image.parent) as made:
        yield made


class Talk:
    """A sandbox with real Hermes. `boot` is its id."""

    def __init__(self, client: Client, image: Path, base_url: str, boot: str) -> None:
        self.client = client
        self.image = image
        self.boot = boot
        self.base_url = base_url
        self.port = self.dashboard_port = 0

    def settings(self, drain: int = 10) -> bytes:
        config = {
            "model": {
                "provider": "custom",
                "default": "m",
                "base_url": self.base_url,
                "api_key": "none",
                "context_length": 200000,
            },
            "agent": {
                "restart_drain_timeout": drain,
                "disabled_toolsets": [
                    "terminal",
                    "file",
                    "code_execution",
                    "browser",
                    "computer_use",
                    "delegation",
                    "vision",
                ],
            },
            "security": {"tirith_enabled": False},
            "kanban": {"dispatch_in_gateway": False},
            "gateway": {"api_server": {"max_concurrent_runs": 0}},
        }
        environ = {"API_SERVER_KEY": KEY, "HERMES_DASHBOARD_SESSION_TOKEN": TOKEN}
        return json.dumps({"config": config, "env": environ}).encode()

    async def start(self, archive: "bytes | None" = None, **more: object) -> None:
        body = {"image": self.image.name, "env": {"HERMES_BOOT_ID": self.boot}, **more}
        status, answer = await self.client.post("/start", body)
        assert status == 200, answer
        self.port = answer["ports"]["18789"]
        self.dashboard_port = answer["ports"]["9119"]
        if "containerSnapshot" in more:
            await self.ok("restore", "--keep")
        elif archive is None:
            await self.ok("restore", "--empty")
        else:
            await self.ok("restore", stdin=archive)
        await self.ok("go", stdin=self.settings())
        await self.ready()

    async def ready(self) -> None:
        async with aiohttp.ClientSession() as session:
            for _ in range(600):
                try:
                    async with session.get(f"http://127.0.0.1:{self.port}/health") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)
        raise AssertionError("Hermes did not become ready")

    async def ok(self, word: str, *more: str, **order: object) -> bytes:
        return await ok(self.client, word, *more, boot=self.boot, **order)

    async def status(self) -> dict:
        return json.loads(await self.ok("status"))

    async def say(self, text: str) -> str:
        """Say something in the one session and return the answer."""
        async with self.request(text) as answer:
            body = await answer.json()
            assert answer.status == 200, body
            assert body["choices"][0]["finish_reason"] == "stop", body
            return body["choices"][0]["message"]["content"]

    @asynccontextmanager
    async def request(self, text: str, **more: object) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"Authorization": f"Bearer {KEY}", "X-Hermes-Session-Id": "one"}
        body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(url, json=body) as answer,
        ):
            yield answer

    @asynccontextmanager
    async def browser(self, token: str = "") -> AsyncIterator[aiohttp.ClientSession]:
        """Come to the dashboard as the Worker does: with the token, from a loopback name."""
        headers = {"X-Hermes-Session-Token": token} if token else {}
        url = f"http://127.0.0.1:{self.dashboard_port}"
        async with aiohttp.ClientSession(url, headers=headers) as session:
            yield session

    async def settled_save(self) -> bytes:
        """Save until two saves that lie 2 s apart are equal: Hermes has finished its start."""
        digest = ""
        for _ in range(20):
            archive = await self.ok("save")
            if header(archive)["digest"] == digest:
                return archive
            digest = header(archive)["digest"]
            await asyncio.sleep(2)
        raise AssertionError("the state of an idle Hermes does not settle")


@asynccontextmanager
async def talking(server: Server, image: Path, boot: str = "boot-1") -> AsyncIterator[Talk]:
    async with model() as base_url, server.client() as client:
        yield Talk(client, image, base_url, boot)


def test_a_conversation_outlives_the_sandbox(hermes: Server, image: Path) -> None:
    async def test() -> None:
        async with talking(hermes, image) as talk:
            await talk.start()
            assert "Turn 1" in await talk.say("my cat is called Ada")
            archive = await talk.settled_save()
            await talk.client.post("/destroy")
            assert {"state.db", "response_store.db"} <= set(header(archive)["databases"])

            talk.boot = "boot-2"
            await talk.start(archive)
            answer = await talk.say("what is it called?")
            assert "Turn 2" in answer
            assert 'began with: "my cat is called Ada"' in answer

            ghost = await talk.client.exec("sandbox", "save", "--boot", "boot-1")
            assert (ghost.code, ghost.out) == (65, b"")

    asyncio.run(test())


def test_an_idle_hermes_is_not_saved_again(hermes: Server, image: Path) -> None:
    async def test() -> None:
        async with talking(hermes, image) as talk:
            await talk.start()
            await talk.say("hello")
            digest = header(await talk.settled_save())["digest"]
            await asyncio.sleep(float(os.environ.get("HERMES_TEST_IDLE_SECONDS", "10")))
            command = ("sandbox", "save", "--boot", talk.boot, "--unless", digest)
            done = await talk.client.exec(*command)
            assert (done.code, done.out) == (3, b"")
            await talk.say("something new")
            done = await talk.client.exec(*command)
            assert done.code == 0
            assert header(done.out)["digest"] != digest

    asyncio.run(test())


def test_a_killed_hermes_keeps_the_conversation(hermes: Server, image: Path) -> None:
    async def test() -> None:
        async with talking(hermes, image) as talk:
            await talk.start()
            await talk.say("my cat is called Ada")
            while (await talk.status())["state"] != "running":
                await asyncio.sleep(0.05)
            before = (await talk.status())["pid"]
            await talk.client.exec("sh", "-c", f"kill -9 {before}")
            while (await talk.status())["pid"] in (before, None):
                await asyncio.sleep(0.05)
            await talk.ready()
            assert 'began with: "my cat is called Ada"' in await talk.say("and now?")
            status = await talk.status()
            assert (status["restarts"], status["lastExit"]) == (1, 137)

    asyncio.run(test())


def test_a_restart_lets_a_stream_finish(hermes: Server, image: Path) -> None:
    async def test() -> None:
        async with talking(hermes, image) as talk:
            await talk.start()
            await talk.say("first")
            while (await talk.status())["state"] != "running":
                await asyncio.sleep(0.05)
            async with talk.request("tell it slowly", stream=True) as answer:
                await answer.content.readuntil(b"Turn")
                restart = asyncio.ensure_future(talk.ok("restart-gateway", stdin=talk.settings()))
                text = (await answer.content.read()).decode()
            assert text.rstrip().endswith("[DONE]")
            assert '"finish_reason": "stop"' in text
            await restart
            assert 'began with: "first"' in await talk.say("still there?")
            assert (await talk.status())["lastExit"] == 75
            await talk.ok("stop-gateway")
            assert (await talk.status())["state"] == "stopped"

    asyncio.run(test())


def test_a_killed_engine_leaves_no_hermes_and_the_last_save_brings_it_back(
    hermes: Server, image: Path
) -> None:
    async def test() -> None:
        async with talking(hermes, image) as talk:
            await talk.start()
            await talk.say("my cat is called Ada")
            archive = await talk.ok("save")
            processes = hermes.processes()
            assert len(processes) >= 2
            hermes.kill()
            wait_for(lambda: gone(processes), 30)
            await hermes.start_again()
            async with hermes.client() as client:
                talk.client = client
                talk.boot = "boot-2"
                await talk.start(archive)
                assert 'began with: "my cat is called Ada"' in await talk.say("and now?")

    asyncio.run(test())


def test_a_snapshot_wakes_with_the_conversation(hermes: Server, image: Path) -> None:
    async def test() -> None:
        async with talking(hermes, image) as talk:
            await talk.start()
            await talk.say("my cat is called Ada")
            _, snapshot = await talk.client.post("/snapshot")
            await talk.client.post("/destroy")
            talk.boot = "boot-2"
            await talk.start(containerSnapshot={"id": snapshot["id"]})
            assert 'began with: "my cat is called Ada"' in await talk.say("and now?")

    asyncio.run(test())


def test_the_next_appointment_is_known(hermes: Server, image: Path) -> None:
    async def test() -> None:
        async with talking(hermes, image) as talk:
            await talk.start()
            assert (await talk.status())["nextCron"] is None
            url = f"http://127.0.0.1:{talk.port}/api/jobs"
            job = {"name": "tea", "schedule": "every 2h", "prompt": "say that tea is ready"}
            headers = {"Authorization": f"Bearer {KEY}"}
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.post(url, json=job) as answer,
            ):
                assert answer.status < 300, await answer.text()
            in_seconds = (await talk.status())["nextCron"] - time.time()
            assert 7000 < in_seconds <= 7205

    asyncio.run(test())


def test_a_boot_that_fails_says_why(hermes: Server, image: Path) -> None:
    async def test() -> None:
        async with talking(hermes, image) as talk:
            body = {"image": image.name, "env": {"HERMES_BOOT_ID": "boot-1"}}
            await talk.client.post("/start", body)
            await talk.ok("restore", "--empty")
            watch = asyncio.ensure_future(talk.client.get("/monitor"))
            follow = asyncio.ensure_future(
                talk.client.exec("sandbox", "logs", "--boot", "boot-1", "--follow")
            )
            await asyncio.sleep(0.3)
            broken = {"env": {"API_SERVER_KEY": KEY, "PYTHONHOME": "/nowhere"}}
            await talk.ok("go", stdin=json.dumps(broken).encode())
            assert (await watch)[1]["exitCode"] == 1
            done: Done = await follow
            assert b"Python" in done.out
            assert b"Hermes ended with code 1" in done.out

    asyncio.run(test())


def test_the_signals_of_an_orderly_end_reach_hermes(hermes: Server, image: Path) -> None:
    async def test() -> None:
        async with talking(hermes, image) as talk:
            await talk.start()
            await talk.say("hello")
            watch = asyncio.ensure_future(talk.client.get("/monitor"))
            await asyncio.sleep(0.2)
            await talk.client.post("/signal", {"signal": int(signal.SIGTERM)})
            assert (await watch)[1]["exitCode"] == 0

    asyncio.run(test())


def test_the_dashboard_opens_to_the_token_only(hermes: Server, image: Path) -> None:
    """Hermes' own loopback page hands its token to whoever asks, every user of the machine too."""

    async def test(client: Client) -> None:
        async with model() as base_url:
            talk = Talk(client, image, base_url, "boot-1")
            await talk.start()
            await talk.ok("dashboard", *unconfined(hermes))
            for token in ("", "x" * len(TOKEN)):
                async with talk.browser(token) as stranger:
                    for path in ("/", "/api/status", "/assets/", "/api/sessions"):
                        async with stranger.get(path) as answer:
                            assert answer.status == 401
                            assert TOKEN not in await answer.text()
                    with pytest.raises(aiohttp.WSServerHandshakeError):
                        await stranger.ws_connect("/api/console")
            async with talk.browser(TOKEN) as session, session.get("/") as page:
                assert page.status == 200
                assert TOKEN in await page.text()

    hermes.run(test)


def test_a_chat_of_the_api_is_in_the_dashboards_list(hermes: Server, image: Path) -> None:
    async def test(client: Client) -> None:
        async with model() as base_url:
            talk = Talk(client, image, base_url, "boot-1")
            await talk.start()
            await talk.say("the cat is called Ada")
            await talk.ok("dashboard", *unconfined(hermes))
            async with talk.browser(TOKEN) as session:
                async with session.get("/api/sessions") as answer:
                    listed = await answer.json()
                assert [each["id"] for each in listed["sessions"]] == ["one"]
                async with session.get("/api/sessions/one/messages") as answer:
                    assert "the cat is called Ada" in await answer.text()

    hermes.run(test)


def test_the_dashboards_terminal_runs(hermes: Server, image: Path) -> None:
    """Its program is for Node, which the image brings."""

    async def test(client: Client) -> None:
        async with model() as base_url:
            talk = Talk(client, image, base_url, "boot-1")
            await talk.start()
            await talk.ok("dashboard", *unconfined(hermes))
            async with (
                talk.browser(TOKEN) as session,
                session.ws_connect(f"/api/pty?token={TOKEN}&channel=one") as terminal,
            ):
                drawn = b""
                while b"Hermes" not in drawn:
                    message = await terminal.receive(timeout=30)
                    assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT)
                    data = message.data
                    drawn += data if isinstance(data, bytes) else data.encode()
                    assert b"unavailable" not in drawn

    hermes.run(test)


def unconfined(server: Server) -> "tuple[str, ...]":
    """Return the owner's consent, where this machine cannot confine."""
    return () if bubblewrap_works() and server.confine != "never" else ("--host-tools",)

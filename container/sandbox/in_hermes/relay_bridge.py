# SPDX-License-Identifier: Apache-2.0
"""The bridge between Hermes' relay and the Worker, which both come to it: `serve()`.

Hermes dials a connector at its start and wants to be greeted at once, while the Worker comes when
Hermes is ready, and again whenever its object was away. So what they say meets here, in Hermes'
own process: it costs no other one, and ends with it. Hermes is greeted in the Worker's place; what
it says is kept until the Worker has answered it; and a Worker that comes again learns what Hermes
is at, so that nothing is given to it twice. Frames are those of Hermes' relay contract, version 1:
to Hermes lines of JSON, to the Worker one JSON text for each. Files that come with a message the
Worker brings before it, in pieces; Hermes keeps them as those of its own channels. Files that
Hermes sends are offered to the Worker, which asks for one piece after the other. What answers a
question of Hermes' is no message to it: it goes to what waits for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import secrets
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

    from sandbox.in_hermes.questions import Questions

VARIABLE = "HERMES_RELAY_BOTS"
"""Which bots Hermes speaks as; set by the Worker when there are any."""
LINE = 1 << 20
"""The longest frame, in bytes."""
PIECE = LINE // 2
"""The longest piece of a file, in bytes."""
OFFERED = 600.0
"""A Worker that is just being started over is waited for so long, in seconds."""
LOOK = 0.02
"""Between looks whether Hermes takes what there is for it, in seconds."""


def serve(environ: os._Environ[str], questions: Questions) -> None:
    """Start the bridge when the Worker named bots, and have Hermes' relay dial it.

    questions: what Hermes asks. Returns when it listens. Raises OSError when its port is taken.
    """
    told = environ.get(VARIABLE, "")
    if not told:
        return
    bots = json.loads(told)
    port = int(environ.get("PORT_18790") or "18790")
    bridge = Bridge(bots, environ["API_SERVER_KEY"], questions)
    _running.append(bridge)
    host = environ.get("SANDBOX_BIND") or "127.0.0.1"
    begun: list[BaseException] = []
    listens = threading.Event()

    def run() -> None:
        try:
            asyncio.run(bridge.run(host, port, listens))
        except Exception as error:  # noqa: BLE001 - told to whoever waits; afterwards there is nobody
            begun.append(error)
            listens.set()

    threading.Thread(target=run, name="relay-bridge", daemon=True).start()
    listens.wait()
    if begun:
        raise begun[0]
    names = [bot["descriptor"]["platform"] for bot in bots]
    ids = {bot["descriptor"]["platform"]: {"botId": bot["botId"]} for bot in bots}
    environ.update(
        GATEWAY_RELAY_URL=f"ws://127.0.0.1:{port}",
        GATEWAY_RELAY_ID="worker",
        GATEWAY_RELAY_SECRET=bridge.secret,
        GATEWAY_RELAY_PLATFORMS=",".join(names),
        GATEWAY_RELAY_BOT_IDS=json.dumps(ids),
    )


_running: list[Bridge] = []


def offer(platform: str, action: dict[str, Any], file: int) -> Future[dict[str, Any]]:
    """Offer the Worker a file that Hermes sends; the future is what it answers to that.

    action: as of Hermes' relay, without what it is and where; file: its descriptor, open until then.
    """
    (bridge,) = _running
    return asyncio.run_coroutine_threadsafe(bridge.offer(platform, action, file), bridge.loop)


class Bridge:
    """What Hermes and the Worker have to say to each other."""

    def __init__(self, bots: list[dict[str, Any]], key: str, questions: Questions) -> None:
        self._questions = questions
        self.secret = secrets.token_hex(16)
        self._key = key
        self._descriptors = {bot["descriptor"]["platform"]: bot["descriptor"] for bot in bots}
        self._hermes: ServerConnection | None = None
        self._worker: ServerConnection | None = None
        # What Hermes is to be given when it is ready, and its own words that nobody has answered.
        self._for_hermes: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._unanswered: dict[str, dict[str, Any]] = {}
        # Name of what Hermes was given -> chat and message, until it has answered it.
        self._held: dict[str, tuple[str, str]] = {}
        # Names of what it was done with without an answer that names it: with silence, or in a topic.
        self._done: set[str] = set()
        # Name of a file -> where Hermes keeps it; where it keeps it -> its media type.
        self._files: dict[str, str] = {}
        self._types: dict[str, str] = {}
        # Name of a file that Hermes sends -> its descriptor, and the Worker's answer.
        self._offered: dict[str, tuple[int, asyncio.Future[dict[str, Any]]]] = {}
        # Chats and messages of whose answers files are a part.
        self._with_files: set[tuple[str, str]] = set()
        self._watches = False
        self.loop: asyncio.AbstractEventLoop

    async def run(self, host: str, port: int, listens: threading.Event) -> None:
        """Listen for ever."""
        from websockets.asyncio.server import serve as listen

        self.loop = asyncio.get_running_loop()
        async with listen(
            self._meet, host, port, process_request=self._let_in, max_size=LINE, ping_interval=None
        ) as server:
            listens.set()
            await server.serve_forever()

    def _let_in(self, connection: ServerConnection, request: Request) -> Response | None:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if request.path == "/connector" and hmac.compare_digest(given, self._key):
            return None
        if request.path == "/relay" and self._is_hermes(given):
            return None
        return connection.respond(401, "")

    def _is_hermes(self, token: str) -> bool:
        from gateway.relay.auth import verify_token

        return verify_token(token, [self.secret]) is not None

    async def _meet(self, connection: ServerConnection) -> None:
        path = connection.request.path if connection.request else ""
        if path == "/relay":
            await self._with_hermes(connection)
        else:
            await self._with_worker(connection)

    async def _with_hermes(self, connection: ServerConnection) -> None:
        self._hermes = connection
        if not self._watches:
            with contextlib.suppress(
                ImportError
            ):  # a Hermes that is made otherwise is heard by its answers
                _watch(asyncio.get_running_loop(), self._processed, self._types)
            self._watches = True
        # What it has not answered it has forgotten: whoever asked it waits for a new line.
        self._unanswered = {name: self._unanswered[name] for name in self._offered}
        feeding = asyncio.create_task(self._feed(connection))
        try:
            await self._listen(connection)
        finally:
            feeding.cancel()

    async def _feed(self, connection: ServerConnection) -> None:
        """Give Hermes what came for it once it takes it, one after the other."""
        while True:
            frame = await self._for_hermes.get()
            while not _takes_messages():
                await asyncio.sleep(LOOK)
            await _say(connection, frame)

    async def _listen(self, connection: ServerConnection) -> None:
        rest = ""
        async for chunk in connection:
            rest += chunk if isinstance(chunk, str) else chunk.decode()
            *lines, rest = rest.split("\n")
            for line in lines:
                if line.strip():
                    await self._from_hermes(connection, json.loads(line))

    async def _from_hermes(self, connection: ServerConnection, frame: dict[str, Any]) -> None:
        kind = frame.get("type")
        if kind == "hello":
            descriptor = self._descriptors.get(frame.get("platform", ""), {})
            await _say(connection, {"type": "descriptor", "descriptor": descriptor})
        elif kind == "going_idle":
            await _say(connection, {"type": "going_idle_ack"})
        elif kind == "outbound":
            self._unanswered[frame["requestId"]] = frame
            await self._tell_worker(frame)

    async def _with_worker(self, connection: ServerConnection) -> None:
        before, self._worker = self._worker, connection
        if before is not None:
            await before.close(1001)
        await _tell(connection, {"type": "hello", "held": sorted(self._held)})
        for frame in [*self._unanswered.values()]:
            await _tell(connection, frame)
        for name in sorted(self._done):
            await _tell(connection, {"type": "processed", "bufferId": name})
        file: tuple[dict[str, Any], bytearray] = {}, bytearray()
        async for said in connection:
            if isinstance(said, bytes):
                file[1].extend(said)
                continue
            frame = json.loads(said)
            if frame.get("type") == "file":
                file = frame, bytearray()
            elif frame.get("type") == "file_end":
                why = await asyncio.to_thread(self._keep, *file)
                file = {}, bytearray()
                name = frame["name"]
                await _tell(connection, {"type": "file_taken", "bufferId": name, "error": why})
            elif frame.get("type") == "read":
                await self._read(connection, frame["name"], frame["at"])
            else:
                await self._from_worker(frame)

    async def offer(self, platform: str, action: dict[str, Any], file: int) -> dict[str, Any]:
        """Have the Worker fetch a file; returns what it answers."""
        name = secrets.token_hex(16)
        answer: asyncio.Future[dict[str, Any]] = self.loop.create_future()
        self._offered[name] = file, answer
        told = {**action, "op": "send_media", "source_url": name}
        frame = {"type": "outbound", "requestId": name, "platform": platform, "action": told}
        self._unanswered[name] = frame
        try:
            await self._tell_worker(frame)
            async with asyncio.timeout(OFFERED):
                said = await answer
        except TimeoutError:
            return {"success": False, "error": "nobody came for it"}
        finally:
            del self._offered[name]
            self._unanswered.pop(name, None)
        if said.get("success") and action["answers"]:
            self._with_files.add((action["chat_id"], action["answers"]))
        return said

    async def _read(self, connection: ServerConnection, name: str, at: int) -> None:
        """Give the Worker a piece of a file; nothing when there is none."""
        piece = b""
        if name in self._offered:
            with contextlib.suppress(OSError):
                piece = await asyncio.to_thread(os.pread, self._offered[name][0], PIECE, at)
        await _quietly(connection.send(piece))

    def _keep(self, told: dict[str, Any], data: bytearray) -> str | None:
        """Have Hermes keep a file as one of its own channels'; returns why it does not, or None."""
        try:
            from gateway.platforms.base import cache_media_bytes
        except ImportError:
            return "this Hermes takes no files"
        kind = {"photo": "image", "voice": "audio"}.get(told["kind"], told["kind"])
        kept = cache_media_bytes(
            bytes(data), filename=told["called"], mime_type=told["mime"], default_kind=kind
        )
        if kept is None:
            return "a picture cannot be read"
        self._files[told["name"]] = kept.path
        self._types[kept.path] = kept.media_type
        return None

    async def _from_worker(self, frame: dict[str, Any]) -> None:
        kind = frame.get("type")
        if kind == "inbound":
            await self._inbound(frame)
        elif kind == "answer":
            await self._answer(frame)
        elif kind == "press":
            answer = self._questions.press(frame["prompt"], frame["option"])
            told = {"type": "pressed", "bufferId": frame["bufferId"], "answer": answer}
            await self._tell_worker(told)
        elif kind == "outbound_result":
            await self._settle(frame)

    async def _inbound(self, frame: dict[str, Any]) -> None:
        """Give Hermes a message, with its files."""
        event = frame["event"]
        if names := event.get("media_urls"):
            event["media_urls"] = [self._files.pop(name) for name in names]
        if frame["bufferId"] in self._done:
            await self._tell_worker({"type": "processed", "bufferId": frame["bufferId"]})
        else:
            self._give(frame)

    async def _settle(self, frame: dict[str, Any]) -> None:
        """Tell Hermes what became of what it said."""
        name, result = frame.get("requestId", ""), frame["result"]
        asked = self._unanswered.pop(name, None)
        if name in self._offered:
            self._offered[name][1].set_result(result)
            return
        if asked is not None:
            action = asked["action"]
            if action.get("op") == "prompt" and result.get("success"):
                self._questions.sent(action["prompt_id"], result["after"])
            self._answered(action)
        if self._hermes is not None:
            await _say(self._hermes, frame)

    def _give(self, frame: dict[str, Any]) -> None:
        """Give Hermes a message, unless it has it."""
        event = frame["event"]
        if frame["bufferId"] not in self._held:
            self._held[frame["bufferId"]] = (event["source"]["chat_id"], event["message_id"])
            self._for_hermes.put_nowait({**frame, "type": "inbound"})

    async def _answer(self, frame: dict[str, Any]) -> None:
        """Have a message answer what Hermes asks; of one that is no answer nothing becomes here."""
        name = frame["bufferId"]
        if name in self._held or name in self._done:
            return
        verdict = self._questions.typed(frame["event"], int(name))
        if verdict == "given":
            self._give(frame)
        elif verdict == "taken":
            self._done.add(name)
            await self._tell_worker({"type": "processed", "bufferId": name})

    def _answered(self, action: dict[str, Any]) -> None:
        metadata = action.get("metadata") or {}
        if action.get("reply_to") is None or not metadata.get("notify"):
            return
        if metadata.get("files_follow"):
            return
        answered = (action.get("chat_id"), action["reply_to"])
        self._held = {name: key for name, key in self._held.items() if key != answered}

    def _processed(self, chat: str, message: str, succeeded: bool) -> None:
        """Note that Hermes is done with a message, and nobody has to wait for its answer.

        An answer of files alone, without a word, Hermes takes for none.
        """
        has_files = (chat, message) in self._with_files
        self._with_files.discard((chat, message))
        if not (succeeded or has_files):
            return
        for name in [name for name, key in self._held.items() if key == (chat, message)]:
            del self._held[name]
            self._done.add(name)
            self._telling = asyncio.ensure_future(
                self._tell_worker({"type": "processed", "bufferId": name})
            )

    async def _tell_worker(self, frame: dict[str, Any]) -> None:
        if self._worker is not None:
            await _tell(self._worker, frame)


def _watch(
    loop: asyncio.AbstractEventLoop,
    processed: Callable[[str, str, bool], None],
    types: dict[str, str],
) -> None:
    """Learn in `loop` of each message that Hermes is done with, and tell it the types of files.

    As its own webhooks do it ends the session of a delivery that has one for itself, so that its databases do not keep
    it for ever. Raises ImportError for a Hermes without this relay.
    """
    from gateway.platforms.base import ProcessingOutcome
    from gateway.relay.adapter import RelayAdapter

    before = RelayAdapter.on_processing_complete

    async def complete(adapter: Any, event: Any, outcome: Any) -> None:
        await before(adapter, event, outcome)
        chat = event.source.chat_id
        if outcome is not ProcessingOutcome.CANCELLED and event.message_id:
            succeeded = outcome is ProcessingOutcome.SUCCESS
            loop.call_soon_threadsafe(processed, chat, event.message_id, succeeded)
        if chat.startswith("hook/"):
            from gateway.platforms.webhook import WebhookAdapter

            await WebhookAdapter._end_webhook_session(adapter, event, chat)

    RelayAdapter.on_processing_complete = complete

    heard = RelayAdapter.handle_message

    async def hear(adapter: Any, event: Any) -> None:
        # Hermes' relay does not read them, and would take each for what the first one is.
        event.media_types = [types.pop(path, "") for path in event.media_urls]
        await heard(adapter, event)

    RelayAdapter.handle_message = hear


def _takes_messages() -> bool:
    """Tell whether Hermes answers what it is given now.

    While it takes up again what its last process left, it keeps what comes, and of a relay's it
    then finds nobody to answer by: it forgets it.
    """
    run = sys.modules.get("gateway.run")
    runner = getattr(run, "_gateway_runner_ref", lambda: None)()
    return not getattr(runner, "_startup_restore_in_progress", False)


async def _say(connection: ServerConnection, frame: dict[str, Any]) -> None:
    await _quietly(connection.send(json.dumps(frame) + "\n"))


async def _tell(connection: ServerConnection, frame: dict[str, Any]) -> None:
    await _quietly(connection.send(json.dumps(frame)))


async def _quietly(sending: Any) -> None:
    """Wait for what is said to one who may have left; the next one is told again."""
    from websockets.exceptions import ConnectionClosed

    try:
        await sending
    except ConnectionClosed:
        return

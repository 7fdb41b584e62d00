# SPDX-License-Identifier: Apache-2.0
"""A data plane for fleets: Workers answer as ours does, but nothing of theirs is run.

Where fifty deployments are looked at from outside, what is in the sandbox does not matter and would cost minutes. The
gate, the proof of secrets, the hold before a new version and the cut by it are those of the real Worker.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from aiohttp import web
from ansible_collections.hermes.workers.plugins.module_utils.digests import proof
from ansible_collections.hermes.workers.plugins.module_utils.settings.values import SECONDS
from ansible_collections.hermes.workers.plugins.plugin_utils.agent import content

from tests.cloudflare.accounts import Version, Worker
from tests.cloudflare.edge import BODY_BYTES, IDLE_SECONDS, Edge, too_large

HOLD_SECONDS = 30.0
LOOKS = 2
"""How often an object that was just started is asked before it has found the Hermes that runs, and tells of it."""
WRONG_KEY = "sk-wrong"
"""How a provider's key begins that the provider refuses."""


@dataclass
class Stub:
    """One deployment's object."""

    thinks: float
    in_flight: int = 0
    idle: asyncio.Condition = field(default_factory=asyncio.Condition)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    cut: asyncio.Event = field(default_factory=asyncio.Event)
    ends: dict[str, float] = field(default_factory=dict)
    """When a replaced token is refused, by its digest."""
    version: Version | None = None
    """What the object runs with; the Worker before it may have a newer one."""
    update_at: float | None = None
    """When it takes the newest version, at the latest."""
    used: float = -IDLE_SECONDS
    hold: tuple[str, asyncio.TimerHandle] | None = None
    """What requests wait for, and when they no longer do."""
    running: dict[str, str] = field(default_factory=dict)
    """What its Hermes was started with, by variable; a new version of the Worker changes nothing of it."""
    looks: int = 0
    """How often it was asked since it was started."""

    def __post_init__(self) -> None:
        self.go.set()

    def hold_back(self, name: str) -> None:
        """Have requests wait for a while from now."""
        if self.hold:
            self.hold[1].cancel()
        self.go.clear()
        self.hold = name, asyncio.get_running_loop().call_later(HOLD_SECONDS, self.let_go)

    def let_go(self) -> None:
        """Let what waits go on."""
        if self.hold:
            self.hold[1].cancel()
        self.hold = None
        self.go.set()

    @property
    def started(self) -> Version:
        """What an object that was started runs with."""
        if self.version is None:
            raise LookupError("this object was never started")
        return self.version


class StubEdge(Edge):
    """Answers for all Workers itself. `thinks` is how many seconds a chat takes."""

    thinks: ClassVar[float] = 0.0

    def deployed(self, worker: Worker, delay: float) -> None:
        """Have a version serve; its object takes it later where it is in use."""
        stub = self._stub(worker)
        in_use = stub.in_flight or self.clock() - stub.used < IDLE_SECONDS
        if stub.version is None or not in_use or delay <= 0:
            self.changed(worker)
        else:
            due = self.clock() + delay
            stub.update_at = due if stub.update_at is None else min(stub.update_at, due)

    @property
    def strangers(self) -> list[tuple[str, str, str]]:
        """What Workers of others were asked: host, path and the Authorization header. They say yes to everything."""
        asked: list[tuple[str, str, str]] = self.__dict__.setdefault("asked", [])
        return asked

    def changed(self, worker: Worker) -> None:
        """Restart a Worker's object: streams are cut, what was held back goes on."""
        stub = self._stubs.setdefault(worker.tag, Stub(self.thinks))
        stub.version, stub.update_at, stub.looks = worker.current, None, 0
        stub.cut.set()
        stub.cut = asyncio.Event()
        stub.let_go()

    def deleted(self, worker: Worker) -> None:
        """Forget a Worker's object."""
        self._stubs.pop(worker.tag, None)

    @property
    def _stubs(self) -> dict[str, Stub]:
        stubs: dict[str, Stub] = self.__dict__.setdefault("stubs", {})
        return stubs

    def _stub(self, worker: Worker) -> Stub:
        stub = self._stubs.setdefault(worker.tag, Stub(self.thinks))
        if stub.update_at is not None and self.clock() >= stub.update_at:
            self.changed(worker)
        if stub.version is None:
            stub.version = worker.current
        if not stub.running and stub.version is not None:
            stub.running = inputs(stub.version)
        return stub

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        found = self.state.worker_at(request.host.partition(":")[0], request.path)
        if found is None or found[1].current is None:
            return web.Response(status=404, text="error code: 1042")
        if (request.content_length or 0) > BODY_BYTES:
            return await too_large(request)
        worker = found[1]
        version = worker.serving
        if "WORKER_VERSION" not in version.variables():
            self.strangers.append(
                (request.host, request.path, request.headers.get("Authorization", ""))
            )
            return web.json_response({"status": "ok", "proofs": ["0" * 64]})
        if request.path == "/":
            return web.json_response({"name": worker.name})
        if request.path == "/api/identity":
            return identity(request, version)
        stub = self._stub(worker)
        stub.used = self.clock()
        which = self._which(request, version, stub)
        if which is None:
            error = {"code": "wrong_token", "message": "This API token is not valid here."}
            return web.json_response({"error": error}, status=401)
        route = ROUTES.get((request.method, request.path))
        if route is None:
            return web.json_response({"error": {"code": "not_found"}}, status=404)
        return await route(self, request, worker, stub, which)

    def _which(self, request: web.Request, version: Version, stub: Stub) -> str | None:
        """Tell which token a request has, and begin the overlap at the first use of a new one."""
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        secrets = version.secrets()
        previous = secrets.get("API_TOKEN_PREVIOUS")
        if given and given == secrets.get("API_TOKEN"):
            stub.ends.pop(digest(given), None)
            if previous and previous != given:
                overlap = version.variables()["HERMES_TOKEN_OVERLAP"]
                seconds = int(overlap[:-1]) * SECONDS[overlap[-1]]
                stub.ends.setdefault(digest(previous), self.clock() + seconds)
            return "current"
        if (
            given
            and given == previous
            and self.clock() < stub.ends.get(digest(given), float("inf"))
        ):
            return "previous"
        return None

    async def _health(
        self, _request: web.Request, worker: Worker, stub: Stub, which: str
    ) -> web.Response:
        variables = worker.serving.variables()
        stub.looks += 1
        found = stub.looks > LOOKS
        told = {
            "status": "ok",
            "token": {"which": which, "previousUntil": None, "proven": which == "current"},
            "worker": {"name": worker.name, "version": variables["WORKER_VERSION"]},
            "instance": {
                "state": "awake",
                "image": stub.running["HERMES_IMAGE"],
                "bootId": "stub",
                "version": stub.started.variables()["WORKER_VERSION"],
                "inStep": stub.started.bindings == worker.serving.bindings,
                "configuration": configuration(stub.running, inputs(stub.started))
                if found
                else None,
            },
            "hermes": {"version": variables["HERMES_VERSION"], "gateway": "running"},
            "models": {"default": variables["HERMES_DEFAULT_MODEL"], "further": []},
        }
        return web.json_response(told)

    async def _proof(
        self, request: web.Request, worker: Worker, _stub: Stub, _which: str
    ) -> web.Response:
        nonce = (await request.json())["nonce"]
        made = {name: proof(value, nonce) for name, value in worker.serving.secrets().items()}
        return web.json_response({"proofs": made})

    async def _status(
        self, _request: web.Request, _worker: Worker, stub: Stub, _which: str
    ) -> web.Response:
        told = {
            "state": "awake",
            "requestsInFlight": stub.in_flight,
            "configurationIsCurrent": stub.running == inputs(stub.started),
        }
        return web.json_response(told)

    async def _preview(
        self, request: web.Request, worker: Worker, stub: Stub, _which: str
    ) -> web.Response:
        body = await request.json()
        wanted = {**inputs(stub.started), **relevant(body["variables"])}
        wanted |= {name: "changed" for name in body["secrets"] if name in FOR_HERMES}
        told = configuration(stub.running, wanted)
        return web.json_response({"restart": told["restart"], "because": told["differs"]})

    async def _restarted(
        self, _request: web.Request, worker: Worker, stub: Stub, _which: str
    ) -> web.Response:
        before, stub.running = stub.running, inputs(stub.started)
        told = configuration(before, stub.running)
        return web.json_response({"state": "awake", "restarted": told["restart"]})

    async def _agent(
        self, _request: web.Request, _worker: Worker, stub: Stub, _which: str
    ) -> web.Response:
        """What lies beside the code is laid, whatever the variable names."""
        archive = archive_of(stub.started)
        members = content.unpack(archive) if archive else {}
        laid = ["soul"] if content.SOUL in members else []
        running = {
            "archive": content.digest(archive) if archive else "",
            "laid": laid,
            **{name: [] for name in ("kept", "skills", "jobs", "servers", "environment")},
        }
        return web.json_response({"declared": {}, "running": running})

    async def _toolsets(self, *_: Any) -> web.Response:
        """In a container Hermes has those that touch it, too."""
        return web.json_response({"data": [{"name": "terminal", "enabled": True}]})

    async def _archive(
        self, _request: web.Request, worker: Worker, _stub: Stub, _which: str
    ) -> web.Response:
        archive = archive_of(worker.serving)
        return web.Response(status=200 if archive else 204, body=archive or None)

    async def _hold(
        self, request: web.Request, _worker: Worker, stub: Stub, _which: str
    ) -> web.Response:
        again = request.query.get("again")
        if again and (stub.hold is None or stub.hold[0] != again):
            return web.json_response({"held": False, "hold": again})
        if not again:
            stub.go.clear()
            async with stub.idle:
                await stub.idle.wait_for(lambda: stub.in_flight == 0)
        name = again or secrets.token_hex(8)
        stub.hold_back(name)
        return web.json_response({"held": True, "hold": name})

    async def _done(self, *_: Any) -> web.Response:
        return web.json_response({"state": "awake"})

    async def _chat(
        self, request: web.Request, worker: Worker, stub: Stub, _which: str
    ) -> web.StreamResponse:
        body = await request.json()
        await stub.go.wait()
        if stub.started.secrets().get("ANTHROPIC_API_KEY", "").startswith(WRONG_KEY):
            error = {"code": "provider_refused", "message": "The provider refuses the key."}
            return web.json_response({"error": error}, status=502)
        stub.in_flight += 1
        try:
            if body.get("stream"):
                return await self._stream(request, worker, stub)
            await asyncio.sleep(stub.thinks)
            message = {"role": "assistant", "content": "A stub's answer."}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return web.json_response({"choices": [choice], "usage": {"total_tokens": 4}})
        finally:
            stub.in_flight -= 1
            async with stub.idle:
                stub.idle.notify_all()

    async def _stream(self, request: web.Request, worker: Worker, stub: Stub) -> web.StreamResponse:
        cut = stub.cut
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for word, reason in (("one", None), (" two", None), (None, "stop")):
            await asyncio.sleep(stub.thinks / 3)
            self._stub(worker)
            if cut.is_set():
                if request.transport is not None:
                    request.transport.abort()
                return response
            choice = {
                "index": 0,
                "delta": {"content": word} if word else {},
                "finish_reason": reason,
            }
            await response.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response


Route = Callable[[StubEdge, web.Request, Worker, Stub, str], Awaitable[web.StreamResponse]]
ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "/api/health"): StubEdge._health,
    ("POST", "/api/secrets/proof"): StubEdge._proof,
    ("GET", "/api/instance/status"): StubEdge._status,
    ("GET", "/api/instance/agent"): StubEdge._agent,
    ("GET", "/api/instance/agent/archive"): StubEdge._archive,
    ("POST", "/api/instance/hold"): StubEdge._hold,
    ("POST", "/api/instance/preview"): StubEdge._preview,
    ("POST", "/api/instance/refresh"): StubEdge._restarted,
    ("POST", "/api/instance/restart"): StubEdge._restarted,
    ("POST", "/api/instance/restart-gateway"): StubEdge._restarted,
    ("POST", "/api/dashboard/sessions/revoke"): StubEdge._done,
    ("POST", "/v1/chat/completions"): StubEdge._chat,
    ("GET", "/v1/toolsets"): StubEdge._toolsets,
}


def archive_of(version: Version) -> bytes:
    """Return what the agent is declared to be under a version; empty when nothing is."""
    found = [one.content for one in version.modules if one.name == content.ARCHIVE]
    return found[0] if found else b""


def identity(request: web.Request, version: Version) -> web.Response:
    """Prove to who holds one of a Worker's API tokens that the Worker does, at the address at which it was asked."""
    text = f"{request.host.partition(':')[0]} {request.query['nonce']}"
    for name in ("API_TOKEN", "API_TOKEN_PREVIOUS"):
        held = version.secrets().get(name)
        if held and request.headers.get("X-Hermes-Asked") == proof(held, f"asked {text}"):
            return web.json_response({"proofs": [proof(held, text)]})
    return web.json_response({"error": {"code": "wrong_token"}}, status=401)


FOR_SANDBOX = ("HERMES_IMAGE", "HERMES_INSTANCE_TYPE")
FOR_HERMES = ("HERMES_DEFAULT_MODEL", "HERMES_MODELS", "HERMES_ENV", "HERMES_SECRETS")
"""Of what a running Hermes is given at its start, the part that fleets in tests change."""


def relevant(given: dict[str, str]) -> dict[str, str]:
    """Return what of variables or secrets a Hermes is started with."""
    return {name: value for name, value in given.items() if name in FOR_SANDBOX + FOR_HERMES}


def inputs(version: Version) -> dict[str, str]:
    """Return what a Hermes is started with under a version."""
    return relevant(version.variables() | version.secrets())


def configuration(running: dict[str, str], wanted: dict[str, str]) -> dict[str, Any]:
    """Return what the real Worker tells of a Hermes that runs with one thing where another is wanted."""
    names = running.keys() | wanted.keys()
    differs = sorted(name for name in names if running.get(name) != wanted.get(name))
    sandbox = any(name in FOR_SANDBOX for name in differs)
    restart = "sandbox" if sandbox else "hermes" if differs else "nothing"
    return {
        "current": not differs,
        "differs": [name.lower() for name in differs],
        "restart": restart,
    }


def digest(token: str) -> str:
    """What a token is remembered by."""
    return hashlib.sha256(token.encode()).hexdigest()

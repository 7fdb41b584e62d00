# SPDX-License-Identifier: Apache-2.0
"""The data plane: requests for Workers reach a workerd that runs the version which is deployed now."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import (
    ClientError,
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    WSMsgType,
    web,
)

from tests.cloudflare import mails, workerd
from tests.cloudflare.accounts import Account, State, Version, Worker

ROOT = Path(__file__).resolve().parents[2]
PORTS = "18789,9119,18790"
MOST = 24
"""How many idle Workers may stay in memory; the platform evicts idle objects too."""
START_SECONDS = 60.0
"""For a cold disk and a busy machine; what ends earlier is not waited for."""
NO_INSTANCE = (
    "There is no container instance that can be provided to this Durable Object, try again later"
)
BODY_BYTES = 100 * 1000 * 1000
"""The largest body that the edge lets in, on the plans that people have."""
DEFERRED_SECONDS = 300.0
"""How long an object that is in use keeps what it was started with, unless a deployment says otherwise."""
IDLE_SECONDS = 140.0
"""The longest that an object without requests stays in memory; only one that has left takes an update by itself."""
LOOK_SECONDS = 0.05
REPEATABLE_BYTES = 1024 * 1024
"""Bodies up to this size are kept, so that a request can be sent again."""
ASSERTION = web.RequestKey("assertion", str)
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class Binaries:
    """Where workerd and the process image are; made when they are first needed."""

    def workerd(self) -> Path:
        raise NotImplementedError

    def image(self) -> Path:
        raise NotImplementedError


@dataclass
class Served:
    """The processes of one Worker. Its sockets stay while versions come and go."""

    worker: Worker
    folder: Path
    http: socket.socket
    providers: socket.socket
    mails: socket.socket
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    running: asyncio.subprocess.Process | None = None
    engine: asyncio.subprocess.Process | None = None
    shown: tuple[str, bool] | None = None
    """The version that runs, and whether it can start containers."""
    requests: int = 0
    used: float = 0.0
    cuts: int = 0
    """How often it was ended for something new."""
    debug: int = 0
    """Port by which another process reaches the objects of the one that runs."""
    update_at: float | None = None
    """When the object that runs with an earlier version is cut, at the latest."""
    fronts: dict[str, tuple[asyncio.subprocess.Process, socket.socket]] = field(
        default_factory=dict
    )
    """Processes of the Worker alone, by version: it is new at once, and asks the object of before."""

    @property
    def port(self) -> int:
        front = self.fronts.get(self.worker.serving.id)
        return int((front[1] if front else self.http).getsockname()[1])

    @property
    def alive(self) -> bool:
        """Whether its workerd runs."""
        return self.running is not None and self.running.returncode is None

    @property
    def processes(self) -> list[asyncio.subprocess.Process]:
        """All that were started and not given up."""
        fronts = [process for process, _ in self.fronts.values()]
        return [one for one in (self.running, self.engine, *fronts) if one]


class Edge:
    """Serves Workers. `pids` are those of the processes it started, in DIR/pids as well."""

    def __init__(
        self, folder: Path, state: State, binaries: Binaries, clock: Callable[[], float]
    ) -> None:
        self.folder = folder
        self.state = state
        self.binaries = binaries
        self.clock = clock
        self.start_seconds = 0.5
        """Until a command works in a container that was just started."""
        self.snapshot_seconds = 3.0
        """Until a container can be started from a snapshot that was just taken."""
        self.refusals: list[str] = [NO_INSTANCE]
        """In which words the first starts of each Worker's containers are refused."""
        self.internet = ""
        """host:port of a test's own server, which then answers for the whole internet of all Workers."""
        self.vouched: dict[str, str] = {}
        """The assertion that Cloudflare Access sets on each request for a hostname."""
        self.outbox = mails.Outbox(state)
        self.outbox_port = 0
        self._served: dict[str, Served] = {}
        self._session: ClientSession | None = None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def application(self) -> web.Application:
        """Return the edge as a web application."""
        application = web.Application(client_max_size=0)
        application.router.add_route("*", "/{path:.*}", self._serve)
        return application

    def deployed(self, worker: Worker, delay: float) -> None:
        """Have a version serve. Its object keeps the version of before for so many seconds as long as it is in use."""
        served = self._served.get(worker.tag)
        if served is None or not served.alive or not self._in_use(served) or delay <= 0:
            self.changed(worker)
            return
        due = self.clock() + delay
        if served.update_at is None:
            served.update_at = due
            asyncio.get_running_loop().create_task(self._update(served))
        # Each deployment has a timer of its own, and the first that is over brings the newest version.
        served.update_at = min(served.update_at, due)

    def _in_use(self, served: Served) -> bool:
        return served.requests > 0 or self.clock() - served.used < IDLE_SECONDS

    async def _update(self, served: Served) -> None:
        """Cut an object when its time is over, in the middle of what it does."""
        running = served.running
        while served.running is running and served.update_at is not None:
            if self.clock() >= served.update_at:
                self.changed(served.worker)
            await asyncio.sleep(LOOK_SECONDS)

    async def settle(self) -> None:
        """Cut what is due by now, so that whoever let time pass need not wait for it."""
        for served in list(self._served.values()):
            if served.running and served.update_at is not None and self.clock() >= served.update_at:
                self.changed(served.worker)

    def changed(self, worker: Worker) -> None:
        """Cut a Worker off: a new version, or another container application. It starts again when it is asked."""
        served = self._served.get(worker.tag)
        if served and served.running:
            _kill(served.running)
            served.running = None
            served.cuts += 1
            served.update_at = None
            for process, listener in served.fronts.values():
                _kill(process)
                listener.close()
            served.fronts.clear()
            self._set_starts(served)

    def deleted(self, worker: Worker) -> None:
        """End a Worker, its sandbox and its objects' storage."""
        served = self._served.get(worker.tag)
        if served is None:
            return
        self.changed(worker)
        del self._served[worker.tag]
        if served.engine:
            _kill(served.engine)
        for listener in (served.http, served.providers, served.mails):
            listener.close()
        shutil.rmtree(served.folder, ignore_errors=True)

    def is_awake(self, worker: Worker | None) -> bool:
        """Tell whether a Worker has something that runs containers."""
        served = self._served.get(worker.tag) if worker else None
        return served is not None and served.engine is not None

    @property
    def pids(self) -> list[int]:
        """Process ids of the guards; whatever they run ends with them."""
        processes = [one for served in self._served.values() for one in served.processes]
        return [one.pid for one in processes if one.returncode is None]

    async def close(self) -> None:
        """End everything."""
        ends = []
        for served in self._served.values():
            for process in served.processes:
                if process.returncode is None:
                    assert process.stdin is not None
                    process.stdin.close()
                    ends.append(process.wait())
            for listener in (
                served.http,
                served.providers,
                served.mails,
                *(s for _, s in served.fronts.values()),
            ):
                listener.close()
        await asyncio.gather(*ends)
        if self._session:
            await self._session.close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        host = request.host.partition(":")[0]
        found = self.state.worker_at(host, request.path)
        if found is None or found[1].current is None:
            return web.Response(
                status=404,
                text="error code: 1042" if host.endswith(".workers.dev") else "error code: 522",
            )
        account, worker = found
        if (request.content_length or 0) > BODY_BYTES:
            return await too_large(request)
        served = self._served.get(worker.tag) or self._place(worker)
        served.requests += 1
        request[ASSERTION] = self.vouched.get(host, "")
        try:
            if not await self._ready(served, account):
                return web.Response(status=500, text="error code: 1101")
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await _websocket(self._client(), served.port, request)
            return await self._patiently(served, account, request)
        except (ClientError, OSError):
            return web.Response(status=500, text="error code: 1101")
        finally:
            served.requests -= 1
            served.used = self.clock()
            self._evict()

    async def mail(self, raw: bytes, sender: str, to: str) -> int:
        """Hand a mail to the Worker that gets it; return what its sender's server is told, as SMTP has it."""
        found = mails.ruled(self.state, to)
        if found is None:
            return 550
        zone, worker = found
        served = self._served.get(worker.tag) or self._place(worker)
        served.requests += 1
        try:
            if not await self._ready(served, self.state.accounts[zone.account]):
                return 451
            if mails.binding_of(worker.serving) is None:
                return 451
            port = int(served.mails.getsockname()[1])
            query = {"from": sender, "to": to}
            async with self._client().post(
                f"http://127.0.0.1:{port}/", params=query, data=raw
            ) as answer:
                return answer.status
        finally:
            served.requests -= 1
            served.used = self.clock()

    async def _patiently(
        self, served: Served, account: Account, request: web.Request
    ) -> web.StreamResponse:
        """Pass a request on, and once more when the Worker was ended for something new before it answered.

        At Cloudflare a Worker that was asked outlives its Durable Object and asks the new one; here both are one
        process.
        """
        small = (request.content_length or 0) <= REPEATABLE_BYTES
        body = await request.read() if small and request.body_exists else None
        cuts = served.cuts
        try:
            return await _stream(self._client(), served.port, request, body)
        except Unanswered:
            if not small or served.cuts == cuts or not await self._ready(served, account):
                raise
            return await _stream(self._client(), served.port, request, body)

    def _client(self) -> ClientSession:
        if self._session is None:
            timeout = ClientTimeout(total=None)
            self._session = ClientSession(timeout=timeout, auto_decompress=False)
        return self._session

    def _place(self, worker: Worker) -> Served:
        folder = self.folder / worker.tag
        for name in ("run", "storage", "logs", "disks", "snapshots"):
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        served = Served(worker, folder, _listener(), _listener(), _listener())
        self._served[worker.tag] = served
        self._set_starts(served)
        return served

    def _set_starts(self, served: Served) -> None:
        """Have the next container begin as one of an image that is new where it starts."""
        starts = {
            "seconds": self.start_seconds,
            "refusals": self.refusals,
            "snapshotSeconds": self.snapshot_seconds,
        }
        (served.folder / "starts.json").write_text(json.dumps(starts), encoding="utf-8")

    async def _ready(self, served: Served, account: Account) -> bool:
        """Have the current version running; returns False when it does not start."""
        async with served.lock:
            worker = served.worker
            version = worker.serving
            has_application = any(
                namespace.id in account.applications for namespace in worker.namespaces.values()
            )
            wanted = (version.id, has_application)
            shown = served.shown if served.alive else None
            if shown == wanted:
                return True
            if shown is not None and served.update_at is not None and shown[1] == has_application:
                return version.id in served.fronts or await self._start_front(served, version)
            self.changed(worker)
            if workerd.speaks_to_an_engine(version) and has_application:
                await self._start_engine(served)
            await self._start_workerd(served, version, has_application)
            served.shown = wanted
            return served.running is not None and await _answers(served.running, served.port)

    async def _start_front(self, served: Served, version: Version) -> bool:
        """Start the Worker of a version whose object is not there yet."""
        overlay = workerd.Overlay(internet=self.internet, objects=f"127.0.0.1:{served.debug}")
        if workerd.overlaid(version):
            overlay.engine = served.engine is not None
            overlay.variables = self._variables(served)
        overlay.outbox = f"127.0.0.1:{self.outbox_port}"
        build = served.folder / version.id
        workerd.write(build, served.worker, version, overlay)
        http = _listener()
        words = [f"--socket-fd=http={http.fileno()}"]
        process = await self._run_workerd(served, version, build, words, [http])
        served.fronts[version.id] = (process, http)
        return await _answers(process, served.port)

    def _variables(self, served: Served) -> dict[str, str]:
        address = f"http://127.0.0.1:{served.providers.getsockname()[1]}"
        return {"HERMES_ENGINE": "process", "PROVIDERS_ADDRESS": address}

    async def _start_workerd(self, served: Served, version: Version, engine: bool) -> None:
        running = engine and workerd.speaks_to_an_engine(version)
        outbox = f"127.0.0.1:{self.outbox_port}"
        overlay = workerd.Overlay(engine=running, internet=self.internet, outbox=outbox)
        if workerd.overlaid(version):
            overlay.variables = self._variables(served)
        build = served.folder / "build"
        workerd.write(build, served.worker, version, overlay)
        sockets = {"http": served.http}
        if workerd.has_providers(version):
            sockets["providers"] = served.providers
        if mails.binding_of(version):
            sockets["mails"] = served.mails
        with _listener() as free:
            served.debug = int(free.getsockname()[1])
        words = [f"--socket-fd={name}={one.fileno()}" for name, one in sockets.items()]
        words += ["--directory-path=storage=storage", f"--debug-port=127.0.0.1:{served.debug}"]
        served.running = await self._run_workerd(served, version, build, words, [*sockets.values()])

    async def _run_workerd(
        self,
        served: Served,
        version: Version,
        build: Path,
        words: list[str],
        sockets: list[socket.socket],
    ) -> asyncio.subprocess.Process:
        binary = await asyncio.to_thread(self.binaries.workerd)
        config = str((build / "config.capnp").relative_to(served.folder))
        environment = {
            **{name: os.environ[name] for name in ("SSL_CERT_FILE", "TZ") if name in os.environ},
            **workerd.secret_environment(version),
        }
        words = [str(binary), "serve", config, "--experimental", *words]
        return await self._run(served, "workerd", words, environment, sockets)

    async def _start_engine(self, served: Served) -> None:
        if served.engine and served.engine.returncode is None:
            return
        image = await asyncio.to_thread(self.binaries.image)
        words = [
            *(sys.executable, "-m", "tests.cloudflare.engine_process"),
            *("--socket", "run/engine.sock", "--images", str(image), "--ports", PORTS),
            *("--disks", "disks", "--snapshots", "snapshots"),
        ]
        kept = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "SSL_CERT_FILE")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'container'}"
        served.engine = await self._run(served, "engine", words, environment, [])
        end = self.clock() + START_SECONDS
        while not (served.folder / "run" / "engine.sock").exists() and self.clock() < end:
            await asyncio.sleep(0.02)

    async def _run(
        self,
        served: Served,
        name: str,
        words: list[str],
        environment: dict[str, str],
        sockets: list[socket.socket],
    ) -> asyncio.subprocess.Process:
        guard = Path(__file__).with_name("guard.py")
        with (served.folder / "logs" / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(guard), *words),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=served.folder,
                env=environment,
                pass_fds=[one.fileno() for one in sockets],
            )
        (self.folder / "pids").write_text(json.dumps([*self.pids, process.pid]), encoding="utf-8")
        return process

    def _evict(self) -> None:
        """Let go of the Worker that was idle longest, when too many are in memory."""
        idle = [one for one in self._served.values() if one.running and one.requests == 0]
        if len(idle) > MOST:
            self.changed(min(idle, key=lambda one: one.used).worker)


async def _answers(process: asyncio.subprocess.Process, port: int) -> bool:
    """Wait until workerd serves its socket, or has ended."""
    waiting = asyncio.create_task(process.wait())
    asked = asyncio.create_task(_ask(port))
    done, _ = await asyncio.wait(
        [waiting, asked], timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED
    )
    for task in (waiting, asked):
        task.cancel()
    return asked in done and waiting not in done


async def _ask(port: int) -> None:
    """Say something that workerd answers by itself, without asking the Worker."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"NONSENSE\r\n\r\n")
    await reader.read(1)
    writer.close()


async def too_large(request: web.Request) -> web.Response:
    """Refuse a body as the edge does: no Worker sees anything of it."""
    page = (
        "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n"
        "<center><h1>413 Request Entity Too Large</h1></center>\r\n"
        "<hr><center>cloudflare</center>\r\n</body>\r\n</html>\r\n"
    )
    return web.Response(
        status=413, text=page, content_type="text/html", headers={"Connection": "close"}
    )


class Unanswered(ClientError):
    """The Worker ended before it began to answer."""


async def _stream(
    session: ClientSession, port: int, request: web.Request, body: bytes | None
) -> web.StreamResponse:
    """Pass a request on; body: what was read of it already."""
    rest = request.content if request.body_exists and body is None else body
    try:
        answer = await session.request(
            request.method,
            f"http://127.0.0.1:{port}{request.raw_path}",
            headers=_headers(request),
            data=rest,
            allow_redirects=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        )
    except (ClientError, OSError) as error:
        raise Unanswered(str(error)) from error
    async with answer:
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        for name, value in answer.headers.items():
            if name.lower() not in HOP_BY_HOP:
                response.headers.add(name, value)
        await response.prepare(request)
        try:
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
        except ClientError:
            # The Worker was restarted in the middle of its answer: the client must see the cut.
            if request.transport:
                request.transport.abort()
            raise
        await response.write_eof()
        return response


async def _websocket(session: ClientSession, port: int, request: web.Request) -> web.StreamResponse:
    names = request.headers.get("Sec-WebSocket-Protocol", "")
    protocols = [one.strip() for one in names.split(",") if one.strip()]
    kept = {
        name: value
        for name, value in _headers(request).items()
        if not name.lower().startswith("sec-websocket")
    }
    url = f"ws://127.0.0.1:{port}{request.raw_path}"
    async with session.ws_connect(
        url, headers=kept, protocols=protocols, max_msg_size=0, autoclose=False
    ) as there:
        here = web.WebSocketResponse(
            protocols=[there.protocol] if there.protocol else (), max_msg_size=0
        )
        await here.prepare(request)
        ways = [
            asyncio.create_task(_frames(here, there)),
            asyncio.create_task(_frames(there, here)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await here.close()
        return here


Socket = web.WebSocketResponse | ClientWebSocketResponse


async def _frames(source: Socket, target: Socket) -> None:
    async for message in source:
        if message.type == WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await target.send_bytes(message.data)
    await target.close(code=source.close_code or 1000)


def _headers(request: web.Request) -> dict[str, str]:
    """Return a request's headers as the edge hands them on."""
    kept = {
        name: value
        for name, value in request.headers.items()
        if name.lower() not in HOP_BY_HOP and not name.lower().startswith("cf-")
    }
    assertion = request[ASSERTION]
    return {
        **kept,
        **({"Cf-Access-Jwt-Assertion": assertion} if assertion else {}),
        "Host": request.host,
        "CF-Connecting-IP": "127.0.0.1",
        "CF-Ray": f"{secrets.token_hex(8)}-TST",
        "X-Forwarded-Proto": "https",
    }


def _listener() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    listener.setblocking(False)
    return listener


def _kill(process: asyncio.subprocess.Process) -> None:
    """End a guarded program at once, as the platform restarts an object: in the middle of what it does."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, OSError):
            process.send_signal(signal.SIGUSR1)

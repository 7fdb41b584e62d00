# SPDX-License-Identifier: Apache-2.0
"""The stand-in as a whole: its servers in a thread of their own, and what a test holds on to."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import urlsplit

from aiohttp import web

from tests.cloudflare.accounts import PERMISSIONS, Account, State, Token, Zone, now
from tests.cloudflare.api import Front
from tests.cloudflare.authority import Authority
from tests.cloudflare.binaries import Installed
from tests.cloudflare.calls import BODY, TOKEN, Calls, Record, is_write
from tests.cloudflare.edge import Edge
from tests.cloudflare.faults import Faults, Kind
from tests.cloudflare.proxy import Proxy, TlsOrPlain
from tests.cloudflare.registry import Registry

API = "api.cloudflare.com"
REGISTRY = "registry.cloudflare.com"
RATE_LIMIT = 1200
RATE_WINDOW = 300.0
HANG_SECONDS = 600.0
PACKAGES = ("pypi.org", "files.pythonhosted.org", "registry.npmjs.org")
"""Where installers fetch from: the proxy lets them through, as they run in the same environment."""
MIRRORS = ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX", "PIP_INDEX_URL", "npm_config_registry")


Answer = Callable[[web.Request], "tuple[int, Any] | None"]
"""Returns a status and a JSON body, or None."""


class ControlPlane:
    """Cloudflare's control plane and edge on this machine. A context manager; it ends with its holder.

    Leaving it fails when a call was made that it does not know, unless `unknown` was emptied.
    """

    def __init__(self, state: Path, runtime: Path | None = None, edge: type[Edge] = Edge) -> None:
        """state: folder for its files; runtime: state folder of deployments whose installed runtime is used.

        Without one it is HERMES_TEST_RUNTIME, so that a run of tests installs it once, else the stand-in's own.
        edge: what serves the Workers; StubEdge where what they do inside does not matter.
        """
        self.folder = state
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.state = State()
        self.faults = Faults()
        self.calls_log = Calls(state / "calls.jsonl")
        self.unknown: list[str] = []
        self.rate_limit = RATE_LIMIT
        self.rate_window = RATE_WINDOW
        self.certificate_seconds = 0.0
        self.preparations: list[str] = []
        """Statuses of the next image preparations: pending, ready or error. Empty: ready."""
        self.deletion_seconds = 0.3
        """How long a container application that is deleted is still there."""
        self.elsewhere: dict[str, int] = {}
        """Hosts of the internet that a test serves itself, by name: the port on which it ends TLS for them."""
        self.answers: list[tuple[str, str, Answer]] = []
        """A test's own: method, pattern of host and path, and what answers; None passes the call on."""
        self.unready_versions = 0
        """How many further times a version that was just uploaded is not readable yet."""
        self.defers_secrets = True
        """Whether an object in use keeps its old secrets for a while; said of Cloudflare, and not certain."""
        self.registry_port = 0
        self.registry = Registry(state / "registry", self.clock)
        installed = Installed(
            runtime or Path(os.environ.get("HERMES_TEST_RUNTIME") or state / "runtime")
        )
        self.edge = edge(state / "workers", self.state, installed, self.clock)
        self._ahead = 0.0
        self._authority = Authority(state / "ca.pem")
        self._proxy = Proxy(self._port_of, self._passes)
        self._ports: dict[str, int] = {}
        self._runners: list[web.AppRunner] = []
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="cloudflare", daemon=True
        )
        self.env: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if kind is None and self.unknown:
            raise AssertionError(f"calls that this stand-in does not know: {self.unknown}")

    @property
    def calls(self) -> list[Record]:
        """All calls so far, in the order in which they were answered."""
        return self.calls_log.since()

    def writes(self, start: int = 0) -> list[Record]:
        """Calls from the start-th on that were sent to change something in the control plane."""
        return [call for call in self.calls_log.since(start) if call.write]

    def clock(self) -> float:
        """Return the stand-in's time in seconds."""
        return time.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let time pass: certificates are issued, rate limits and credentials run out."""
        self._ahead += seconds
        self._run(self.edge.settle())

    def add_account(
        self,
        id: str,  # noqa: A002 - as the interface has it
        token: str,
        scopes: Iterable[str] = PERMISSIONS,
        plan: str = "paid",
        subdomain: str | None = "acme",
        zones: Iterable[str] = (),
        containers: bool = True,
    ) -> Account:
        """Add an account and a token for it; an account that exists gets a further token."""
        account = self.state.accounts.get(id)
        if account is None:
            account = Account(id, f"Account {id[:6]}", subdomain, plan, containers)
            self.state.accounts[id] = account
        known = self.state.tokens.setdefault(token, Token(token, permissions=set(scopes)))
        known.accounts.add(id)
        for name in zones:
            self.add_zone(id, name)
        return account

    def certified(self, host: str) -> ssl.SSLContext:
        """Return what ends TLS for a host of the internet, with a certificate that everything in here trusts."""
        return self._authority.context(host)

    def add_zone(self, account: str, name: str) -> Zone:
        """Add a domain to an account. name: in Unicode, as Cloudflare lists it."""
        zone = Zone(name, account)
        self.state.zones[zone.id] = zone
        return zone

    def add_image(self, account: str, repository: str = "hermes", note: str = "") -> str:
        """Put an image without layers into the registry; return the name by which wrangler knows it."""
        digest = self.registry.add_image(f"{account}/{repository}", note=note)
        return f"{self.env['CLOUDFLARE_CONTAINER_REGISTRY']}/{account}/{repository}@{digest}"

    def deliver(self, raw: bytes, sender: str, to: str) -> int:
        """Have a mail come in, as Cloudflare's server took it; return what its sender's server is told: 250, 451, 550.

        sender: of its envelope.
        """
        handed = self.edge.mail(raw, sender, to)
        return asyncio.run_coroutine_threadsafe(handed, self._loop).result()

    def _run(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result()

    async def _start(self) -> None:
        inside = {
            API: Front(self).application,
            REGISTRY: self.registry.application(),
            "edge": self.edge.application(),
        }
        # All hostnames share one rule for certificates; each kind of host has a port behind it.
        context = self._authority.server_context(API, self._has_certificate)
        for name, application in inside.items():
            application.middlewares.insert(0, self._watching(control=name != "edge"))
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.05)
            await runner.setup()
            self._runners.append(runner)
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
            await site.start()
            self._ports[name] = port_of(site)
            if name == REGISTRY:
                plain = web.TCPSite(runner, "127.0.0.1", 0)
                await plain.start()
                both = TlsOrPlain(self._ports[name], port_of(plain))
                self.registry_port = await self._listen(both)
        outbox = web.AppRunner(self.edge.outbox.application(), access_log=None)
        await outbox.setup()
        self._runners.append(outbox)
        taking = web.TCPSite(outbox, "127.0.0.1", 0)
        await taking.start()
        self.edge.outbox_port = port_of(taking)
        self.registry.hosts.add(f"127.0.0.1:{self.registry_port}")
        proxy_port = await self._listen(self._proxy)
        self.env = self._environment(proxy_port)

    async def _listen(self, serve: Callable[..., Any]) -> int:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def _stop(self) -> None:
        await self.edge.close()
        for server in self._servers:
            server.close()
        for runner in self._runners:
            await runner.cleanup()
        # A connection that was just accepted gets its task while the others end.
        while rest := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

    def _environment(self, proxy_port: int) -> dict[str, str]:
        """Return the environment that leads wrangler, docker and our own client here."""
        bundle = self.folder / "bundle.pem"
        parts = [self.folder / "ca.pem"]
        for given in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            if os.environ.get(given):
                parts.append(Path(os.environ[given]))
                break
        bundle.write_text("\n".join(part.read_text(encoding="utf-8") for part in parts), "utf-8")
        proxy, direct = f"http://127.0.0.1:{proxy_port}", "127.0.0.1,localhost"
        return {
            "HTTPS_PROXY": proxy,
            "https_proxy": proxy,
            "NO_PROXY": direct,
            "no_proxy": direct,
            "REQUESTS_CA_BUNDLE": str(bundle),
            "SSL_CERT_FILE": str(bundle),
            "NODE_EXTRA_CA_CERTS": str(bundle),
            "CLOUDFLARE_CONTAINER_REGISTRY": f"127.0.0.1:{self.registry_port}",
            "WRANGLER_SEND_METRICS": "false",
        }

    def _port_of(self, host: str) -> int | None:
        """Return where a hostname leads; None for one that Cloudflare does not serve."""
        if host in (API, REGISTRY):
            return self._ports[host]
        if host.endswith(".workers.dev") or self.state.proxied(host):
            return self._ports["edge"]
        return self.elsewhere.get(host)

    def _passes(self, host: str) -> bool:
        mirrors = {urlsplit(os.environ.get(name, "")).hostname for name in MIRRORS}
        return host in PACKAGES or host in mirrors

    def _has_certificate(self, host: str) -> bool:
        if host in (API, REGISTRY, "127.0.0.1", "localhost"):
            return True
        if host.endswith(".workers.dev"):
            # The wildcard certificate covers one level below the account's subdomain.
            _, _, rest = host.partition(".")
            return any(
                rest == f"{one.subdomain}.workers.dev" for one in self.state.accounts.values()
            )
        found = self.state.domain(host)
        if found:
            return found[1].issued_at <= self.clock()
        # The zone's own certificate: the apex and one level below it.
        zone = self.state.zone_of(host)
        return zone is not None and host.removesuffix(zone.ascii).count(".") <= 1

    def _token_of(self, request: web.Request) -> str:
        """Return the id of the API token that a call was sent with, or an empty text."""
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        token = self.state.token(value) if scheme == "Bearer" else None
        return token.id if token else ""

    def _own_answer(self, request: web.Request, where: str) -> web.Response | None:
        for method, pattern, answer in self.answers:
            if method == request.method and re.search(pattern, where):
                told = answer(request)
                if told:
                    return web.json_response(told[1], status=told[0])
        return None

    def _watching(self, control: bool) -> Callable[..., Any]:
        """Return what logs a host's calls and lets them fail; control: false for the hosts of Workers."""

        @web.middleware
        async def watch(
            request: web.Request, handler: Callable[[web.Request], Any]
        ) -> web.StreamResponse:
            where = f"{request.host}{request.path}"
            kind = self.faults.meet(request.method, where, not control, self._token_of(request))
            status = 0
            try:
                if own := self._own_answer(request, where):
                    response = own
                elif kind is None or kind.after_effect:
                    response = await handler(request)
                if kind:
                    response = await fail(request, kind)
                status = kind.status if kind else response.status
                return response
            except web.HTTPException as error:
                status = error.status
                raise
            finally:
                self.calls_log.add(record_of(request, status, control))

        return watch


def record_of(request: web.Request, status: int, control: bool) -> Record:
    """Return a call as the log keeps it."""
    host = request.host.partition(":")[0]
    return Record(
        at=now(),
        token=request.get(TOKEN, ""),
        method=request.method,
        host=REGISTRY if host == "127.0.0.1" else host,
        path=request.path,
        query=request.query_string,
        body=request.get(BODY),
        status=status,
        write=control and is_write(request.method, request.path),
    )


async def fail(request: web.Request, kind: Kind) -> web.Response:
    """Fail a call in an ordered way."""
    if kind.hangs:
        await asyncio.sleep(HANG_SECONDS)
    if kind.status == 0:
        if request.transport:
            request.transport.abort()
        return web.Response()
    code = 971 if kind.status == 429 else kind.status
    error = {"code": code, "message": "An ordered fault."}
    envelope = {"result": None, "success": False, "errors": [error], "messages": []}
    return web.json_response(envelope, status=kind.status, headers=dict(kind.headers))


def port_of(site: web.TCPSite) -> int:
    """Return the port that a site got."""
    server = cast(asyncio.Server, site._server)
    return int(server.sockets[0].getsockname()[1])

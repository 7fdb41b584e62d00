# SPDX-License-Identifier: Apache-2.0
"""Stands between the plays and an API, hands every call on, and keeps what came back: codes and shapes, no values."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web

from tests.cloudflare.calls import is_write
from tests.cloudflare.edge import HOP_BY_HOP
from tests.cloudflare.plane import port_of
from tests.cloudflare.shapes import shape

REGISTRY = re.compile(r"(?<=/registries/)[^/]+")
ID = re.compile(r"(?<=/)([0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})(?=/|$)")
SECONDS = 120


@dataclass(frozen=True)
class Answered:
    """One call. path: with {id} and {name} for what differs between runs; shape: of the answer's body."""

    method: str
    path: str
    status: int
    codes: list[int | None]
    shape: Any

    @property
    def call(self) -> str:
        """The call, as it is the same in every run."""
        return f"{self.method} {self.path}"


class Recorder:
    """An HTTP server on loopback in front of an API. A context manager."""

    def __init__(
        self, upstream: str, names: Iterable[str], environment: Mapping[str, str] = os.environ
    ) -> None:
        """upstream: address of the API, such as https://api.cloudflare.com; names: what this run calls its own.

        environment: names the proxy and the certificates by which the API is reached.
        """
        self.upstream = upstream
        self.names = [name for name in names if name]
        self._environment = environment
        self.answered: list[Answered] = []
        self.writes = 0
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="recorder", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def count(self) -> tuple[int, int]:
        """Return how many calls there were so far, and how many of them were writes."""
        return len(self.answered), self.writes

    async def _start(self) -> None:
        bundle = self._environment.get("SSL_CERT_FILE")
        self._session = ClientSession(
            connector=TCPConnector(ssl=ssl.create_default_context(cafile=bundle)),
            proxy=self._environment.get("HTTPS_PROXY"),
            timeout=ClientTimeout(total=SECONDS),
        )
        application = web.Application(client_max_size=0)
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{port_of(site)}"

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        own = {*HOP_BY_HOP, "host", "content-length", "accept-encoding"}
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in own
        }
        try:
            async with self._session.request(
                request.method,
                f"{self.upstream}{request.raw_path}",
                headers=headers,
                data=await request.read() if request.body_exists else None,
                allow_redirects=False,
            ) as answer:
                content = await answer.read()
                passed = {*own, "content-encoding"}
                told = {n: v for n, v in answer.headers.items() if n.lower() not in passed}
                status = answer.status
        except (ClientError, TimeoutError):
            self._keep(request, 0, b"")
            if request.transport:
                request.transport.abort()
            return web.Response()
        self._keep(request, status, content)
        return web.Response(status=status, headers=told, body=content)

    def _keep(self, request: web.Request, status: int, content: bytes) -> None:
        try:
            body = json.loads(content)
        except ValueError:
            body = None
        errors = body.get("errors") if isinstance(body, dict) else None
        codes = [one.get("code") for one in errors or [] if isinstance(one, dict)]
        self.answered.append(
            Answered(request.method, self._generic(request.path), status, codes, shape(body))
        )
        self.writes += is_write(request.method, request.path)

    def _generic(self, path: str) -> str:
        for name in sorted(self.names, key=len, reverse=True):
            path = re.sub(rf"(?<=/){re.escape(name)}(?=/|$)", "{name}", path)
        return ID.sub("{id}", REGISTRY.sub("{registry}", path))


def write(answered: list[Answered], path: Path) -> None:
    """Keep what was recorded, one JSON object a line."""
    lines = [json.dumps(asdict(one), sort_keys=True) for one in answered]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read(path: Path) -> list[Answered]:
    """Read what was recorded."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Answered(**json.loads(line)) for line in lines]

# SPDX-License-Identifier: Apache-2.0
"""HTTP: one handler a route, errors as JSON, and the two-way stream of `exec`."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from engine.engine import Engine
from engine.errors import EngineError, disk_full
from engine.exec import execute

BODY_LIMIT = 1 << 20
_engine = web.AppKey("engine", Engine)


def runner(engine: Engine) -> web.AppRunner:
    """Return the server for an engine, not yet listening."""
    application = web.Application(middlewares=[_errors], client_max_size=BODY_LIMIT)
    application[_engine] = engine
    application.add_routes(
        [
            web.get("/", _describe),
            web.post("/start", _start),
            web.post("/exec", _exec),
            web.post("/signal", _signal),
            web.post("/destroy", _destroy),
            web.get("/monitor", _monitor),
            web.post("/snapshot", _snapshot),
            web.post("/inactivity-timeout", _inactivity),
        ]
    )
    # A client that goes away cancels its handler: that is how its process is killed.
    return web.AppRunner(
        application,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=2.0,
        lingering_time=1.0,
        keepalive_timeout=3600,
    )


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    request.app[_engine].touch()
    try:
        return await handler(request)
    except EngineError as error:
        return _refusal(error.status, error.code, str(error))
    except web.HTTPException as error:
        return _refusal(error.status, "http", error.reason)
    except ConnectionError:  # the client went away
        raise
    except OSError as error:
        print(f"engine: {request.path}: {error!r}", file=sys.stderr)
        full = disk_full(error)
        return _refusal(507, full.code, str(full)) if full else _refusal(500, "system", str(error))


def _refusal(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=status)


async def _body(request: web.Request) -> dict[str, Any]:
    text = await request.read()
    try:
        body = json.loads(text or b"{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise EngineError(400, "invalid", "The body must be a JSON object.")
    return body


async def _describe(request: web.Request) -> web.Response:
    return web.json_response(request.app[_engine].describe())


async def _start(request: web.Request) -> web.Response:
    return web.json_response(await request.app[_engine].start(await _body(request)))


async def _exec(request: web.Request) -> web.StreamResponse:
    engine = request.app[_engine]
    sandbox = engine.sandbox()
    engine.touch(busy=1)
    try:
        return await execute(request, sandbox.link, sandbox.constants())
    finally:
        engine.touch(busy=-1)


async def _signal(request: web.Request) -> web.Response:
    request.app[_engine].signal(await _body(request))
    return web.json_response({})


async def _destroy(request: web.Request) -> web.Response:
    await request.app[_engine].destroy()
    return web.json_response({})


async def _monitor(request: web.Request) -> web.Response:
    return web.json_response(await request.app[_engine].monitor())


async def _snapshot(request: web.Request) -> web.Response:
    return web.json_response(await request.app[_engine].snapshot(await _body(request)))


async def _inactivity(request: web.Request) -> web.Response:
    request.app[_engine].set_inactivity_timeout(await _body(request))
    return web.json_response({})

# SPDX-License-Identifier: Apache-2.0
"""The product's process engine, as hard as Cloudflare's containers and for all images of a registry.

Its own image store knows folders by digest. Here a Worker names images of a registry; what they would hold is built
from the same `container` folder as the process image, so that one is started, under the name that was asked for.

How containers start is in a file that is read anew at each start:
`{"seconds": 21, "refusals": ["try again later"], "snapshotSeconds": 2}`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any, ClassVar, cast

from aiohttp import web
from engine import cli, server
from engine.engine import Engine
from engine.errors import EngineError
from engine.exec import execute as run
from engine.images import Image

STARTS = Path("starts.json")
"""In the folder of the Worker whose containers these are."""


class AnyImage:
    """Stands where the engine's images stand; `folder` is the installed process image."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder).resolve()

    def find(self, digest: object) -> Image:
        """Return the process image under the name that was asked for."""
        description = json.loads((self.folder / "image.json").read_text(encoding="utf-8"))
        return Image(str(self.folder), {**description, "digest": str(digest)})


class Slow(Engine):
    """Starts are refused for the moment, and what was started takes its time until a command works in it.

    A snapshot cannot be started from for some seconds.
    """

    _ready_at = 0.0
    _usable_at: ClassVar[dict[str, float]] = {}

    async def start(self, options: dict[str, Any]) -> dict[str, Any]:
        """Start a sandbox.

        Raises EngineError 503 `start_refused` as often as the file says, and 404 for a snapshot that was just taken.
        """
        starts = json.loads(STARTS.read_text(encoding="utf-8")) if STARTS.exists() else {}
        refusals = starts.get("refusals", [])
        if refusals:
            STARTS.write_text(json.dumps({**starts, "refusals": refusals[1:]}), encoding="utf-8")
            raise EngineError(503, "start_refused", refusals[0])
        snapshot = str((options.get("containerSnapshot") or {}).get("id"))
        if time.monotonic() < self._usable_at.get(snapshot, 0.0):
            raise EngineError(404, "snapshot_not_found", f"Snapshot {snapshot} was not found.")
        started = await super().start(options)
        self._ready_at = time.monotonic() + starts.get("seconds", 0.0)
        return started

    async def snapshot(self, options: dict[str, Any]) -> dict[str, Any]:
        """Copy the disk."""
        starts = json.loads(STARTS.read_text(encoding="utf-8")) if STARTS.exists() else {}
        taken = await super().snapshot(options)
        self._usable_at[taken["id"]] = time.monotonic() + starts.get("snapshotSeconds", 0.0)
        return taken

    async def started(self) -> None:
        """Wait until commands work in the sandbox, or it has ended."""
        waiting = asyncio.ensure_future(asyncio.sleep(self._ready_at - time.monotonic()))
        both: list[asyncio.Future[Any]] = [waiting, self.sandbox().ended]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()


async def execute(request: web.Request, *rest: Any) -> web.StreamResponse:
    """Run a command as the product's engine does, once its container has started."""
    await cast(Slow, request.app[server._engine]).started()
    return await run(request, *rest)


if __name__ == "__main__":
    vars(cli).update(Images=AnyImage, Engine=Slow)
    vars(server).update(execute=execute)
    sys.exit(cli.main(sys.argv[1:]))

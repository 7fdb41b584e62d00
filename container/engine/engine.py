# SPDX-License-Identifier: Apache-2.0
"""What a container does for its object: start, exec, signal, monitor, snapshot, destroy."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.disks import Disks
from engine.errors import EngineError
from engine.images import Images
from engine.sandbox import Sandbox
from engine.snapshots import Snapshots

LONGEST_INACTIVITY = 6 * 3600 * 1000


class Engine:
    """At most one sandbox, and the clock that ends it when nobody calls any more."""

    def __init__(
        self,
        images: Images,
        disks: Disks,
        snapshots: Snapshots,
        ports: list[int],
        confine: str,
    ) -> None:
        """confine: whether bubblewrap is used: "auto" where it works, "always" or "never"."""
        self._images = images
        self._disks = disks
        self._snapshots = snapshots
        self._ports = ports
        self._confine = confine
        self._sandbox: Sandbox | None = None
        self._inactivity: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._busy = 0
        self._closing = False
        self._expiring: asyncio.Task[None] | None = None

    def describe(self) -> dict[str, Any]:
        """Return what GET / says."""
        sandbox = self._sandbox
        if sandbox is None or sandbox.ending:
            sandbox = None
        return {
            "engine": "process",
            "diskFree": self._disks.free(),
            "confined": sandbox and sandbox.confined,
            "running": sandbox is not None,
            "labels": sandbox and sandbox.labels,
            "image": sandbox and sandbox.image.digest,
            "ports": sandbox and _text_keys(sandbox.ports),
        }

    async def start(self, options: dict[str, Any]) -> dict[str, Any]:
        """Start a sandbox on a fresh disk and return its ports; it is not ready yet.

        Raises EngineError: 400, 404 (image or snapshot), 409 (running), 503 (not confined), 507 (disk full).
        """
        snapshot = _snapshot(options)
        digest = options.get("image")
        environ = _texts(options, "env")
        labels = _texts(options, "labels")
        entrypoint = _words(options, "entrypoint")
        while self._sandbox is not None and self._sandbox.ending:
            await asyncio.shield(self._sandbox.ended)
        if self._sandbox is not None or self._closing:
            raise EngineError(409, "already_running", "A sandbox is running already.")
        if snapshot is not None:
            digest = self._image_of(snapshot, digest)
        image = self._images.find(digest)
        # No await between the check above and here: exactly one start wins.
        sandbox = Sandbox(image, self._disks.new(), labels, self._ports)
        self._sandbox = sandbox
        # The first to learn of its end: whoever waits for that finds no sandbox.
        sandbox.ended.add_done_callback(self._forget)
        await sandbox.start(self._confine, self._snapshots, snapshot, environ, entrypoint)
        return {"ports": _text_keys(sandbox.ports)}

    async def destroy(self) -> None:
        """End the sandbox, if any; nothing of it is left afterwards."""
        if self._sandbox is not None:
            await self._sandbox.destroy()

    async def monitor(self) -> dict[str, Any]:
        """Wait for the sandbox's end. Raises EngineError 409 when none is running."""
        sandbox = self.sandbox()
        code = await asyncio.shield(sandbox.ended)
        return {"exitCode": code, "labels": sandbox.labels}

    async def snapshot(self, options: dict[str, Any]) -> dict[str, Any]:
        """Copy the disk. Raises EngineError 409 when no sandbox is running, 507 when full."""
        name = options.get("name", "")
        if not isinstance(name, str) or len(name) > 256:
            raise EngineError(400, "invalid", "name must be text of at most 256 characters.")
        return await self.sandbox().snapshot(self._snapshots, name)

    def signal(self, options: dict[str, Any]) -> None:
        """Signal PID 1. Raises EngineError 400, or 409 when no sandbox is running."""
        number = options.get("signal")
        if not isinstance(number, int) or not 0 < number < 32:
            raise EngineError(400, "invalid", "signal must be a number from 1 to 31.")
        self.sandbox().link.signal(number)

    def sandbox(self) -> Sandbox:
        """Return the running sandbox. Raises EngineError 409 when there is none."""
        if self._sandbox is None or self._sandbox.ending:
            raise EngineError(409, "not_running", "No sandbox is running.")
        return self._sandbox

    async def close(self) -> None:
        """Stop the sandbox in an orderly way; none starts any more."""
        self._closing = True
        await self._terminate()

    async def _terminate(self) -> None:
        if self._sandbox is not None:
            await self._sandbox.terminate()

    # Inactivity

    def set_inactivity_timeout(self, options: dict[str, Any]) -> None:
        """End the sandbox when no call comes for `ms`. Raises EngineError 400, 409."""
        milliseconds = options.get("ms")
        if not isinstance(milliseconds, (int, float)) or not 0 < milliseconds <= LONGEST_INACTIVITY:
            raise EngineError(400, "invalid", f"ms must be from 1 to {LONGEST_INACTIVITY}.")
        self.sandbox()
        self._inactivity = milliseconds / 1000
        self.touch()

    def touch(self, busy: int = 0) -> None:
        """Note a call: `busy` is 1 when a long one begins, -1 when it ends."""
        self._busy += busy
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._inactivity is not None and not self._busy:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._inactivity, self._expire)

    def _expire(self) -> None:
        self._expiring = asyncio.ensure_future(self._terminate())

    def _forget(self, _ended: asyncio.Future[int]) -> None:
        self._sandbox = self._inactivity = None
        self.touch()

    def _image_of(self, snapshot: object, digest: object) -> str:
        own = self._snapshots.image_of(snapshot)
        if digest is not None and digest != own:
            raise EngineError(
                404,
                "snapshot_of_other_image",
                f"The snapshot {snapshot!r} belongs to the image {own!r}.",
            )
        return own


def _snapshot(options: dict[str, Any]) -> object:
    snapshot = options.get("containerSnapshot")
    if snapshot is None:
        return None
    if not isinstance(snapshot, dict) or "id" not in snapshot:
        raise EngineError(400, "invalid", "containerSnapshot must be an object with an id.")
    return snapshot["id"]


def _texts(options: dict[str, Any], name: str) -> dict[str, str]:
    given = options.get(name)
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(
        isinstance(value, str) and "\0" not in key + value and "=" not in key and key
        for key, value in given.items()
    ):
        raise EngineError(400, "invalid", f"{name} must be an object of texts.")
    return given


def _words(options: dict[str, Any], name: str) -> list[str] | None:
    given = options.get(name)
    if given is not None and not (
        isinstance(given, list) and given and all(isinstance(word, str) for word in given)
    ):
        raise EngineError(400, "invalid", f"{name} must be a list of texts.")
    return given


def _text_keys(ports: dict[int, int]) -> dict[str, int]:
    return {str(port): mapped for port, mapped in ports.items()}

# SPDX-License-Identifier: Apache-2.0
"""One sandbox from its start to the moment when nothing of it is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from engine import confine, processes
from engine.disks import Disk
from engine.errors import EngineError, disk_full
from engine.images import Image
from engine.sandbox_link import SandboxLink
from engine.snapshots import Snapshots, Stopped

# Passed on from the engine's own environment, which holds no secrets; nothing else is.
INHERITED = ("LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
END_TIME = 3.0
Result = TypeVar("Result")
KILL_AFTER_TERM = 10.0


class Sandbox:
    """A sandbox. `ended` becomes its exit code when no process and no disk of it is left."""

    def __init__(self, image: Image, disk: Disk, labels: dict[str, Any], ports: list[int]) -> None:
        self.image = image
        self.confined: bool | None = None
        self.labels = labels
        self.ending = False
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.ports = _free_ports(ports)
        self.link = SandboxLink()
        self._disk = disk
        self._stops: set[threading.Event] = set()
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._destroying: asyncio.Task[None] | None = None
        self._copying = asyncio.Lock()
        self._pausing = asyncio.Lock()

    async def start(
        self,
        confine_mode: str,
        snapshots: Snapshots,
        snapshot: object,
        environ: dict[str, Any],
        entrypoint: list[str] | None,
    ) -> None:
        """Make the disk and start PID 1.

        Raises EngineError 404 when the snapshot is gone, 409 when it was destroyed meanwhile,
        503 when it must be confined and cannot, 507 when the disk is full; nothing is left then.
        """
        try:
            self.confined = await asyncio.to_thread(confine.decide, confine_mode)
            await self._copy(self._fill_disk, snapshots, snapshot)
            if self.ending:
                raise Stopped
            await self._spawn(environ, entrypoint)
        except BaseException as error:
            if self._process is None:
                await asyncio.shield(asyncio.ensure_future(self._clean_up(137)))
            else:
                await self.destroy()
            raise _explain(error) from error

    async def destroy(self) -> None:
        """Kill every process, remove the disk, and return when both are done.

        It goes on when the caller is cancelled.
        """
        self.ending = True
        if self._destroying is None:
            self._destroying = asyncio.ensure_future(self._destroy())
        await asyncio.shield(self._destroying)

    async def _destroy(self) -> None:
        self._stop_copying()
        if self._process is not None:
            self.link.close()  # PID 1 kills all others and itself
            try:
                await asyncio.wait_for(asyncio.shield(self.ended), END_TIME)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
        await asyncio.shield(self.ended)

    async def terminate(self) -> None:
        """Ask PID 1 to stop; what has not stopped KILL_AFTER_TERM s later is destroyed."""
        if self._process is not None:
            self.link.signal(15)
            await asyncio.wait([self.ended], timeout=KILL_AFTER_TERM)
        await self.destroy()

    async def snapshot(self, snapshots: Snapshots, name: str) -> dict[str, Any]:
        """Copy the disk while every process is paused.

        Raises EngineError 503 when they cannot be, 507 when the disk is full.
        """
        # One at a time: the end of one would let go what another copies.
        async with self._pausing:
            try:
                if not await self.link.pause(True):
                    raise EngineError(503, "not_paused", "The sandbox could not be paused.")
                return await self._copy(snapshots.take, self._disk.root, self.image.digest, name)
            except (OSError, Stopped) as error:
                raise _explain(error) from error
            finally:
                await self.link.pause(False)

    async def _copy(self, function: Callable[..., Result], *words: object) -> Result:
        """Run a function that copies in a thread, one at a time; never leave it behind.

        When the caller is cancelled or the sandbox destroyed, the copy is told to stop, and the
        lock is released when it has.
        """
        async with self._copying:
            stop = threading.Event()
            self._stops.add(stop)
            if self.ending:
                stop.set()
            job = asyncio.ensure_future(asyncio.to_thread(function, *words, stop))
            try:
                return await asyncio.shield(job)
            finally:
                stop.set()
                await asyncio.wait([job])
                self._stops.discard(stop)

    def _stop_copying(self) -> None:
        for stop in self._stops:
            stop.set()

    def _fill_disk(self, snapshots: Snapshots, snapshot: object, stop: threading.Event) -> None:
        self._disk.create(with_root=snapshot is None, in_memory=not self.confined)
        if snapshot is not None:
            snapshots.restore(snapshot, self._disk.root, stop)

    async def _spawn(self, environ: dict[str, Any], entrypoint: list[str] | None) -> None:
        command = list(self.image.entrypoint)
        if entrypoint:
            command += ["--", *entrypoint]
        command[0] = os.path.join(self.image.folder, "bin", command[0])
        if self.confined:
            command = confine.command(self.image, self._disk.root, command)
        theirs = self.link.theirs.fileno()
        self._process = await asyncio.create_subprocess_exec(
            *command,
            env={
                "HERMES_BOOT_ID": secrets.token_hex(16),
                **environ,
                **self.constants(),
                "SANDBOX_PARENT_FD": str(theirs),
            },
            stdin=asyncio.subprocess.DEVNULL,
            cwd=os.path.join(self._disk.root, "home"),
            pass_fds=[theirs],
            start_new_session=True,
        )
        self._watcher = asyncio.ensure_future(self._watch(self._process))
        self.link.listen()

    def constants(self) -> dict[str, str]:
        """Return what every process of this sandbox is given: where things are in it.

        It stands for what an image's programs know. What the start was given is not in it: a
        command has only what it is given itself.
        """
        root = self._disk.root
        home = confine.HOME if self.confined else os.path.join(root, "home")
        run = confine.RUN if self.confined else self._disk.run
        environ = {"LANG": "C.UTF-8"}
        environ |= {name: os.environ[name] for name in INHERITED if name in os.environ}
        environ |= {f"PORT_{port}": str(mapped) for port, mapped in self.ports.items()}
        return environ | {
            "PATH": self.image.path,
            "HOME": home,
            "TMPDIR": "/tmp" if self.confined else os.path.join(root, "tmp"),  # noqa: S108
            "HERMES_HOME": os.path.join(home, ".hermes"),
            "HERMES_MANAGED_DIR": os.path.join(run, "managed"),
            "SANDBOX_RUN": run,
            "SANDBOX_BIND": "127.0.0.1",
            "SANDBOX_CONFINED": "1" if self.confined else "0",
            processes.MARK: self._disk.id,
        }

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        await self._clean_up(code if code >= 0 else 128 - code)

    async def _clean_up(self, code: int) -> None:
        self.ending = True
        self._stop_copying()
        self.link.close()
        async with self._copying:
            await asyncio.to_thread(self._remove)
        if not self.ended.done():
            self.ended.set_result(code)

    def _remove(self) -> None:
        processes.kill_marked(self._disk.id)
        self._disk.remove()


def _free_ports(wanted: list[int]) -> dict[int, int]:
    """Return a free loopback port for each container port; all are held while one is sought."""
    holders = {}
    for port in wanted:
        holders[port] = socket.socket()
        holders[port].bind(("127.0.0.1", 0))
    found = {port: holder.getsockname()[1] for port, holder in holders.items()}
    for holder in holders.values():
        holder.close()
    return found


def _explain(error: BaseException) -> BaseException:
    if isinstance(error, Stopped):
        return EngineError(409, "destroyed", "The sandbox was destroyed meanwhile.")
    return disk_full(error) or error

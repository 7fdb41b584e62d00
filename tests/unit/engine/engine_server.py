# SPDX-License-Identifier: Apache-2.0
"""An engine process for tests, and what it may leave behind."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from engine_client import Client, Done
from sandbox_box import CONTAINER, KEY, lay_out, wait_for

from tests.processes import alive

Result = TypeVar("Result")


def bubblewrap_works() -> bool:
    """Ask bubblewrap itself, not the engine under test."""
    if shutil.which("bwrap") is None:
        return False
    probe = ["bwrap", "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc"]
    return subprocess.run([*probe, "true"], capture_output=True, check=False).returncode == 0


def add_image(images: Path, name: str) -> None:
    """Make an image with the stand-in for Hermes."""
    lay_out(images / name)
    description = {"digest": name, "hermesVersion": "0", "entrypoint": ["sandbox", "init"]}
    (images / name / "image.json").write_text(json.dumps(description))


class Server:
    """An engine in its own state folder. `SECRET` is in its environment, for tests to look for."""

    SECRET = "must-not-reach-the-sandbox"

    def __init__(self, state: Path, confine: str = "never", images: "Path | None" = None) -> None:
        self.state = state
        self.path = os.environ["PATH"]
        self.confine = confine
        self.images = images or state / "images"
        self.process: subprocess.Popen | None = None
        state.mkdir()
        if images is None:
            add_image(self.images, "image-a")

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(20)

    def start(self) -> None:
        """Start the engine, and wait until it answers."""
        command = [
            sys.executable,
            "-m",
            "engine",
            "--socket",
            "run/engine.sock",
            "--images",
            str(self.images),
            "--disks",
            "engine/disks",
            "--snapshots",
            "engine/snapshots",
            "--confine",
            self.confine,
        ]
        environ = {
            **os.environ,
            "PATH": self.path,
            "PYTHONPATH": str(CONTAINER),
            "SOME_SECRET": self.SECRET,
        }
        self.process = subprocess.Popen(command, cwd=self.state, env=environ)
        wait_for(self._answers)

    async def start_again(self) -> None:
        """Start the engine from within a running loop."""
        await asyncio.to_thread(self.start)

    def refused(self) -> int:
        """Start a second engine on the same folder and return its exit code."""
        command = [*self.process.args]
        command[command.index("--socket") + 1] = "run/second.sock"
        environ = {**os.environ, "PYTHONPATH": str(CONTAINER)}
        return subprocess.run(
            command, cwd=self.state, env=environ, timeout=10, check=False
        ).returncode

    def kill(self) -> None:
        """Kill the engine as the system does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def run(self, test: Callable[[Client], Awaitable[Result]]) -> Result:
        """Run an async function with a client of this engine."""

        async def with_client() -> Result:
            async with self.client() as client:
                return await test(client)

        return asyncio.run(with_client())

    def client(self) -> Client:
        """Return a client; unix sockets have short names, hence the relative path."""
        return Client(os.path.relpath(self.state / "run" / "engine.sock"))

    def disks(self) -> "list[Path]":
        """Return what is on disk of sandboxes."""
        return [path for path in (self.state / "engine" / "disks").iterdir() if path.is_dir()]

    def memory(self) -> "list[Path]":
        """Return the run folders in memory of the disks that there are; other tests have theirs beside them."""
        shared = [Path("/dev/shm", f"hermes-run-{disk.name}") for disk in self.disks()]
        return [path for path in shared if path.exists()]

    def processes(self) -> "set[int]":
        """Return every process below the engine."""
        return set(below(self.process.pid))

    def _answers(self) -> bool:
        assert self.process.poll() is None, "the engine ended"
        with contextlib.suppress(OSError):
            return self.run(_alive)
        return False


async def _alive(client: Client) -> bool:
    return (await client.get())[0] == 200


def below(pid: int) -> "list[int]":
    """Return every process below `pid`."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *below(int(child))]
    return found


async def boot(
    client: Client, image: str = "image-a", boot: str = "boot-1", **more: object
) -> dict:
    """Start a sandbox, let the stand-in run from an empty home, and return its ports."""
    status, body = await client.post(
        "/start", {"image": image, "env": {"HERMES_BOOT_ID": boot}, **more}
    )
    assert status == 200, body
    await ok(client, "restore", "--empty", boot=boot)
    await ok(client, "go", boot=boot, stdin=json.dumps({"env": {"API_SERVER_KEY": KEY}}).encode())
    while json.loads(await ok(client, "status", boot=boot))["state"] != "running":
        await asyncio.sleep(0.05)
    return body["ports"]


async def ok(client: Client, word: str, *more: str, boot: str = "boot-1", **order: object) -> bytes:
    """Run a command of the sandbox that must succeed and return what it prints."""
    done = await client.exec("sandbox", word, "--boot", boot, *more, **order)
    assert isinstance(done, Done), done
    assert done.code == 0, done
    return done.out


def gone(pids: "set[int]") -> bool:
    """Tell whether none of these processes lives."""
    return not any(alive(pid) for pid in pids)

# SPDX-License-Identifier: Apache-2.0
"""The engine in this process, where each of its steps can be held up, ended or refused: nothing is left behind."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine import disks, processes, sandbox, sandbox_link, snapshots
from engine.disks import Disks
from engine.engine import Engine
from engine.errors import EngineError
from engine.exec import _Pipes
from engine.images import Images
from engine.snapshots import Snapshots, Stopped

from tests.processes import alive

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="looks for survivors in /proc"
)
# A first process that hears nothing of what it is told, and sees no end of its link.
STAYS = "trap '' TERM; sleep 3600 & wait; wait"


class Here:
    """An engine of this process with an image whose first process is a script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: set[str] = set()
        self.images = Images(str(folder / "images"))
        for name in ("disks", "snapshots"):
            (folder / name).mkdir()
        self.snapshots = Snapshots(str(folder / "snapshots"))
        self.image("one", STAYS)
        self.engine = Engine(
            self.images, Disks(str(folder / "disks")), self.snapshots, [18789], "never"
        )

    def image(self, digest: str, script: str) -> None:
        """Make an image."""
        programs = self.folder / "images" / digest / "bin"
        programs.mkdir(parents=True)
        (programs / "first").write_text(f"#!/bin/sh\n{script}\n")
        (programs / "first").chmod(0o755)
        described = {"digest": digest, "entrypoint": ["first"]}
        (programs.parent / "image.json").write_text(json.dumps(described))

    def left(self) -> list[str]:
        """Return what there is of sandboxes: disks, their folders in memory, half of a snapshot."""
        shared = Path("/dev/shm")
        names = {path.name for path in (self.folder / "disks").iterdir()}
        half = [
            path
            for path in (self.folder / "snapshots").iterdir()
            if not (path / "snapshot.json").exists()
        ]
        return [*names, *(path.name for path in half)] + [
            path.name
            for path in shared.iterdir()
            if path.name.removeprefix("hermes-run-") in self.made
        ]

    def run(self, test: Callable[[Engine], Awaitable[None]]) -> None:
        """Run a test, after which nothing of a sandbox may be left."""

        async def all_of_it() -> None:
            try:
                await asyncio.wait_for(test(self.engine), 20)
            finally:
                await asyncio.wait_for(self.engine.destroy(), 5)

        asyncio.run(all_of_it())
        assert self.left() == []


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    made = Here(tmp_path)
    new = Disks.new

    def noted(of: Disks) -> disks.Disk:
        disk = new(of)
        made.made.add(disk.id)
        return disk

    monkeypatch.setattr(Disks, "new", noted)
    yield made
    for name in made.made:
        processes.kill_marked(name)


async def refused(call: Awaitable[Any]) -> tuple[int, str]:
    with pytest.raises(EngineError) as caught:
        await call
    return caught.value.status, caught.value.code


def first(engine: Engine) -> int:
    """Return the pid of the first process."""
    process = engine.sandbox()._process
    assert process is not None
    return process.pid


def test_a_first_process_that_does_not_end_with_its_link_is_killed(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "END_TIME", 0.05)

    async def test(engine: Engine) -> None:
        await engine.start({"image": "one"})
        pid, watch = first(engine), asyncio.ensure_future(engine.monitor())
        await asyncio.sleep(0)
        await engine.destroy()
        assert not alive(pid)
        assert (await watch)["exitCode"] == 137
        assert here.left() == []

    here.run(test)


def test_one_that_does_not_end_when_it_is_told_is_destroyed(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "END_TIME", 0.05)
    monkeypatch.setattr(sandbox, "KILL_AFTER_TERM", 0.05)

    async def test(engine: Engine) -> None:
        await engine.start({"image": "one"})
        pid = first(engine)
        await engine.close()
        assert not alive(pid)
        # And none starts any more.
        assert await refused(engine.start({"image": "one"})) == (409, "already_running")

    here.run(test)


def test_a_start_whose_link_the_system_refuses_leaves_nothing(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "END_TIME", 0.05)
    begun: list[int] = []

    def refuse(link: Any) -> None:
        link.theirs.close()
        begun.append(first(here.engine))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sandbox.SandboxLink, "listen", refuse)

    async def test(engine: Engine) -> None:
        assert await refused(engine.start({"image": "one"})) == (507, "disk_full")
        assert here.left() == [] and not alive(begun[0])
        assert engine.describe()["running"] is False

    here.run(test)


def test_a_start_without_a_first_process_leaves_nothing(here: Here) -> None:
    (here.folder / "images" / "one" / "bin" / "first").chmod(0o644)

    async def test(engine: Engine) -> None:
        with pytest.raises(PermissionError):
            await engine.start({"image": "one"})
        assert here.left() == []

    here.run(test)


class Held:
    """Something that copies and is held up until it is told to go on, or to stop."""

    def __init__(self) -> None:
        self.begun, self.go_on, self.ended = (threading.Event() for _ in range(3))
        self.deaf = False

    def __call__(self, source: str, target: str, stop: threading.Event) -> int:
        os.mkdir(target)
        (Path(target) / "half").touch()
        self.begun.set()
        while not (self.go_on.wait(0.01) or (stop.is_set() and not self.deaf)):
            pass
        self.ended.set()
        if stop.is_set() and not self.deaf:
            raise Stopped
        return 7

    async def has_begun(self) -> None:
        await asyncio.to_thread(self.begun.wait, 30)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """Hold up each copy of a disk."""
    made = Held()
    monkeypatch.setattr(snapshots, "copy_tree", made)
    yield made
    made.go_on.set()


def with_pauses(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Have every process be paused, and note when."""
    paused: list[bool] = []

    async def pause(_link: object, stop: bool) -> bool:
        paused.append(stop)
        return True

    monkeypatch.setattr(sandbox.SandboxLink, "pause", pause)
    return paused


@pytest.mark.parametrize("how", ["destroyed", "its first process dies", "nobody waits"])
def test_a_snapshot_that_meets_the_end_of_its_sandbox_leaves_no_half(
    here: Here, held: Held, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(sandbox, "END_TIME", 0.05)
    paused = with_pauses(monkeypatch)

    async def test(engine: Engine) -> None:
        await engine.start({"image": "one"})
        taken = asyncio.ensure_future(engine.snapshot({"name": "x"}))
        await held.has_begun()
        if how == "nobody waits":
            taken.cancel()
            with pytest.raises(asyncio.CancelledError):
                await taken
            # The copy has ended before anything goes on, and the sandbox lives.
            assert held.ended.is_set() and alive(first(engine))
        else:
            if how == "destroyed":
                await engine.destroy()
            else:
                os.kill(first(engine), 9)
            assert await refused(taken) == (409, "destroyed")
        assert paused == [True, False]
        assert not any((here.folder / "snapshots").iterdir())

    here.run(test)


def test_no_disk_is_copied_when_pid_1_does_not_pause(
    here: Here, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "END_TIME", 0.05)
    monkeypatch.setattr(sandbox_link, "PAUSE_TIME", 0.05)

    async def test(engine: Engine) -> None:
        await engine.start({"image": "one"})
        assert await refused(engine.snapshot({})) == (503, "not_paused")
        assert not held.begun.is_set()

    here.run(test)


def test_of_two_snapshots_none_lets_go_what_the_other_copies(
    here: Here, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "END_TIME", 0.05)
    paused = with_pauses(monkeypatch)

    async def test(engine: Engine) -> None:
        await engine.start({"image": "one"})
        one, other = (asyncio.ensure_future(engine.snapshot({"name": name})) for name in "ab")
        await held.has_begun()
        held.go_on.set()
        assert {(await one)["name"], (await other)["name"]} == {"a", "b"}
        assert paused == [True, False, True, False]

    here.run(test)


@pytest.mark.parametrize("how", ["destroyed", "closed", "destroyed when it was filled"])
def test_a_start_that_is_ended_while_its_disk_is_filled_leaves_nothing(
    here: Here, held: Held, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    identity = "0" * 32
    folder = here.folder / "snapshots" / identity
    folder.mkdir()
    Snapshots._describe(str(folder), {"id": identity, "size": 1, "name": "", "image": "one"})

    held.deaf = how == "destroyed when it was filled"

    async def test(engine: Engine) -> None:
        started = asyncio.ensure_future(engine.start({"containerSnapshot": {"id": identity}}))
        await held.has_begun()
        assert len(here.left()) == 2  # its disk, and its folder in memory
        # Whoever starts another one meanwhile waits until nothing is left of this one.
        ended = asyncio.ensure_future(engine.close() if how == "closed" else engine.destroy())
        await asyncio.sleep(0)
        held.go_on.set()
        next_one = asyncio.ensure_future(engine.start({"image": "one"}))
        assert await refused(started) == (409, "destroyed")
        await ended
        if how == "closed":
            assert await refused(next_one) == (409, "already_running")
        else:
            assert set(await next_one) == {"ports"}
            (disk,) = (here.folder / "disks").iterdir()
            assert not (disk / "disk" / "half").exists()

    monkeypatch.setattr(sandbox, "END_TIME", 0.05)
    here.run(test)


def test_a_copy_that_the_disk_has_no_room_for_is_told_and_leaves_no_half(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "END_TIME", 0.05)
    paused = with_pauses(monkeypatch)

    def full(_descriptor: object, _what: int, _other: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def test(engine: Engine) -> None:
        await engine.start({"image": "one"})
        home = next((here.folder / "disks").iterdir()) / "disk" / "home"
        (home / "file").write_text("x")
        with monkeypatch.context() as no_room:
            no_room.setattr("fcntl.ioctl", full)
            assert await refused(engine.snapshot({})) == (507, "disk_full")
        assert not any((here.folder / "snapshots").iterdir())
        assert paused == [True, False] and alive(first(engine))
        identity = (await engine.snapshot({"name": "later"}))["id"]
        assert (here.folder / "snapshots" / identity / "disk" / "home" / "file").read_text() == "x"

    here.run(test)


@pytest.mark.parametrize("name", [7, "x" * 257, None], ids=["number", "long", "none"])
def test_a_name_of_a_snapshot_that_is_none_is_refused(here: Here, name: object) -> None:
    async def test(engine: Engine) -> None:
        assert await refused(engine.snapshot({"name": name})) == (400, "invalid")

    here.run(test)


@pytest.mark.parametrize("number", [0, 32, "15", None])
def test_a_signal_that_is_none_is_refused(here: Here, number: object) -> None:
    with pytest.raises(EngineError, match="from 1 to 31"):
        here.engine.signal({"signal": number})


def test_the_time_of_a_sandbox_that_ended_is_not_that_of_the_next(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "END_TIME", 0.05)

    async def test(engine: Engine) -> None:
        await engine.start({"image": "one"})
        engine.set_inactivity_timeout({"ms": 3_600_000})
        timer = engine._timer
        assert timer is not None and not timer.cancelled()
        await engine.destroy()
        assert timer.cancelled()
        await engine.start({"image": "one"})
        engine.touch()
        assert engine._timer is None

    here.run(test)


def test_when_its_time_is_over_it_ends(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "END_TIME", 0.05)
    monkeypatch.setattr(sandbox, "KILL_AFTER_TERM", 0.05)

    async def test(engine: Engine) -> None:
        await engine.start({"image": "one"})
        watch = asyncio.ensure_future(engine.monitor())
        await asyncio.sleep(0)
        engine.set_inactivity_timeout({"ms": 1})
        assert (await watch)["exitCode"] == 137

    here.run(test)


def descriptors() -> int:
    """Count what this process has open."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("room", [1, 2], ids=["stdout", "stderr"])
def test_a_command_without_a_descriptor_left_leaves_none(
    monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    pipe, before = os.pipe, descriptors()
    made: list[tuple[int, int]] = []

    def refuse() -> tuple[int, int]:
        if len(made) == room:
            raise OSError(errno.EMFILE, "Too many open files")
        made.append(pipe())
        return made[-1]

    monkeypatch.setattr(os, "pipe", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        _Pipes("pipe", "pipe")
    assert descriptors() == before


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_copy_of_a_disk_has_all_that_means_something_without_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    monkeypatch.setattr(snapshots.sys, "platform", platform)
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    (source / "folder" / "run.sh").write_text("echo")
    (source / "folder" / "run.sh").chmod(0o750)
    (source / "link").symlink_to("nowhere")
    os.mkfifo(source / "pipe")
    os.utime(source / "folder", (7, 7))
    target = tmp_path / "target"
    assert snapshots.copy_tree(str(source), str(target), threading.Event()) == 4
    assert {path.name for path in target.rglob("*")} == {"folder", "run.sh", "link"}
    copy = target / "folder" / "run.sh"
    assert (copy.read_text(), copy.stat().st_mode & 0o777) == ("echo", 0o750)
    assert copy.stat().st_ino != (source / "folder" / "run.sh").stat().st_ino
    assert os.readlink(target / "link") == "nowhere"
    assert (target / "folder").stat().st_mtime == 7

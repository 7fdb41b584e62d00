# SPDX-License-Identifier: Apache-2.0
"""The link to PID 1, whose other end says what it wants, half of it or nothing."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from engine import sandbox_link
from engine.errors import EngineError
from engine.sandbox_link import SandboxLink

ORDER = {"cmd": ["true"], "env": {}, "cwd": None}


class First:
    """What stands for PID 1 at the other end of a link."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.end.settimeout(0)
        self.text = b""
        self.lent: list[int] = []

    async def order(self) -> dict[str, Any]:
        """Return what comes next."""
        while b"\n" not in self.text:
            with suppress(BlockingIOError):
                text, descriptors, _flags, _address = socket.recv_fds(self.end, 1 << 20, 16)
                assert text, "the link is closed"
                self.text, self.lent = self.text + text, self.lent + descriptors
            await asyncio.sleep(0)
        line, self.text = self.text.split(b"\n", 1)
        return json.loads(line)

    def say(self, *words: object) -> None:
        """Answer, a line for each; bytes go as they are."""
        for word in words:
            self.end.sendall(word if isinstance(word, bytes) else json.dumps(word).encode() + b"\n")

    def leave(self) -> None:
        """Let go of the link, and of what came over it."""
        self.end.close()
        while self.lent:
            os.close(self.lent.pop())


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[SandboxLink, First]]:
    """Have a link and who is at its other end."""
    link = SandboxLink()
    first = First(socket.socket(fileno=os.dup(link.theirs.fileno())))
    link.listen()
    try:
        yield link, first
    finally:
        link.close()
        first.leave()


def run(test: Callable[[SandboxLink, First], Coroutine[Any, Any, None]]) -> None:
    """Run a test with a link of its own, in which nothing fails unseen."""
    unseen: list[object] = []

    async def all_of_it() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, told: unseen.append(told))
        async with linked() as (link, first):
            await asyncio.wait_for(test(link, first), 20)

    asyncio.run(all_of_it())
    assert unseen == []


def begun(link: SandboxLink, **more: object) -> tuple[asyncio.Task[Any], int]:
    """Begin to start a process, and return with it what shows that its descriptor was closed here."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    return asyncio.ensure_future(link.execute({**ORDER, **more}, [writer])), reader


def closed(reader: int) -> bool:
    """Tell whether nobody holds the other end of a pipe."""
    try:
        return os.read(reader, 1) == b""
    except BlockingIOError:
        return False
    finally:
        os.close(reader)


async def refused(task: asyncio.Task[Any]) -> tuple[int, str]:
    with pytest.raises(EngineError) as caught:
        await task
    return caught.value.status, caught.value.code


def test_an_answer_may_come_in_any_pieces_and_beside_others() -> None:
    async def test(link: SandboxLink, first: First) -> None:
        one, reader = begun(link)
        number = (await first.order())["id"]
        # Of processes that nobody waits for, and what is no answer at all.
        first.say({"id": 99, "pid": 1}, {"id": 99, "exit": 0}, {"id": 99, "error": "x"}, {"new": 1})
        whole = json.dumps({"id": number, "pid": 17}).encode() + b"\n"
        first.say(whole[:9])
        while waits(link._ours):
            await asyncio.sleep(0)
        assert not one.done()
        first.say(whole[9:] + b'{"id": %d, "exit": 3}' % number)
        told, pid, ended = await one
        assert (told, pid, ended.done()) == (number, 17, False)
        first.say(b"\n")
        assert await ended == 3
        first.leave()
        assert closed(reader)

    run(test)


@pytest.mark.parametrize("said", [b"", b'{"id": 1, "pi', b'{"id": 1, "pid": 17}\n{"id": 1, "ex'])
def test_a_first_process_that_goes_in_the_middle_of_a_word_ends_all_that_waits(said: bytes) -> None:
    async def test(link: SandboxLink, first: First) -> None:
        one, reader = begun(link)
        other, second = begun(link)
        await first.order()
        await first.order()
        first.say(said)
        first.leave()
        if b"\n" in said:  # it was started, and how it ended nobody will ever say
            _number, _pid, ended = await one
            with pytest.raises(asyncio.CancelledError):
                await ended
        else:
            assert await refused(one) == (409, "not_running")
        assert await refused(other) == (409, "not_running")
        assert closed(reader) and closed(second)
        # From now on at once, and no order waits for anybody.
        third, reader = begun(link)
        assert await refused(third) == (409, "not_running")
        assert closed(reader)
        link.signal(15)
        link.kill(1)
        assert await link.pause(True)

    run(test)


def test_a_first_process_that_goes_without_a_look_at_its_orders_is_gone_too() -> None:
    """What it has not read makes an error of the end of the connection."""

    async def test(link: SandboxLink, first: First) -> None:
        one, reader = begun(link)
        while not waits(first.end):
            await asyncio.sleep(0)
        first.leave()
        assert await refused(one) == (409, "not_running")
        assert closed(reader)

    run(test)


def waits(end: socket.socket) -> bool:
    """Tell whether there is something to read."""
    with suppress(BlockingIOError):
        return bool(end.recv(1, socket.MSG_PEEK))
    return False


def test_a_command_that_is_too_long_never_reaches_it() -> None:
    async def test(link: SandboxLink, first: First) -> None:
        long, reader = begun(link, cmd=["x" * sandbox_link.ORDER_LIMIT])
        assert await refused(long) == (413, "too_large")
        assert closed(reader)
        link.signal(9)
        assert await first.order() == {"kill": 1}  # no harm: nothing has that number
        assert await first.order() == {"signal": 9}

    run(test)


def test_a_command_that_is_not_there_is_told_to_who_asked_and_to_nobody_else() -> None:
    async def test(link: SandboxLink, first: First) -> None:
        one, reader = begun(link)
        other, second = begun(link)
        numbers = [(await first.order())["id"] for _ in range(2)]
        first.say({"id": numbers[0], "error": "true: No such file"}, {"id": numbers[1], "pid": 5})
        with pytest.raises(EngineError, match="true: No such file"):
            await one
        assert (await other)[1] == 5
        first.leave()
        assert closed(reader) and closed(second)

    run(test)


@pytest.mark.parametrize("answer", [{"pid": 17}, {"error": "no"}, {"exit": 0}])
def test_who_goes_away_before_it_began_has_its_process_killed(answer: dict[str, object]) -> None:
    async def test(link: SandboxLink, first: First) -> None:
        one, reader = begun(link)
        number = (await first.order())["id"]
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        assert await first.order() == {"kill": number}
        first.say({"id": number, **answer}, {"paused": True})
        # The link goes on for the others.
        pausing = asyncio.ensure_future(link.pause(False))
        assert await first.order() == {"pause": False}
        first.say({"paused": False})
        assert await pausing
        first.leave()
        assert closed(reader)

    run(test)


def test_orders_that_it_does_not_read_end_with_it() -> None:
    async def test(link: SandboxLink, first: First) -> None:
        long = "x" * (sandbox_link.ORDER_LIMIT - 200)
        tasks = [begun(link, cmd=[f"{number}", long]) for number in range(12)]
        for number in range(4):
            assert (await first.order())["cmd"] == [f"{number}", long]
        assert len(first.lent) >= 4
        first.leave()
        for task, reader in tasks:
            assert await refused(task) == (409, "not_running")
            assert closed(reader)

    run(test)


def test_a_pause_that_ends_with_the_sandbox_holds_nobody_up() -> None:
    async def test(link: SandboxLink, first: First) -> None:
        pausing = asyncio.ensure_future(link.pause(True))
        await first.order()
        first.leave()
        await asyncio.wait_for(pausing, 5)

    run(test)

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cloudflare's limit of calls, kept by all processes of this machine together.

Cloudflare counts each token's calls over five minutes and blocks it for the next five when there are too many. So the
times of the last 1,200 calls are kept in a file: a call goes out no earlier than five minutes after the call that was
1,200 before it. That is exact for every window, unlike a bucket that refills while it is emptied.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CALLS = 1200
SECONDS = 300.0
LONG = 5.0
"""Seconds of waiting that are worth a word to whoever watches."""
FAR = 3600.0
"""Seconds that no booking lies ahead: 14,400 calls."""

# Number of calls so far; the time before which nobody may call. The ring of times follows.
HEAD = struct.Struct("<Qd")
SLOT = struct.Struct("<d")


class Budget:
    """The right to call, shared through a locked file. Usable by any number of processes at once."""

    def __init__(
        self, folder: str | Path, token: str, calls: int = CALLS, seconds: float = SECONDS
    ) -> None:
        """folder: for the file, made when missing; token: whose calls are counted (its digest names the file)."""
        name = hashlib.sha256(f"hermes.workers budget\0{token}".encode()).hexdigest()[:16]
        self.path = Path(folder) / f"calls-{name}"
        self.calls = calls
        self.seconds = seconds

    def take(self, calls: int = 1, tell: Callable[[str], None] | None = None) -> None:
        """Wait until so many calls may be sent, and count them.

        calls: more than one for a program that makes several by itself, such as wrangler.
        tell: takes a line to show when the wait is long.
        """
        wait = self._book(calls) - time.time()
        if wait >= LONG and tell:
            tell(
                f"waiting {wait:.0f} s: Cloudflare takes {self.calls} calls in {self.seconds:.0f} s"
            )
        if wait > 0:
            time.sleep(wait)

    def hold(self, seconds: float) -> None:
        """Let nobody call for so long, because Cloudflare said so."""
        with self._locked() as file:
            until = max(time.time() + seconds, self._not_before(file))
            os.pwrite(file, HEAD.pack(self._count(file), until), 0)

    def _book(self, calls: int) -> float:
        """Put the calls into the ring at the earliest time that has room, and return that time.

        The time is booked now and waited for afterwards, so that nobody holds the lock while waiting.
        """
        with self._locked() as file:
            count, not_before = self._count(file), self._not_before(file)
            at = max(time.time(), not_before)
            for number in range(count, count + calls):
                place = HEAD.size + number % self.calls * SLOT.size
                at = max(at, _time(os.pread(file, SLOT.size, place)) + self.seconds)
                os.pwrite(file, SLOT.pack(at), place)
            os.pwrite(file, HEAD.pack(count + calls, not_before), 0)
        return at

    def _count(self, file: int) -> int:
        head = os.pread(file, HEAD.size, 0)
        return HEAD.unpack(head)[0] if head else 0

    def _not_before(self, file: int) -> float:
        return _time(os.pread(file, SLOT.size, HEAD.size - SLOT.size))

    @contextmanager
    def _locked(self) -> Iterator[int]:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)


def _time(stored: bytes) -> float:
    """Return a stored time; 0 for none, and for one that only a clock that was set back can explain."""
    value = SLOT.unpack(stored)[0] if stored else 0.0
    return value if value < time.time() + FAR else 0.0

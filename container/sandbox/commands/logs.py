# SPDX-License-Identifier: Apache-2.0
"""`sandbox logs`: the last lines of Hermes' own log and of what its process printed."""

import fcntl
import json
import os
import sys
import time
from typing import BinaryIO

from sandbox.paths import FOLLOWERS, Paths, read_text

_TAIL = 1 << 20
_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL")


def logs(paths: Paths, lines: int, follow: bool) -> None:
    """Print the last `lines` lines of each log; with `follow`, what is added until PID 1 ends."""
    sources = [
        _Source(os.path.join(paths.home, "logs", "agent.log"), lines),
        _Source(paths.in_run("hermes.log"), lines),
    ]
    with open(paths.in_run(FOLLOWERS), "w") as lock:
        if follow:
            fcntl.flock(lock, fcntl.LOCK_SH)  # PID 1 waits a moment for us when it ends
        while True:
            ended = not follow or paths.state().get("ended")
            text = b"".join(source.read() for source in sources)
            if text:
                sys.stdout.buffer.write(_redact(paths, text))
                sys.stdout.buffer.flush()
            if ended:
                return
            time.sleep(0.1)


class _Source:
    """A log file that grows and may be replaced."""

    def __init__(self, path: str, lines: int) -> None:
        self._path = path
        self._lines = lines
        self._offset: int | None = None
        self._inode = 0

    def read(self) -> bytes:
        """Return the complete lines that are new; at first, the last ones."""
        try:
            with open(self._path, "rb") as file:
                return self._read(file)
        except FileNotFoundError:
            self._offset = self._offset or 0
            return b""

    def _read(self, file: BinaryIO) -> bytes:
        status = os.fstat(file.fileno())
        offset = self._offset
        first = offset is None
        if offset is None:
            offset = max(0, status.st_size - _TAIL)
        elif status.st_ino != self._inode or status.st_size < offset:
            offset = 0
        self._inode = status.st_ino
        file.seek(offset)
        text = file.read(_TAIL)
        text = text[: text.rfind(b"\n") + 1]
        self._offset = offset + len(text)
        if not first:
            return text
        return b"".join(text.splitlines(keepends=True)[-self._lines :]) if self._lines else b""


def _redact(paths: Paths, text: bytes) -> bytes:
    """Put *** for the values of this boot's keys."""
    environ = json.loads(read_text(paths.in_run("env.json")) or "{}")
    for name, value in environ.items():
        if len(value) >= 8 and any(word in name.upper() for word in _SECRET_WORDS):
            text = text.replace(value.encode(), b"***")
    return text

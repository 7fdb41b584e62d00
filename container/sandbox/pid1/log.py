# SPDX-License-Identifier: Apache-2.0
"""What Hermes prints: passed on to PID 1's own output and kept, within bounds, in memory."""

import os

LIMIT = 512 * 1024


class Log:
    """A log of at most two files of LIMIT bytes: `path` and `path`.1."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: int | None = None
        self._size = 0

    def pump(self, reader: int) -> bool:
        """Write what is readable now; False when the writers have gone."""
        while True:
            try:
                data = os.read(reader, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.write(data)

    def write(self, data: bytes) -> None:
        """Append to the log and pass on. A log that cannot be written stops nothing."""
        for put in (self._keep, _pass_on):
            try:
                put(data)
            except OSError:
                continue

    def _keep(self, data: bytes) -> None:
        if self._file is not None and self._size > LIMIT:
            os.close(self._file)
            self._file = None
            os.rename(self._path, f"{self._path}.1")
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._size = os.fstat(self._file).st_size
        self._size += os.write(self._file, data)


def _pass_on(data: bytes) -> None:
    os.write(1, data)

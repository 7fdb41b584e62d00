# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Standard output and errors of a play: line by line, and nothing that ends or stops it where they cannot be written.

Ansible takes its results in a thread that an error of the screen ends, and would then wait for them for ever.
"""

from __future__ import annotations

import errno
import io
import select
import sys
from typing import Any


class Stream(io.FileIO):
    """One of the two. What cannot be written is let go."""

    lost: OSError | None = None
    """The first error; a reader who had enough (`make status | head`) made none."""

    def write(self, data: Any, /) -> int:
        """Write what can be written, and take the rest as well; returns how many bytes were taken."""
        try:
            while (taken := super().write(data)) is None:
                # Somebody else who writes there made it one that does not wait.
                select.select([], [self], [])
            return taken
        except OSError as error:
            if error.errno != errno.EPIPE:
                self.lost = self.lost or error
            return len(data)


def install() -> dict[str, Stream]:
    """Put them in the place of Python's own; returns them by the names that people know them by."""
    streams = {
        "standard output": Stream(sys.stdout.fileno(), "w", closefd=False),
        "standard error": Stream(sys.stderr.fileno(), "w", closefd=False),
    }
    sys.stdout, sys.stderr = (
        # What waits for a full buffer is no sign of life for whoever reads through a pipe.
        io.TextIOWrapper(
            io.BufferedWriter(stream), before.encoding, before.errors, line_buffering=True
        )
        for stream, before in zip(streams.values(), (sys.stdout, sys.stderr), strict=True)
    )
    return streams

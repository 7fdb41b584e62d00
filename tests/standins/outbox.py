# SPDX-License-Identifier: Apache-2.0
"""What stand-ins of messengers were given to send, and how a test waits for it."""

from __future__ import annotations

import threading
from typing import Generic, Protocol, TypeVar

from .multipart import File


class Message(Protocol):
    """One message that was sent."""

    file: File | None


M = TypeVar("M", bound=Message)


class Outbox(Generic[M]):
    """Of a stand-in that notes in `sent` what it took, and tells of it by `_changed`."""

    sent: list[M]
    _changed: threading.Condition

    def await_file(self, name: str, seconds: float = 120.0) -> M:
        """Return the first file of a name that was sent. Raises AssertionError without one in time."""

        def found() -> list[M]:
            return [one for one in self.sent if one.file is not None and one.file.name == name]

        with self._changed:
            if self._changed.wait_for(found, seconds):
                return found()[0]
        raise AssertionError(f"no file {name!r}: {self.sent}")

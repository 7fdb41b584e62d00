# SPDX-License-Identifier: Apache-2.0
"""`.declared.json` in Hermes' home: what was laid there, so that what became of it can be told."""

from __future__ import annotations

import json
import os

from sandbox.paths import DECLARED, write_private

# For type checkers only: see cli.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMAT = 1


class Record:
    """What is known of each item that is or was declared.

    `archive` is the digest of the declaration that is laid. `unfinished`: a laying was begun and
    is not over, so that each of its items is as it was, as it shall be, or gone for a moment.
    An item: "want" (the digest declared, None when it no longer is), "laid" (the digest of what we
    left there, None when it was not us), "next" (of what is being laid), "found" (equal to
    what was declared before we came: not ours to remove), and of a job its "id", "ends" and "of"
    (the digest declared of what is there); "left": why it could not be laid, and is tried again.
    """

    def __init__(self, home: str) -> None:
        self._path = os.path.join(home, DECLARED)
        self.archive = ""
        self.unfinished = False
        self.items: dict[str, dict[str, Any]] = {}
        if os.path.isfile(self._path):
            self._read()

    def has(self, digest: str) -> bool:
        """Tell whether just this declaration was laid, to its end and all of it."""
        left = any(item.get("left") for item in self.items.values())
        return self.archive == digest and not self.unfinished and not left

    def write(self) -> None:
        """Put it into the home, or take it away when there is nothing to remember."""
        if self.archive or self.unfinished or self.items:
            written = {
                "format": FORMAT,
                "archive": self.archive,
                "unfinished": self.unfinished,
                "items": self.items,
            }
            write_private(self._path, json.dumps(written, sort_keys=True))
        elif os.path.lexists(self._path):
            os.unlink(self._path)

    def _read(self) -> None:
        """Read what can be: it lies where the agent may write, and then nothing of it is known."""
        try:
            with open(self._path, encoding="utf-8") as file:
                told = json.load(file)
            if told["format"] != FORMAT:
                return
            items = told["items"].items()
            self.items = {name: {"laid": None, "want": None, **item} for name, item in items}
            self.archive, self.unfinished = str(told["archive"]), bool(told["unfinished"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self.items = {}

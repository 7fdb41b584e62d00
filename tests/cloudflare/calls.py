# SPDX-License-Identifier: Apache-2.0
"""The log of calls, without any secret in it."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

TOKEN = web.RequestKey("token", str)
BODY = web.RequestKey("body", object)
"""What the log shall say of a request: whose it is, and what was sent, without secrets."""

HARMLESS = ("/credentials", "/domains/changeset", "/image-preparations")
"""Ends of paths that are posted to and change nothing that lasts."""


@dataclass
class Record:
    """One call. `status` is 0 when the connection was cut, `token` the token's id."""

    at: str
    token: str
    method: str
    host: str
    path: str
    query: str
    body: Any
    status: int
    write: bool

    def __str__(self) -> str:
        return f"{self.method} {self.host}{self.path} {self.status}"


class Calls:
    """All calls since the start, in memory and in a file of one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: list[Record] = []
        self._lock = threading.Lock()
        path.write_text("", encoding="utf-8")

    def add(self, record: Record) -> None:
        """Note one call."""
        with self._lock:
            self._records.append(record)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(record)) + "\n")

    def since(self, start: int = 0) -> list[Record]:
        """Return the calls from the start-th on."""
        with self._lock:
            return self._records[start:]

    def __len__(self) -> int:
        return len(self._records)


def is_write(method: str, path: str) -> bool:
    """Tell whether a call of the control plane may change something that lasts."""
    return method not in ("GET", "HEAD", "OPTIONS") and not path.endswith(HARMLESS)


def scrubbed(body: Any) -> Any:
    """Return a body with the values of secrets left out."""
    if isinstance(body, list):
        return [scrubbed(one) for one in body]
    if not isinstance(body, dict):
        return body
    kept = {name: scrubbed(value) for name, value in body.items()}
    if body.get("type") in ("secret_text", "secret_key"):
        kept = {name: value for name, value in kept.items() if name in ("name", "type")}
    return kept

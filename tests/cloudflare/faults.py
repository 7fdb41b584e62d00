# SPDX-License-Identifier: Apache-2.0
"""Faults that a test orders: what to do to which call."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass

FOREVER = 1_000_000_000


@dataclass(frozen=True)
class Kind:
    """One way to fail: an HTTP status (0 cuts the connection), before the call has its effect or after."""

    status: int
    after_effect: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    hangs: bool = False


KINDS = {
    "rate-limit": Kind(429, headers=(("Retry-After", "1"),)),
    "error": Kind(500),
    "unavailable": Kind(503),
    "error-after": Kind(500, after_effect=True),
    "timeout": Kind(0, hangs=True),
    "cut-before": Kind(0),
    "cut-after": Kind(0, after_effect=True),
    # For the end of a run at an exact call: nobody sends these again.
    "refused": Kind(400),
    "refused-after": Kind(400, after_effect=True),
}


@dataclass
class Order:
    """One ordered fault."""

    kind: Kind
    method: str = ""
    pattern: str = ""
    skip: int = 0
    """Matching calls that pass first."""
    every: int = 1
    times: int = FOREVER
    token: str = ""
    """Id of the API token whose calls are meant; empty: all."""

    def meets(self, method: str, where: str, token: str) -> bool:
        """Count a call, and tell whether it is to fail."""
        if self.times <= 0 or (self.method and self.method != method):
            return False
        if self.token and self.token != token:
            return False
        if not re.search(self.pattern, where):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.skip = self.every - 1
        self.times -= 1
        return True


class Faults:
    """The orders in force, by the names of KINDS."""

    def __init__(self) -> None:
        self._orders: list[Order] = []
        self._lock = threading.Lock()

    def after(self, n_calls: int, kind: str, times: int = FOREVER, token: str = "") -> None:
        """Let n calls of the API and the registry pass; from then on fail, so many times. token: id of whose calls."""
        self._add(Order(KINDS[kind], skip=n_calls, times=times, token=token))

    def every(self, nth: int, kind: str) -> None:
        """Fail every nth call."""
        self._add(Order(KINDS[kind], skip=nth - 1, every=nth))

    def on(self, method: str, path_pattern: str, kind: str, times: int = 1) -> None:
        """Fail calls of a method (empty: any) whose host and path hold a regular expression."""
        self._add(Order(KINDS[kind], method, path_pattern, times=times))

    def clear(self) -> None:
        """Drop every order."""
        with self._lock:
            self._orders.clear()

    def _add(self, order: Order) -> None:
        with self._lock:
            self._orders.append(order)

    def meet(self, method: str, where: str, edge: bool = False, token: str = "") -> Kind | None:
        """Return how a call is to fail, if it is. Requests for Workers (`edge`) fail only where a pattern says so."""
        with self._lock:
            met = [
                order
                for order in self._orders
                if (order.pattern or not edge) and order.meets(method, where, token)
            ]
        return met[0].kind if met else None

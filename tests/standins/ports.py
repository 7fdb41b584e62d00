# SPDX-License-Identifier: Apache-2.0
"""Ports for what tests and benchmarks start.

A port that the system gives is soon another's: it comes from those that every connection of this machine takes for its
own end, and what was told to listen there comes seconds later, or comes back after a restart. These are below them, no
process gives one twice, each process begins somewhere else, and of those that run tests side by side each has a part of
its own: what one of them kills and starts again finds its port as it left it.
"""

from __future__ import annotations

import itertools
import os
import random
import socket

# What a system gives begins at 32768 on Linux, and at 49152 elsewhere.
_FIRST, _PORTS = 20_000, 12_000
_PARTS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_PART = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PARTS
_EACH = _PORTS // _PARTS
_NEXT = itertools.count(random.SystemRandom().randrange(_EACH))


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    while True:
        port = _FIRST + _PART * _EACH + next(_NEXT) % _EACH
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port

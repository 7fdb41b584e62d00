# SPDX-License-Identifier: Apache-2.0
"""Ports for what tests and benchmarks start.

A port that the system gives is soon another's: it comes from those that every connection of this machine takes for its
own end, and what was told to listen there comes seconds later, or comes back after a restart. These are below them, no
process gives one twice, and each process begins somewhere else.
"""

from __future__ import annotations

import itertools
import random
import socket

# What a system gives begins at 32768 on Linux, and at 49152 elsewhere.
_NEXT = itertools.count(random.SystemRandom().randrange(12_000))


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    while True:
        port = 20_000 + next(_NEXT) % 12_000
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port

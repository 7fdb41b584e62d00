# SPDX-License-Identifier: Apache-2.0
"""From a fresh checkout to a verified chat, and the same command again."""

from __future__ import annotations

from figure import Figure

from parts.checkout import fresh_checkout

# Seconds; the first with package registries near.
FIRST_GOAL, AGAIN_GOAL = 45.0, 6.0


def measure() -> list[Figure]:
    """Deploy on a machine that has none of the tools, and once more."""
    first_seconds: list[float] = []
    again_seconds: list[float] = []
    for _ in range(2):
        with fresh_checkout() as checkout:
            seconds, output = checkout.make("deploy")
            assert "deployed and verified" in output, output
            first_seconds.append(seconds)
            again_seconds += [checkout.make("deploy")[0] for _ in range(3)]
    return [
        Figure.of("fresh checkout to verified chat", first_seconds, "s", FIRST_GOAL),
        Figure.of("unchanged deploy", again_seconds, "s", AGAIN_GOAL),
    ]

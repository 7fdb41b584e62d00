# SPDX-License-Identifier: Apache-2.0
"""From a fresh checkout to a verified chat, and the same command again."""

from __future__ import annotations

import os

from figure import Figure

from parts.checkout import fresh_checkout

# Seconds on a machine with nothing else to do; the first with package registries near.
FIRST_GOAL, AGAIN_GOAL = 20.0, 1.0
# Seconds that its processes worked, which others on the machine hardly change.
WORK_GOAL = 1.5


def measure() -> list[Figure]:
    """Deploy on a machine that has none of the tools, and once more."""
    first_seconds: list[float] = []
    again_seconds: list[float] = []
    again_work: list[float] = []
    for _ in range(2):
        with fresh_checkout() as checkout:
            seconds, output = checkout.make("deploy")
            assert "deployed and verified" in output, output
            first_seconds.append(seconds)
            for _ in range(5):
                before = os.times()
                again_seconds.append(checkout.make("deploy")[0])
                after = os.times()
                again_work.append(
                    after.children_user
                    - before.children_user
                    + after.children_system
                    - before.children_system
                )
    return [
        Figure.of("fresh checkout to verified chat", first_seconds, "s", FIRST_GOAL),
        Figure.of("unchanged deploy", again_seconds, "s", AGAIN_GOAL),
        Figure.of("unchanged deploy, processor time", again_work, "s", WORK_GOAL),
    ]

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a month costs on Cloudflare, from its public prices; a bill may differ."""

from __future__ import annotations

# vCPU, GiB of memory, GB of disk.
SIZES = {
    "lite": (1 / 16, 0.25, 2),
    "basic": (1 / 4, 1, 4),
    "standard-1": (1 / 2, 4, 8),
    "standard-2": (1, 6, 12),
    "standard-3": (2, 8, 16),
    "standard-4": (4, 12, 20),
}
# Dollars per second, and what the Workers Paid plan includes in each month.
MEMORY, MEMORY_INCLUDED = 0.0000025, 25 * 3600
CPU, CPU_INCLUDED = 0.000020, 375 * 60
DISK, DISK_INCLUDED = 0.00000007, 200 * 3600
PLAN = 5
"""Dollars a month for the plan, once for all deployments of an account."""
DAYS = 365 / 12
USED = 1800
"""Seconds of use a day that the estimate assumes, in one sitting."""
DAY = 86400


def month(instance_type: str, sleep_after: int) -> float:
    """Return dollars a month for one sitting of half an hour a day. sleep_after: seconds of idleness before sleep."""
    cpus, memory, disk = SIZES[instance_type]
    awake = min(USED + sleep_after, DAY) * DAYS
    return (
        max(0.0, memory * awake - MEMORY_INCLUDED) * MEMORY
        + max(0.0, cpus * USED * DAYS - CPU_INCLUDED) * CPU
        + max(0.0, disk * awake - DISK_INCLUDED) * DISK
    )


def words(instance_type: str, sleep_after: int) -> str:
    """Return the estimate for people, with what a shorter idle time would save when that is much."""
    cost, short = month(instance_type, sleep_after), month(instance_type, 600)
    text = f"about ${cost:.2f} a month at half an hour of use a day, beyond the plan's ${PLAN}"
    if cost - short >= 1:
        text += f"; with hermes_sleep_after: 10m about ${short:.2f}"
    return text


def ran(instance_type: str, seconds: int) -> float:
    """Return dollars at most for the memory and disk of a sandbox that ran for so long.

    What the plan includes is not subtracted, because all deployments of the account share it; nor is the processor's
    time known here, which is billed by use.
    """
    _cpus, memory, disk = SIZES[instance_type]
    return seconds * (memory * MEMORY + disk * DISK)

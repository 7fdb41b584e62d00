# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a month costs on Cloudflare, from its public prices; a bill may differ."""

from __future__ import annotations

from ...module_utils.settings.settings import Settings

# vCPU, GiB of memory, GB of disk.
SIZES = {
    "lite": (1 / 16, 0.25, 2),
    "basic": (1 / 4, 1, 4),
    "standard-1": (1 / 2, 4, 8),
    "standard-2": (1, 6, 12),
    "standard-3": (2, 8, 16),
    "standard-4": (4, 12, 20),
}
# Dollars per second, and what the Workers Paid plan includes in each month: once for all that an account runs.
MEMORY, MEMORY_INCLUDED = 0.0000025, 25 * 3600
CPU, CPU_INCLUDED = 0.000020, 375 * 60
DISK, DISK_INCLUDED = 0.00000007, 200 * 3600
PLAN = 5
"""Dollars a month for the plan, once for all deployments of an account."""
DAYS = 365 / 12
USED = 1800
"""Seconds of use a day that the estimate assumes, in one sitting."""
DAY = 86400
JOB, JOB_USED = 180, 60
"""Seconds that a job keeps a sleeping Hermes awake: a start, the job (when it is in use), and the minute after."""
JOBS = 24
"""Jobs a day that the estimate of jobs assumes."""


def estimates(settings: Settings) -> list[str]:
    """Return what a card says of a month: of daily use, and of what else wakes Hermes."""
    size, sleep_after = settings.instance_type, settings.sleep_after
    has_dashboard = settings.dashboard and settings.dashboard_hostname
    idle = settings.dashboard_idle if has_dashboard else None
    return [words(size, sleep_after, settings.deployments), further(size, sleep_after, idle)]


def month(instance_type: str, sleep_after: int, deployments: int = 1) -> float:
    """Return dollars a month for one sitting of half an hour a day.

    sleep_after: seconds of idleness before sleep; deployments: of the account, which share what the plan includes.
    """
    cpus, memory, disk = SIZES[instance_type]
    awake = min(USED + sleep_after, DAY) * DAYS
    return (
        max(0.0, memory * awake - MEMORY_INCLUDED / deployments) * MEMORY
        + max(0.0, cpus * USED * DAYS - CPU_INCLUDED / deployments) * CPU
        + max(0.0, disk * awake - DISK_INCLUDED / deployments) * DISK
    )


def words(instance_type: str, sleep_after: int, deployments: int = 1) -> str:
    """Return the estimate for people, with what a shorter idle time would make of it when that is much."""
    cost, short = (month(instance_type, each, deployments) for each in (sleep_after, 600))
    text = f"about ${cost:.2f} a month at half an hour of use a day, beyond the plan's ${PLAN}"
    if deployments > 1:
        text += f" (what that includes is shared by {deployments} deployments)"
    if cost - short >= 1:
        text += f"; with hermes_sleep_after: 10m about ${short:.2f}"
    return text


def further(instance_type: str, sleep_after: int, dashboard_idle: int | None) -> str:
    """Return what wakes cost that no sitting contains. dashboard_idle: seconds; None where there is no dashboard."""
    cpus, _memory, _disk = SIZES[instance_type]
    jobs = JOBS * DAYS * (ran(instance_type, JOB) + cpus * JOB_USED * CPU)
    text = f"a job each hour about ${jobs:.2f} a month more"
    if dashboard_idle is not None:
        looks = DAYS * ran(instance_type, min(dashboard_idle + sleep_after, DAY))
        text += f", a forgotten dashboard each day about ${looks:.2f}"
    return text


def ran(instance_type: str, seconds: float) -> float:
    """Return dollars at most for the memory and disk of a sandbox that ran for so long.

    What the plan includes is not subtracted, because all deployments of the account share it; nor is the processor's
    time known here, which is billed by use.
    """
    _cpus, memory, disk = SIZES[instance_type]
    return seconds * (memory * MEMORY + disk * DISK)

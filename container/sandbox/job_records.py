# SPDX-License-Identifier: Apache-2.0
"""Hermes' cron jobs as it keeps them, and the home in which it does."""

from __future__ import annotations

import json
import os

# For type checkers only: see cli.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def home_in_use(home: str) -> str:
    """Return the home of the profile that Hermes was told to work in, else the home itself."""
    told = os.path.join(home, "active_profile")
    if not os.path.isfile(told):  # to open a pipe waits for whoever writes into it
        return home
    try:
        with open(told, encoding="utf-8") as file:
            profile = os.path.join(home, "profiles", os.path.basename(file.read().strip()))
    except (OSError, ValueError):
        return home
    return profile if os.path.isdir(profile) else home


def job_records(home: str) -> list[dict[str, Any]] | None:
    """Return the records of the jobs in a home; those that are none are skipped.

    None when there is a file of which nobody can tell what it says.
    """
    folder = os.path.join(home, "cron")
    path = os.path.join(folder, "jobs.json")
    if not os.path.isfile(path):
        no_way = os.path.lexists(folder) and not os.path.isdir(folder)
        return None if no_way or os.path.lexists(path) else []
    try:
        with open(path, encoding="utf-8-sig") as file:
            content = json.loads(file.read(), strict=False)
    except (OSError, ValueError, RecursionError):
        return None
    jobs = content.get("jobs") if isinstance(content, dict) else content
    return [job for job in jobs if isinstance(job, dict)] if isinstance(jobs, list) else None

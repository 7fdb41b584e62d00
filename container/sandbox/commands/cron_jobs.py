# SPDX-License-Identifier: Apache-2.0
"""Hermes' cron jobs, read as Hermes reads them: when the next is due, which run, which failed."""

from __future__ import annotations

import os
import sqlite3
import urllib.parse
from datetime import datetime
from typing import Any

from sandbox.job_records import home_in_use, job_records

_ERROR_LIMIT = 500


class CronJobs:
    """The jobs of the home that Hermes works in."""

    def __init__(self, home: str) -> None:
        home = home_in_use(home)
        self._folder = os.path.join(home, "cron")
        self._records = job_records(home) or []

    def next_run(self) -> int | None:
        """Return when the earliest is due as epoch seconds, None when none ever is.

        One whose time is missing or cannot be read is due at once: when Hermes looks at it next, it
        works the time out. What it has looked at and left so will not run.
        """
        times = []
        for job in self._records:
            if job.get("enabled", True):
                due = _epoch(job.get("next_run_at"))
                times.append(self._written() if due is None else due)
        known = [at for at in times if at is not None]
        return int(min(known)) if known else None

    def running(self, pid: int | None) -> int:
        """Count the runs that the Hermes with this process id has claimed or begun."""
        query = "SELECT count(*) FROM executions WHERE status IN ('claimed', 'running') AND pid = ?"
        rows = [] if pid is None else self._query(query, (pid,))
        return rows[0][0] if rows else 0

    def failed(self) -> dict[str, Any] | None:
        """Return the newest failure that no later run of its job made good, None without any.

        Of a job that is gone only the newest run of all counts.
        """
        runs = self._last_runs()
        newest = max((run["at"] for run in runs.values()), default=None)
        present = {str(job.get("id")) for job in self._records}
        failures = [
            run
            for job, run in runs.items()
            if run["error"] is not None and (job in present or run["at"] == newest)
        ]
        if not failures:
            return None
        last = max(failures, key=lambda run: run["at"])
        return {**last, "at": int(last["at"]), "error": last["error"][:_ERROR_LIMIT]}

    def _last_runs(self) -> dict[str, dict[str, Any]]:
        """Return the last run of each job: id, name, at, error (None when it went well)."""
        query = (
            "SELECT job_id, status, error, finished_at, max(claimed_at) FROM executions "
            "WHERE status IN ('completed', 'failed', 'unknown') GROUP BY job_id"
        )
        runs, claimed = {}, {}
        for job, status, error, finished, begun in self._query(query):
            claimed[job] = _epoch(begun) or 0.0
            well = status == "completed"
            runs[job] = {
                "id": job,
                "name": self._name(job),
                "at": _epoch(finished) or claimed[job],
                "error": None if well else str(error or status),
            }
        # The job's own record says more: that its answer was not delivered, for example.
        for job in self._records:
            name, at = str(job.get("id")), _epoch(job.get("last_run_at"))
            if at is not None and at >= claimed.get(name, 0.0):
                run = {"id": name, "name": self._name(name), "at": at, "error": _trouble(job)}
                runs[name] = run
        return runs

    def _name(self, job: str) -> str:
        """Return a job's name; one that ran its last time is gone, but its output begins with it."""
        for record in self._records:
            if str(record.get("id")) == job and record.get("name"):
                return str(record["name"])
        folder = os.path.join(self._folder, "output", os.path.basename(job))
        try:
            newest = max(os.listdir(folder))
            with open(os.path.join(folder, newest), encoding="utf-8") as file:
                heading = file.readline().removeprefix("# Cron Job:").strip()
            return heading.removesuffix("(FAILED)").strip() or job
        except (OSError, ValueError):
            return job

    def _written(self) -> float | None:
        """Return when the jobs were written, None when Hermes has looked at them since."""
        try:
            written = os.stat(os.path.join(self._folder, "jobs.json")).st_mtime
        except OSError:
            return None
        try:
            with open(os.path.join(self._folder, "ticker_last_success"), encoding="utf-8") as file:
                looked = float(file.read())
        except (OSError, ValueError):
            looked = 0.0
        return written if looked < written else None

    def _query(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        path = os.path.join(self._folder, "executions.db")
        if not os.path.exists(path):
            return []
        try:
            uri = f"file:{urllib.parse.quote(path)}?mode=ro"
            database = sqlite3.connect(uri, uri=True, timeout=2)
            try:
                return database.execute(query, values).fetchall()
            finally:
                database.close()
        except sqlite3.Error:
            return []


def _trouble(job: dict[str, Any]) -> str | None:
    if job.get("last_status") == "error":
        return str(job.get("last_error") or "error")
    undelivered = job.get("last_delivery_error")
    return f"its answer was not delivered: {undelivered}" if undelivered else None


def _epoch(text: object) -> float | None:
    """Return a time as Hermes writes it as epoch seconds; None when it is none."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        return None

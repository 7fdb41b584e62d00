# SPDX-License-Identifier: Apache-2.0
"""Cron jobs: when the next is due and which failed, read as Hermes reads them, record by record."""

import json
import os
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sandbox_box import Box

DUE = "2030-01-01T02:00:00+02:00"
LATER = "2030-01-02T00:00:00+00:00"
EVERY_HOUR = {"kind": "interval", "minutes": 60}


@pytest.fixture
def cron(box: Box) -> Path:
    """The folder of the jobs."""
    folder = box.pretend().home / "cron"
    folder.mkdir()
    return folder


def status(box: Box) -> dict:
    return json.loads(box.ok("status"))


def epoch(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def write(cron: Path, jobs: object) -> None:
    (cron / "jobs.json").write_text(json.dumps(jobs))


@pytest.mark.parametrize(
    "job",
    [
        {"enabled": True, "state": "scheduled", "next_run_at": DUE},
        {"enabled": True, "next_run_at": DUE},
        {"next_run_at": DUE},
        {"state": None, "next_run_at": DUE},
        {"state": "error", "next_run_at": DUE},
    ],
    ids=["whole", "no state", "bare", "empty state", "after an error"],
)
def test_a_job_that_hermes_would_run_is_the_next(box: Box, cron: Path, job: dict) -> None:
    others = [
        {"next_run_at": LATER},
        {"enabled": False, "next_run_at": "2029-01-01T00:00:00+00:00"},
        {"enabled": None, "next_run_at": "2029-01-01T00:00:00+00:00"},
        "no record",
        None,
        7,
    ]
    write(cron, {"jobs": [*others, job]})
    assert status(box)["nextCron"] == epoch(DUE)


def test_jobs_without_their_wrapping_or_with_a_mark_in_front_are_read(box: Box, cron: Path) -> None:
    write(cron, [{"next_run_at": DUE}])
    assert status(box)["nextCron"] == epoch(DUE)
    text = '\ufeff{"jobs": [{"prompt": "two\nlines", "next_run_at": "DUE"}]}'.replace("DUE", DUE)
    (cron / "jobs.json").write_text(text, encoding="utf-8")
    assert status(box)["nextCron"] == epoch(DUE)


@pytest.mark.parametrize("text", ["not json", "7", '{"jobs": null}', '{"jobs": {}}', "[]", "{}"])
def test_what_holds_no_jobs_has_no_next(box: Box, cron: Path, text: str) -> None:
    (cron / "jobs.json").write_text(text)
    assert status(box)["nextCron"] is None


@pytest.mark.parametrize("time_of_it", [None, "soon", 7])
def test_a_job_whose_time_hermes_has_to_work_out_is_due_until_it_looked(
    box: Box, cron: Path, time_of_it: object
) -> None:
    write(cron, {"jobs": [{"schedule": EVERY_HOUR, "next_run_at": time_of_it}]})
    assert abs(status(box)["nextCron"] - time.time()) < 60
    written = (cron / "jobs.json").stat().st_mtime
    (cron / "ticker_last_success").write_text(str(written - 1))
    assert status(box)["nextCron"] == int(written)
    (cron / "ticker_last_success").write_text(str(written + 1))
    assert status(box)["nextCron"] is None


def test_the_jobs_are_those_of_the_profile_in_use(box: Box, cron: Path) -> None:
    write(cron, {"jobs": [{"next_run_at": LATER}]})
    (box.home / "active_profile").write_text("work\n")
    assert status(box)["nextCron"] == epoch(LATER), "there is no such profile"
    profile = box.home / "profiles" / "work" / "cron"
    profile.mkdir(parents=True)
    write(profile, {"jobs": [{"next_run_at": DUE}]})
    assert status(box)["nextCron"] == epoch(DUE)


class Ledger:
    """Hermes' own record of its runs."""

    def __init__(self, cron: Path) -> None:
        self._path = cron / "executions.db"
        with sqlite3.connect(self._path) as database:
            database.execute(
                "CREATE TABLE executions (id INTEGER PRIMARY KEY, job_id TEXT, pid INTEGER, "
                "status TEXT, claimed_at TEXT, finished_at TEXT, error TEXT)"
            )

    def ran(self, job: str, hour: int, status: str, error: "str | None" = None) -> str:
        """Note a run and return when it ended."""
        begun, ended = (f"2026-01-01T{hour:02}:0{minute}:00+00:00" for minute in (0, 1))
        row = (job, 1, status, begun, ended, error)
        with sqlite3.connect(self._path) as database:
            database.execute(
                "INSERT INTO executions (job_id, pid, status, claimed_at, finished_at, error) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )
        return ended


def test_a_failed_run_is_told_until_a_later_one_is_good(box: Box, cron: Path) -> None:
    assert status(box)["jobError"] is None
    ledger = Ledger(cron)
    write(cron, {"jobs": [{"id": "a", "name": "tea"}, {"id": "b", "name": "coffee"}]})
    at = ledger.ran("a", 8, "failed", "RuntimeError: HTTP 401")
    ledger.ran("b", 9, "completed")
    expected = {"id": "a", "name": "tea", "at": epoch(at), "error": "RuntimeError: HTTP 401"}
    assert status(box)["jobError"] == expected
    ledger.ran("b", 10, "unknown", "Scheduler restarted")
    assert status(box)["jobError"]["name"] == "coffee"
    ledger.ran("b", 11, "completed")
    ledger.ran("a", 12, "completed")
    assert status(box)["jobError"] is None


def test_a_job_that_is_gone_counts_until_another_ran(box: Box, cron: Path) -> None:
    ledger = Ledger(cron)
    ledger.ran("once", 8, "failed", "no such host" + "!" * 1000)
    output = cron / "output" / "once"
    output.mkdir(parents=True)
    (output / "2026-01-01_08-01-00.md").write_text("# Cron Job: remind me (FAILED)\n\n**Job ID:**")
    told = status(box)["jobError"]
    assert told["name"] == "remind me"
    assert told["error"].startswith("no such host!") and len(told["error"]) == 500
    ledger.ran("other", 9, "completed")
    assert status(box)["jobError"] is None


def test_a_job_says_itself_what_its_runs_do_not(box: Box, cron: Path) -> None:
    ledger = Ledger(cron)
    ledger.ran("a", 8, "completed")
    at = datetime(2026, 1, 1, 8, 1, tzinfo=UTC).isoformat()
    job = {"id": "a", "name": "tea", "last_run_at": at, "last_status": "ok"}
    write(cron, {"jobs": [{**job, "last_delivery_error": "chat not found"}]})
    assert status(box)["jobError"]["error"] == "its answer was not delivered: chat not found"
    write(cron, {"jobs": [{**job, "last_status": "error", "last_error": "HTTP 500"}]})
    assert status(box)["jobError"]["error"] == "HTTP 500"
    ledger.ran("a", 9, "completed")
    assert status(box)["jobError"] is None, "its record is of the run before"
    os.unlink(cron / "executions.db")
    assert status(box)["jobError"]["error"] == "HTTP 500"

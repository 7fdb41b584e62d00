# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logs for people: of each event its time, its level and one line, whichever program wrote it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

from ...module_utils.cards import Card, Problem
from ...module_utils.settings.values import show
from ..inputs.answers import line_count, yes_or_no
from .times import begin, moment

LEVELS = ("debug", "info", "warn", "error")
NAMES = dict(zip(LEVELS, LEVELS, strict=True)) | {
    "warning": "warn",
    "err": "error",
    "critical": "error",
    "fatal": "error",
}
DEFAULT_LINES = 40
MOST_READ = 5000
"""Lines of a log that are looked through for those that are wanted; what the Worker gives at most."""
# As Python's logging writes it, with or without a time.
WRITTEN = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)?\s*"
    r"(?:-\s+)?\[?(?P<level>DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL)?\b\]?:?\s+(?P<text>.*)",
    re.DOTALL,
)
APART = ("time", "level", "event", "message", "request_id")


@dataclass(frozen=True)
class Wanted:
    """What of the logs is to be shown.

    lines: of each log at most; level: the least one; since: from when on; raw: as the programs wrote them.
    """

    lines: int = DEFAULT_LINES
    level: str = "debug"
    since: datetime | None = None
    raw: bool = False

    @property
    def read(self) -> int:
        """How many lines have to be read for that."""
        return self.lines if self.level == "debug" and self.since is None else MOST_READ


@dataclass
class Entry:
    """One event of a log. at: None where nothing tells; level: that of the line before where it names none."""

    raw: str
    text: str
    level: str
    at: datetime | None


def wanted(said: Mapping[str, Any], lines: Any) -> Wanted:
    """Return what the variables ask for. said: hermes_log_*; lines: how many. Raises a Card."""
    count = DEFAULT_LINES if lines in (None, "") else line_count("hermes_log_lines", lines)
    level, since = said.get("hermes_log_level"), said.get("hermes_log_since")
    problems, least, start = [], "debug", None
    if level not in (None, ""):
        least = NAMES.get(str(level).strip().lower(), "")
        if not least:
            remedy = f"say one of {', '.join(LEVELS)}; what is graver is shown too."
            problems.append(Problem("hermes_log_level", f"{show(level)} is none.", remedy, "logs"))
    if since not in (None, ""):
        start = begin(str(since))
        if start is None:
            remedy = "say for example 10m, 2h, 14:30 or 2026-11-26 14:30."
            sentence = f"{show(since)} is neither a span nor a time."
            problems.append(Problem("hermes_log_since", sentence, remedy, "logs"))
    if problems:
        raise Card(problems)
    raw = yes_or_no("hermes_log_raw", said.get("hermes_log_raw"))
    return Wanted(count, least, start, raw)


def chosen(lines: Iterable[str], want: Wanted, zone: tzinfo | None = UTC) -> list[Entry]:
    """Return the events that are wanted. zone: of times that name none; None is this machine's."""
    found: list[Entry] = []
    level, at = "info", None
    for line in lines:
        entry = _entry(line, level, at, zone)
        level, at = entry.level, entry.at
        found.append(entry)
    least = LEVELS.index(want.level)
    kept = [
        entry
        for entry in found
        if LEVELS.index(entry.level) >= least
        and (want.since is None or (entry.at is not None and entry.at >= want.since))
    ]
    return kept[-want.lines :]


def _entry(line: str, level: str, at: datetime | None, zone: tzinfo | None) -> Entry:
    """Read a line; what it does not tell it has from the one before, as the lines of a traceback have."""
    if line.startswith("{"):
        try:
            told = json.loads(line)
        except ValueError:
            told = None
        if isinstance(told, dict) and "event" in told:
            named = NAMES.get(str(told.get("level")).lower(), level)
            return Entry(line, _event(told), named, moment(str(told.get("time"))) or at)
    found = WRITTEN.match(line)
    if not found or not (found["time"] or found["level"]):
        return Entry(line, line, level, at)
    named = NAMES.get((found["level"] or "").lower(), level)
    # A level without a time is a beginning, whose time nobody knows.
    return Entry(line, found["text"], named, _time(found["time"], zone))


def _time(text: str | None, zone: tzinfo | None) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text.replace(",", "."))
    except ValueError:
        return None
    if found.tzinfo:
        return found
    return found.replace(tzinfo=zone) if zone else found.astimezone()


def _event(told: dict[str, Any]) -> str:
    """Return an event of the Worker's in one line."""
    rest = {name: value for name, value in told.items() if name not in APART and value is not None}
    if told["event"] == "request" and {"method", "route", "status"} <= rest.keys():
        head = f"{rest.pop('method')} {rest.pop('route')} {rest.pop('status')}"
    else:
        head = str(told["event"])
    if told.get("message"):
        head += f": {told['message']}"
    fields = [f"{name}={_value(value)}" for name, value in rest.items()]
    if told.get("request_id"):
        fields.append(f"({str(told['request_id'])[:8]})")
    return " ".join([head, *fields]).replace("\n", " ")


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value if value and not re.search(r"\s", value) else json.dumps(value)
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def line_of(entry: Entry, now: datetime | None = None) -> str:
    """Return an event as a person reads it."""
    clock = ""
    if entry.at:
        there, here = entry.at.astimezone(), (now or datetime.now(UTC)).astimezone()
        clock = f"{there:%H:%M:%S}" if there.date() == here.date() else f"{there:%m-%d %H:%M:%S}"
    return f"  {clock:<8} {entry.level:<5}  {''.join(filter(_shows, entry.text))}"


def _shows(character: str) -> bool:
    return character.isprintable() or character == "\t"


def tail(path: Path, lines: int, cut: int = 300, most: int = 64 * 1024) -> list[str]:
    """Return the last lines of a text file, none when there is no file. cut: length of a line; most: bytes to read."""
    try:
        with path.open("rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(0, handle.tell() - most))
            text = handle.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return [line[:cut] for line in text.splitlines()[-lines:]]

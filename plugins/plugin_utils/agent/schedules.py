# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a job is due: what Hermes takes as a schedule, and what never comes."""

from __future__ import annotations

import datetime
import re
from typing import Any

DURATION = re.compile(r"(\d{1,6})\s*(m|min|mins|minute|minutes|h|hr|hrs|hour|hours|d|day|days)")
FIELD = re.compile(r"(\*|\d{1,2}(-\d{1,2})?)(/\d{1,2})?")
# Name, least and most of each field of a cron expression.
FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
LAST_DAYS = dict(zip(range(1, 13), (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), strict=True))
FARTHEST_WEST = datetime.timezone(datetime.timedelta(hours=-12))
REMEDY = "write for example '0 7 * * *' (each day at seven), 'every 2h', or a time like 2027-01-31T09:00."


def schedule_flaw(schedule: Any) -> str:
    """Return what is wrong with a schedule; an empty text when nothing is."""
    if not isinstance(schedule, str) or not schedule.strip():
        return "is no text."
    text = schedule.strip()
    if text.lower().startswith("every "):
        interval = DURATION.fullmatch(text[6:].strip().lower())
        return "" if interval and int(interval[1]) > 0 else "is no interval."
    if DURATION.fullmatch(text.lower()):
        return "is once, so long after whenever it is read."
    parts = text.split()
    if len(parts) == len(FIELDS):
        return _cron_flaw(parts)
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        return "is no schedule that Hermes takes."
    return "" if re.match(r"\d{4}-\d\d-\d\d", text) else "is no schedule that Hermes takes."


def is_over(schedule: str) -> bool:
    """Tell whether a schedule is a time that has passed, wherever on earth its hours are meant."""
    try:
        at = datetime.datetime.fromisoformat(schedule)
    except ValueError:
        return False
    at = at.replace(tzinfo=at.tzinfo or FARTHEST_WEST)
    return at < datetime.datetime.now(datetime.UTC)


def _cron_flaw(parts: list[str]) -> str:
    values = []
    for part, (name, least, most) in zip(parts, FIELDS, strict=True):
        found = _values(part, least, most)
        if not found:
            return f"has the {name} {part}, which is none from {least} to {most}."
        values.append(found)
    _minutes, _hours, days, months, _weekdays = values
    # With a weekday beside it, either of the two will do.
    if parts[4] == "*" and not any(min(days) <= LAST_DAYS[month] for month in months):
        return "never comes: no such month has such a day."
    return ""


def _values(part: str, least: int, most: int) -> set[int]:
    """Return the values that a field names; none when one is no value."""
    found: set[int] = set()
    for word in part.split(","):
        if not FIELD.fullmatch(word):
            return set()
        span, _slash, step = word.partition("/")
        first, _dash, last = span.partition("-")
        begin = least if first == "*" else int(first)
        end = most if first == "*" or (step and not last) else int(last or first)
        if not least <= begin <= end <= most or step == "0":
            return set()
        found |= set(range(begin, end + 1, int(step or 1)))
    return found

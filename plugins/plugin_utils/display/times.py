# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Times as people say them: how long ago, or in how long, with the clock of whoever looks."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta

UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
NOW_SECONDS = 5
SHORT = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
SPAN = re.compile(r"(\d{1,6})\s*([smhd])")


def moment(text: str) -> datetime | None:
    """Return a time as the Worker writes it; None for text that is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def said(text: str | None, now: datetime | None = None) -> str:
    """Return a time of the Worker's as `3 minutes ago (14:02)` or `in 4 hours (18:05)`."""
    at = moment(text or "")
    if at is None:
        return str(text)
    now = now or datetime.now(UTC)
    seconds = round((now - at).total_seconds())
    return f"{_distance(seconds)} ({_clock(at, now)})"


def lasting(text: str | None, now: datetime | None = None) -> str:
    """Return what began at a time of the Worker's as `for 3 minutes (since 14:02)`."""
    at = moment(text or "")
    if at is None:
        return f"since {text}"
    now = now or datetime.now(UTC)
    seconds = round((now - at).total_seconds())
    if seconds < -NOW_SECONDS:
        return f"since {_clock(at, now)}, which by this machine's clock is yet to come"
    return f"for {_span(seconds)} (since {_clock(at, now)})"


def _distance(seconds: int) -> str:
    if abs(seconds) < NOW_SECONDS:
        return "now"
    return f"{_span(seconds)} ago" if seconds > 0 else f"in {_span(seconds)}"


def _span(seconds: int) -> str:
    """Return a span in the largest unit that fits."""
    unit, length = next(one for one in UNITS if abs(seconds) >= one[1] or one is UNITS[-1])
    count = abs(seconds) // length
    return f"{count} {unit}{'' if count == 1 else 's'}"


def _clock(at: datetime, now: datetime) -> str:
    there, here = at.astimezone(), now.astimezone()
    if there.date() == here.date():
        return f"{there:%H:%M}"
    return f"{there:%Y-%m-%d %H:%M}"


def begin(text: str, now: datetime | None = None) -> datetime | None:
    """Return from when on something is meant: a span (`10m`, `2h`), a time, a date or both; None for what is none."""
    now = (now or datetime.now(UTC)).astimezone()
    text = text.strip()
    if found := SPAN.fullmatch(text):
        return now - timedelta(seconds=int(found[1]) * SHORT[found[2]])
    try:
        at = datetime.combine(now.date(), time.fromisoformat(text))
    except ValueError:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            return None
        return at if at.tzinfo else at.astimezone()
    at = at.astimezone()
    return at if at <= now else at - timedelta(days=1)

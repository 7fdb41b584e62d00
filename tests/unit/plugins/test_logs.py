# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Logs as people read them, and times as people say them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.plugin_utils.display import logs, times
from ansible_collections.hermes.workers.plugins.plugin_utils.display.logs import (
    Wanted,
    chosen,
    line_of,
)

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
REQUEST = (
    '{"time":"2026-11-26T11:59:16.839Z","level":"info","event":"request","request_id":"fe87c23e-1eac",'
    '"method":"GET","route":"/api/health","status":200,"ms":13}'
)
FAILED = '{"time":"2026-11-25T08:00:00.000Z","level":"error","event":"save_failed","message":"no\\nroom","tries":[1]}'
HERMES = [
    "2026-11-26 11:00:00,121 ERROR agent.loop: it failed",
    "Traceback (most recent call last):",
    "  ValueError: x",
    "2026-11-26 11:30:00,121 INFO gateway: on it goes",
    "WARNING tools.registry: of no time",
]


@pytest.fixture(autouse=True)
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """People live elsewhere than in UTC."""
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def shown(written: list[str], **want: Any) -> list[str]:
    return [line_of(entry, NOW) for entry in chosen(written, Wanted(**want))]


def test_an_event_is_one_line_with_its_time_and_level() -> None:
    assert shown([FAILED, REQUEST]) == [
        "  11-25 09:00:00 error  save_failed: no room tries=[1]",
        "  12:59:16 info   GET /api/health 200 ms=13 (fe87c23e)",
    ]


def test_what_is_no_event_is_shown_as_it_is_and_blanks_are_seen() -> None:
    assert shown(['{"a": 1}', "[1, 2]"]) == [
        '           info   {"a": 1}',
        "           info   [1, 2]",
    ]
    (line,) = shown([FAILED.replace("[1]", '"by hand"')])
    assert line.endswith('no room tries="by hand"')
    assert shown([FAILED.replace("[1]", '"x"')])[0].endswith("tries=x")


def test_what_other_programs_write_is_read_too() -> None:
    assert shown(HERMES) == [
        "  12:00:00 error  agent.loop: it failed",
        "  12:00:00 error  Traceback (most recent call last):",
        "  12:00:00 error    ValueError: x",
        "  12:30:00 info   gateway: on it goes",
        "           warn   tools.registry: of no time",
    ]
    (entry,) = chosen(["2026-11-26T10:00:00+00:00 INFO a: b"], Wanted(), None)
    assert line_of(entry, NOW) == "  11:00:00 info   a: b", "its own zone is the one that counts"
    (entry,) = chosen(["2026-11-26 12:59:59 INFO a: b"], Wanted(), None)
    assert line_of(entry, NOW) == "  12:59:59 info   a: b", "without a zone it is this machine's"


def test_a_level_shows_what_is_graver_too_with_what_belongs_to_it() -> None:
    assert [line.split()[-1] for line in shown(HERMES, level="warn")] == [
        *("failed", "last):", "x", "time"),
    ]
    assert len(shown([REQUEST, *HERMES], level="error", lines=2)) == 2


def test_since_leaves_out_what_is_older_or_of_no_time() -> None:
    since = NOW - timedelta(minutes=40)
    assert [line.split()[-1] for line in shown([FAILED, *HERMES, REQUEST], since=since)] == [
        *("goes", "(fe87c23e)"),
    ]


def test_what_moves_a_terminal_is_not_shown() -> None:
    assert shown(["2026-11-26 11:00:00 INFO a: \x1b[31mred\x07"]) == [
        "  12:00:00 info   a: [31mred"
    ]


def test_what_was_asked_for_is_understood_or_named() -> None:
    want = logs.wanted({"hermes_log_level": "WARNING", "hermes_log_raw": "1"}, "7")
    assert (want.level, want.raw, want.lines, want.since) == ("warn", True, 7, None)
    assert logs.wanted({}, None) == Wanted(lines=40, level="debug")
    with pytest.raises(Card) as told:
        logs.wanted({"hermes_log_level": ["x"], "hermes_log_since": "yesterday"}, "7")
    assert [one.subject for one in told.value.problems] == ["hermes_log_level", "hermes_log_since"]


@pytest.mark.parametrize(
    ("text", "begin"),
    [
        ("10m", NOW - timedelta(minutes=10)),
        ("2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
        ("12:30", NOW - timedelta(minutes=30)),
        ("14:30", NOW - timedelta(hours=22, minutes=30)),
        ("2026-11-25 10:00", datetime(2026, 11, 25, 9, 0, tzinfo=UTC)),
        ("2026-11-25", datetime(2026, 11, 24, 23, 0, tzinfo=UTC)),
        ("2026-11-26T10:00:00Z", NOW - timedelta(hours=2)),
        ("soon", None),
        ("", None),
    ],
)
def test_a_begin_is_a_span_or_a_time(text: str, begin: datetime | None) -> None:
    assert times.begin(text, NOW) == begin


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2026-11-26T11:59:58.000Z", "now (12:59)"),
        ("2026-11-26T11:59:00.000Z", "1 minute ago (12:59)"),
        ("2026-11-26T11:57:00.000Z", "3 minutes ago (12:57)"),
        ("2026-11-26T16:00:00.000Z", "in 4 hours (17:00)"),
        ("2026-11-23T12:00:00.000Z", "3 days ago (2026-11-23 13:00)"),
        ("at noon", "at noon"),
    ],
)
def test_a_time_is_told_as_people_say_it(text: str, words: str) -> None:
    assert times.said(text, NOW) == words


def test_what_lasts_is_told_by_how_long() -> None:
    assert times.lasting("2026-11-26T11:18:00Z", NOW) == "for 42 minutes (since 12:18)"
    assert times.lasting("2026-11-26T12:00:02Z", NOW) == "for 2 seconds (since 13:00)"
    assert times.lasting("2026-11-26T12:00:00Z", NOW) == "for 0 seconds (since 13:00)"
    assert times.lasting("some day", NOW) == "since some day"


def test_what_began_before_the_clock_was_set_back_lasts_for_no_time_that_is_known() -> None:
    told = "since 2027-11-26 12:18, which by this machine's clock is yet to come"
    assert times.lasting("2027-11-26T11:18:00Z", NOW) == told

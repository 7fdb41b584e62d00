# SPDX-License-Identifier: Apache-2.0
"""Where a real API answered differently from the stand-in, call by call."""

from __future__ import annotations

from collections.abc import Iterator

from tests.cloudflare.recorder import Answered
from tests.cloudflare.shapes import lacks

PASSING = (0, 429, 500, 502, 503, 504)
"""Outcomes that say nothing about the interface: a network's or a moment's fault."""


def differences(real: list[Answered], stand_in: list[Answered]) -> list[tuple[str, str]]:
    """Return (call, what is different) for each difference, in the order of the real calls."""
    theirs = _by_call(stand_in)
    found = []
    for call, answers in _by_call(real).items():
        if call not in theirs:
            found.append((call, "the stand-in's run did not send it"))
            continue
        found += [(call, words) for words in dict.fromkeys(_compared(answers, theirs[call]))]
    sent = {one.call for one in real}
    found += [(call, "only the stand-in's run sent it") for call in theirs if call not in sent]
    return found


def _by_call(answers: list[Answered]) -> dict[str, list[Answered]]:
    grouped: dict[str, list[Answered]] = {}
    for one in answers:
        if one.status not in PASSING:
            grouped.setdefault(one.call, []).append(one)
    return grouped


def _compared(real: list[Answered], stand_in: list[Answered]) -> Iterator[str]:
    """Tell how the answers to one call differ; how often it was sent does not count."""
    outcomes = {_outcome(one) for one in stand_in}
    for one in real:
        alike = [other for other in stand_in if _outcome(other) == _outcome(one)]
        if not alike:
            yield f"answers {_outcome(one)}; the stand-in {' or '.join(sorted(outcomes))}"
            continue
        # Of several answers, the one that is most alike: a list may be empty in one and not in another.
        yield from min((list(_shapes(one, other)) for other in alike), key=len)


def _shapes(real: Answered, stand_in: Answered) -> Iterator[str]:
    for words in lacks(stand_in.shape, real.shape):
        yield f"unlike the stand-in's: {words}"
    for words in lacks(real.shape, stand_in.shape):
        if words.endswith(" is missing"):
            yield f"has more than the stand-in's: {words.removesuffix(' is missing')}"


def _outcome(one: Answered) -> str:
    return f"{one.status}" + "".join(f" (code {code})" for code in one.codes)


def report(title: str, found: list[tuple[str, str]], real: list[Answered], notes: list[str]) -> str:
    """Return the report as Markdown. notes: lines that come first."""
    lines = [f"# {title}", "", *notes, ""]
    calls = len({one.call for one in real})
    if not found:
        lines.append(f"All {calls} kinds of calls were answered as the stand-in answers them.")
        return "\n".join(lines) + "\n"
    lines += [
        f"Of {calls} kinds of calls, {len({call for call, _ in found})} differ from the stand-in's run:",
        "",
        "| call | difference |",
        "|---|---|",
        *(f"| `{call}` | {words} |" for call, words in found),
    ]
    return "\n".join(lines) + "\n"

# SPDX-License-Identifier: Apache-2.0
"""One measured number with its goal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """A measured value in `unit`; `goal` is the most it may be, `baseline` what it is compared to.

    `spread` is the largest minus the smallest of the samples, in the same unit, where nothing else is said.
    """

    name: str
    value: float
    unit: str
    goal: float
    baseline: float | None = None
    spread: float | None = None

    @classmethod
    def of(cls, name: str, samples: Sequence[float], unit: str, goal: float) -> Figure:
        """The median of some samples."""
        spread = max(samples) - min(samples)
        return cls(name, round(statistics.median(samples), 3), unit, goal, spread=round(spread, 3))

    @classmethod
    def against(
        cls, name: str, pairs: Sequence[tuple[float, float]], by: str, goal: float
    ) -> Figure:
        """The median of the ratios of pairs (ours, theirs), both in seconds; its spread is the interquartile range."""
        ratios = [ours / theirs for ours, theirs in pairs]
        low, middle, high = statistics.quantiles(ratios, n=4)
        ours, theirs = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
        print(f"   {name}: {ours:.3f} s, {by} {theirs:.3f} s")
        spread = round(high - low, 3)
        return cls(f"{name}, against {by}", round(middle, 3), "ratio", goal, spread=spread)

    @property
    def met(self) -> bool:
        """Whether the goal was reached."""
        return self.value <= self.goal

    def as_json(self) -> dict[str, object]:
        """Return what is written to benchmarks/results."""
        return {**asdict(self), "met": self.met}

    def __str__(self) -> str:
        against = f", baseline {self.baseline} {self.unit}" if self.baseline is not None else ""
        verdict = "met" if self.met else "MISSED"
        return f"{self.name}: {self.value} {self.unit} (goal {self.goal}{against}): {verdict}"

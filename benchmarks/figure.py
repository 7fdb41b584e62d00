# SPDX-License-Identifier: Apache-2.0
"""One measured number with its goal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """A measured value in `unit`; `goal` is the most it may be, `baseline` what it is compared to.

    `spread` is the largest minus the smallest of the samples, in the same unit.
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

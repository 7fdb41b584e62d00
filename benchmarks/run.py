# SPDX-License-Identifier: Apache-2.0
"""Measure what the documentation claims, and write it to benchmarks/results/<part>.json.

Usage: python benchmarks/run.py [PART ...]        (default: every part)

Each figure has a goal and, where it is a ratio, a baseline that is measured in the same run. The
exit code is 1 when a figure misses its goal, so that `make bench` can gate a release.
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
from pathlib import Path

import psutil
from figure import Figure

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# What the parts use: each other, the collection, and what tests have for the same purpose.
FOLDERS = (HERE, ROOT, ROOT / ".ansible" / "collections", ROOT / "tests" / "integration")
sys.path[:0] = [str(folder) for folder in FOLDERS]

RESULTS = HERE / "results"
PARTS = ("channels", "features", "fleet", "fresh", "gate", "memory", "soak", "wake")


def machine() -> dict[str, object]:
    """What the figures were measured on: cores, memory in GiB, system, Python."""
    return {
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def run_part(part: str) -> list[Figure]:
    """Run one part and write its results; a part is a module with `measure() -> list[Figure]`."""
    figures: list[Figure] = importlib.import_module(f"parts.{part}").measure()
    RESULTS.mkdir(exist_ok=True)
    result = {"machine": machine(), "figures": [figure.as_json() for figure in figures]}
    (RESULTS / f"{part}.json").write_text(json.dumps(result, indent=2) + "\n")
    return figures


def main(parts: list[str]) -> int:
    """Measure these parts, or all; return the exit code."""
    unknown = set(parts) - set(PARTS)
    if unknown:
        print(f"PART: no such part: {', '.join(sorted(unknown))}. Parts: {', '.join(PARTS)}.")
        return 2
    missed = 0
    for part in parts or PARTS:
        print(f"== {part}", flush=True)
        for figure in run_part(part):
            print(f"   {figure}")
            missed += not figure.met
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

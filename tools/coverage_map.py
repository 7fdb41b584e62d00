# SPDX-License-Identifier: Apache-2.0
"""Tell for each room how much of its branches the tests take: `make coverage`.

A line that runs without a claim is covered too, so this is a map of what no test ever enters, and no mark.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

GOAL = 95
WINGS = ("plugins", "container", "host", "tools", "worker/src")
DEPTH = {"plugins": 3, "container": 3, "worker/src": 3}
"""How many folders of a path make a room."""


def room_of(name: str) -> str:
    """Return the room of a file."""
    wing = next((one for one in WINGS if name.startswith(f"{one}/")), name.split("/")[0])
    folders = name.split("/")[:-1]
    return "/".join(folders[: DEPTH.get(wing, 1)])


def python(report: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return file -> what of its lines and branches is taken, and how many there are, as coverage.py tells it."""
    return {
        name: (
            one["summary"]["covered_lines"] + one["summary"]["covered_branches"],
            one["summary"]["num_statements"] + one["summary"]["num_branches"],
        )
        for name, one in report["files"].items()
    }


def worker(report: dict[str, Any], root: Path) -> dict[str, tuple[int, int]]:
    """Return the same of the Worker, as vitest tells it."""
    return {
        Path(name).relative_to(root).as_posix(): (
            one["statements"]["covered"] + one["branches"]["covered"],
            one["statements"]["total"] + one["branches"]["total"],
        )
        for name, one in report.items()
        if name != "total"
    }


def table(files: dict[str, tuple[int, int]]) -> list[str]:
    """Return a line for each room, those with the most in the dark first."""
    rooms: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name, (covered, total) in files.items():
        for room in {room_of(name), next(wing for wing in WINGS if name.startswith(f"{wing}/"))}:
            rooms[room][0] += covered
            rooms[room][1] += total
    order = sorted(rooms.items(), key=lambda row: row[1][0] - row[1][1])
    lines = [f"{'room':<36} {'taken':>6}  not taken"]
    for room, (covered, total) in order:
        share = 100 * covered / total if total else 100.0
        mark = "" if share >= GOAL else f"  below {GOAL} %"
        lines.append(f"{room:<36} {share:5.1f} %  {total - covered:>5}{mark}")
    return lines


def main() -> int:
    """Print the map of the reports that the command line names; return the exit code."""
    root = Path(__file__).resolve().parents[1]
    files: dict[str, tuple[int, int]] = {}
    for path in map(Path, sys.argv[1:]):
        report = json.loads(path.read_text(encoding="utf-8"))
        files |= python(report) if "files" in report else worker(report, root)
    print("\n".join(table(files)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The closing table of a play: one row for each deployment, the same in every playbook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

# What the roles register, in the order of a play. The first that failed holds the error, the last one the proof.
STEPS = (
    "preflight_result",
    "image_result",
    "worker_result",
    "workerd_result",
    "secrets_result",
    "routes_result",
    "rotate_result",
    "verify_result",
)
PROOFS = ("rotate_result", "verify_result")
FULL_CARDS = 3
"""With more deployments than this, each is a row of the table only and has no card of its own."""
HEAD = ("deployment", "URL", "version", "changed", "health", "first token", "error")
ERROR_LENGTH = 100


@dataclass
class Row:
    """What became of one deployment."""

    name: str
    url: str = "-"
    version: str = "-"
    changed: str = "no"
    health: str = "-"
    first_token: str = "-"  # noqa: S105 - seconds, no secret
    error: str = ""


def row(name: str, results: Mapping[str, Any], *, check_mode: bool = False) -> Row:
    """Return the row of one deployment. results: what it registered, by the names of STEPS."""
    steps = {step: results[step] for step in STEPS if isinstance(results.get(step), dict)}
    proof: dict[str, Any] = next((steps[step] for step in reversed(PROOFS) if step in steps), {})
    planned = {line[0]: line[1] for line in steps.get("preflight_result", {}).get("rows", [])}
    made = Row(name, url=proof.get("url") or planned.get("address") or "-")
    made.version = proof.get("version") or "-"
    made.health = proof.get("health") or "-"
    made.error = _error(steps, proved=bool(proof))
    seconds = proof.get("seconds_to_first_token")
    made.first_token = "-" if seconds is None else f"{seconds} s"
    if any(step.get("changed") for step in steps.values()):
        made.changed = "would" if check_mode else "yes"
    return made


def _error(steps: Mapping[str, dict[str, Any]], *, proved: bool) -> str:
    """Return the first line of what went wrong; a host that stopped without a card of ours is told as such."""
    failed = next((step for step in steps.values() if step.get("failed")), None)
    if failed is None:
        return "" if proved else "stopped; see above"
    text = str(failed.get("msg") or "failed; see above").splitlines()[0]
    return text if len(text) <= ERROR_LENGTH else f"{text[: ERROR_LENGTH - 3]}..."


def _columns(cells: list[tuple[str, ...]]) -> list[str]:
    """Return lines in which the cells of a column stand below each other."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def table(rows: list[Row], width: int | None = None) -> list[str]:
    """Return the rows as text, with a sentence of totals.

    width: where that is too little for a row, its address, its version and its error stand below it.
    """
    cells = [HEAD, *(astuple(entry) for entry in rows)]
    text = _columns(cells)
    # The error comes last and is as long as it is.
    if width and max(map(len, _columns([line[:-1] for line in cells]))) > width:
        head, *lines = _columns([(line[0], *line[3:6]) for line in cells])
        text = [head]
        for line, entry in zip(lines, rows, strict=True):
            version = f"version {entry.version}" if entry.version != "-" else ""
            below = ("" if entry.url == "-" else entry.url, version, entry.error)
            text += [line, *(f"    {words}" for words in below if words)]
    failed = sum(1 for entry in rows if entry.error)
    changed = sum(1 for entry in rows if entry.changed != "no")
    words = "would change" if any(entry.changed == "would" for entry in rows) else "changed"
    return [*text, "", f"{len(rows)} deployments: {changed} {words}, {failed} failed."]

# SPDX-License-Identifier: Apache-2.0
"""What of the declaration is in Hermes' home as it was laid, and what is not, with the reason."""

from __future__ import annotations

import contextlib
import json
import os

from sandbox.agent import found
from sandbox.agent.found import CONFIG, JOBS, MEMORIES, Tree
from sandbox.agent.record import Record
from sandbox.errors import SandboxError
from sandbox.job_records import home_in_use, job_records
from sandbox.paths import Paths, read_text, write_private

# For type checkers only: see cli.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What was read once, by what it looked like from outside, so that nothing is read at every look.
_SEEN = "agent-seen.json"
_WHO = "by Hermes or its owner"


def told(paths: Paths) -> dict[str, Any]:
    """Return the digest of what is laid, its items, and those that differ, each with the reason."""
    home = home_in_use(paths.home)
    record = Record(home)
    if not record.items:
        return {"archive": record.archive, "laid": [], "kept": []}
    here = _Here(paths, home, record).digests()
    laid, kept = [], []
    for name, item in sorted(record.items.items()):
        is_as_laid = item["laid"] is not None and here[name] == item["laid"]
        if item.get("left"):
            kept.append({"item": name, "why": f"not laid: {item['left']}"})
        elif is_as_laid or name.startswith(f"{MEMORIES}/"):
            laid.append(name)
        else:
            kept.append({"item": name, "why": _why(item, here[name])})
    return {"archive": record.archive, "laid": laid, "kept": kept}


def _why(item: dict[str, Any], here: str | None) -> str:
    if here == found.UNREADABLE:
        why = "what is there cannot be read"
    elif here is None:
        why = f"deleted {_WHO}" if item["laid"] else "what was there before is gone"
    else:
        why = f"changed {_WHO}" if item["laid"] else f"made {_WHO}"
    return why if item["want"] is not None else f"{why}, and no longer declared"


class _Here:
    """What is there of the items of a record."""

    def __init__(self, paths: Paths, home: str, record: Record) -> None:
        self.paths = paths
        self.home = home
        self.items = record.items
        self.path = paths.in_run(_SEEN)
        try:
            self.seen = json.loads(read_text(self.path) or "{}")
        except (OSError, ValueError):
            self.seen = {}
        self.now: dict[str, Any] = {}

    def digests(self) -> dict[str, str | None]:
        """Return the digest of each, None for what is not there."""
        here: dict[str, str | None] = {}
        for name in self.items:
            if found.is_file(name):
                here[name] = self._tree(name, Tree(self.home, name))
        here.update(self._jobs())
        here.update(self._values())
        if self.now != self.seen:
            write_private(self.path, json.dumps(self.now))
        return here

    def _tree(self, name: str, tree: Tree) -> str | None:
        signature = tree.signature()
        before = self.seen.get(name)
        known = before[1] if before and before[0] == signature else tree.digest_if_any()
        self.now[name] = [signature, known]
        return known

    def _jobs(self) -> dict[str, str | None]:
        names = [name for name in self.items if name.startswith(f"{JOBS}/")]
        if not names:
            return {}
        records = job_records(self.home)
        if records is None:
            return dict.fromkeys(names, found.UNREADABLE)
        by_id = {str(job.get("id")): job for job in records}
        titles = {job.get("name"): job for job in records}
        here: dict[str, str | None] = {}
        for name in names:
            item = self.items[name]
            job = by_id.get(str(item.get("id")))
            if job is None and item["laid"] is None:
                job = titles.get(name.partition("/")[2])
            if job is not None:
                here[name] = found.job_digest(job)
            else:
                here[name] = item["laid"] if item.get("ends") else None
        return here

    def _values(self) -> dict[str, str | None]:
        """Ask what reads YAML, once for each state of the file."""
        names = {
            name: [*map(str, item.get("path", []))]
            for name, item in self.items.items()
            if name.startswith(f"{CONFIG}/")
        }
        if not names:
            return {}
        signature = found.digest([Tree(self.home, "config.yaml").signature(), names])
        before = self.seen.get(CONFIG)
        if not before or before[0] != signature:
            from sandbox.agent.hermes_settings import HermesSettings

            managed = json.loads(read_text(os.path.join(self.paths.managed, "config.yaml")) or "{}")
            values: dict[str, str | None] = dict.fromkeys(names, found.UNREADABLE)
            # Whoever asks how Hermes is must be answered, whatever the agent put there.
            with (
                contextlib.suppress(SandboxError),
                HermesSettings(self.paths, {}, managed) as settings,
            ):
                values = settings.look(names, soul=False)["values"]
            before = [signature, values]
        self.now[CONFIG] = before
        found_before: dict[str, str | None] = before[1]
        return found_before

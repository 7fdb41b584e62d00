# SPDX-License-Identifier: Apache-2.0
"""Lays a declaration into Hermes' home: all of it or nothing, and over nothing that others made.

An item that is as we left it follows the declaration. One that Hermes or its owner changed, made
or deleted stays as it is, unless the declaration takes it over. What is being laid is written down
first, so that a laying that was cut is gone on with and not taken for somebody's work.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import subprocess

from sandbox.agent import found
from sandbox.agent.declared import Declared
from sandbox.agent.found import CONFIG, JOBS, MEMORIES, SKILLS, SOUL, Tree, is_file
from sandbox.agent.hermes_settings import HermesSettings
from sandbox.agent.record import Record
from sandbox.agent.unpack import unpack
from sandbox.job_records import home_in_use, job_records
from sandbox.paths import DECLARED, Paths

# For type checkers only: see cli.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def lay(paths: Paths, declared: Declared, environ: dict[str, str], managed: dict[str, Any]) -> None:
    """Make Hermes' home what is declared.

    environ, managed: what Hermes runs with, or will. Raises SandboxError: 70 when the archive must
    not be used, 77 when Hermes refuses an item; OSError as the system does. Then all is as it was.
    """
    with paths.locked("save.lock"):  # no backup shall have half of it
        stage = paths.beside_home("declaring")
        _clear(stage)
        os.makedirs(stage, 0o700)
        home = home_in_use(paths.home)
        for cut in glob.glob(f"{glob.escape(os.path.join(home, DECLARED))}.*.new"):
            os.unlink(cut)
        try:
            with HermesSettings(paths, environ, managed) as settings:
                _Laying(home, declared, stage, settings).run()
        finally:
            _clear(stage)


class _Laying:
    """One laying. `wants`: each declared item -> its digest; `here`: each known one -> what it is."""

    def __init__(self, home: str, declared: Declared, stage: str, settings: HermesSettings) -> None:
        self.home = home
        self.declared = declared
        self.new = os.path.join(stage, "new")
        self.old = os.path.join(stage, "old")
        self.settings = settings
        self.record = Record(home)
        self.wants: dict[str, str] = {}
        self.here: dict[str, str | None] = {}
        self.values: dict[str, tuple[list[str], Any]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.undo: list[tuple[str, str]] = []

    def run(self) -> None:
        """Do it."""
        os.mkdir(self.new)
        os.mkdir(self.old)
        if self.declared.content:
            unpack(self.declared.content, self.new)
        self._see_wants()
        names = sorted({*self.wants, *self.record.items})
        self._see_home(names)
        changes = {name: self.wants.get(name) for name in names if self._follows(name)}
        if changes:
            self._change(names, changes)
        else:
            self._note(names, {}, {})

    def _change(self, names: list[str], changes: dict[str, str | None]) -> None:
        """Make all changes and write them down, or none."""
        before, settled = Record(self.home), False
        self._announce(changes)
        try:
            self._swap([name for name in changes if is_file(name)])
            jobs = self._settle([name for name in changes if not is_file(name)])
            settled = any(not is_file(name) for name in changes)
            self._note(names, changes, jobs)
        except BaseException:
            if not settled:  # else all of it is there, and the next laying writes it down
                for there, back in reversed(self.undo):
                    os.rename(there, back)
                before.write()
            raise

    # What is wanted, and what there is

    def _see_wants(self) -> None:
        names = [f"{SKILLS}/{name}" for name in found.skills_of(self.new)]
        names += [SOUL, *(f"{MEMORIES}/{name}" for name in found.MEMORY_FILES)]
        for name in names:
            want = Tree(self.new, name).digest_if_any()
            if want is not None:
                self.wants[name] = want
        for path, value in found.leaves(self.declared.initial):
            name = f"{CONFIG}/{'.'.join(path)}"
            self.values[name] = (path, value)
            self.wants[name] = found.digest(value)
        for name, job in self.declared.jobs.items():
            self.wants[f"{JOBS}/{name}"] = found.digest(job)

    def _see_home(self, names: list[str]) -> None:
        for name in filter(is_file, names):
            self.here[name] = Tree(self.home, name).digest_if_any()
        paths = {name: self._path(name) for name in names if name.startswith(f"{CONFIG}/")}
        # Hermes writes a soul of its own when it finds none.
        soul = self.here.get(SOUL) is not None and self._laid(SOUL) is None
        if paths or (soul and SOUL in self.wants):
            seen = self.settings.look(paths, soul=soul)
            self.here.update(seen["values"])
            if seen["default_soul"]:
                self.here[SOUL] = None
        self._see_jobs([name for name in names if name.startswith(f"{JOBS}/")])

    def _see_jobs(self, names: list[str]) -> None:
        records = job_records(self.home)
        by_id = {str(job.get("id")): job for job in records or []}
        ours = {item.get("id") for item in self.record.items.values()}
        for name in names:
            item = self.record.items.get(name, {})
            job = by_id.get(str(item.get("id")))
            if job is None and not self._ended(item):
                same = (job for job in by_id.values() if job.get("name") == name.partition("/")[2])
                job = next((job for job in same if job.get("id") not in ours), None)
            if records is None:
                self.here[name] = found.UNREADABLE
            elif job is None:
                self.here[name] = item.get("laid") if self._ended(item) else None
            else:
                self.jobs[name] = job
                self.here[name] = found.job_digest(job)

    @staticmethod
    def _ended(item: dict[str, Any]) -> bool:
        """Tell whether a job that is not there has done what it was for."""
        return bool(item.get("ends") and item.get("id"))

    # What becomes of each

    def _follows(self, name: str) -> bool:
        """Tell whether an item is to be changed."""
        item, here, want = self.record.items.get(name, {}), self.here[name], self.wants.get(name)
        if want is None and here is None:
            return False
        if name.startswith(f"{JOBS}/"):
            as_declared = here is not None and here == item.get("laid") and want == item.get("of")
        else:
            as_declared = here == want
        if as_declared or here == found.UNREADABLE:
            return False
        if self.declared.takes_over(name):
            return want is not None or bool(item)
        if want is None and item.get("found"):
            return False
        if self.record.unfinished and "next" in item:
            # A job's own digest is known only when Hermes has written it.
            return name.startswith(f"{JOBS}/") or here in (None, item["laid"], item["next"])
        return here == item.get("laid")

    def _laid(self, name: str) -> str | None:
        return self.record.items.get(name, {}).get("laid")

    def _path(self, name: str) -> list[str]:
        if name in self.values:
            return self.values[name][0]
        known = self.record.items[name].get("path")
        return [*map(str, known)] if isinstance(known, list) else [name.partition("/")[2]]

    # Doing it

    def _announce(self, changes: dict[str, str | None]) -> None:
        for name, want in changes.items():
            self.record.items.setdefault(name, {"want": None, "laid": None})["next"] = want
        self.record.archive, self.record.unfinished = "", True
        self.record.write()

    def _swap(self, names: list[str]) -> None:
        """Move what is to go out of the way, and what is to come in its place."""
        for number, name in enumerate(names):
            path = os.path.join(self.home, found.path_of(name))
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            if os.path.lexists(path):
                self._move(path, os.path.join(self.old, str(number)))
            if name in self.wants:
                self._move(os.path.join(self.new, found.path_of(name)), path)

    def _move(self, source: str, target: str) -> None:
        os.rename(source, target)
        self.undo.append((target, source))

    def _settle(self, names: list[str]) -> dict[str, dict[str, Any]]:
        """Have Hermes' own functions write what it keeps in files of its own."""
        if not names:
            return {}
        order: dict[str, Any] = {"set": [], "unset": [], "jobs": [], "remove": []}
        for name in names:
            if name.startswith(f"{CONFIG}/"):
                if name in self.wants:
                    order["set"].append([name, *self.values[name]])
                else:
                    order["unset"].append([name, self._path(name)])
            elif name in self.wants:
                title = name.partition("/")[2]
                known = self.jobs.get(name, {}).get("id")
                order["jobs"].append([name, known, title, self.declared.jobs[title]])
            elif name in self.jobs:
                order["remove"].append([name, self.jobs[name]["id"]])
        laid: dict[str, dict[str, Any]] = self.settings.lay(order)
        return laid

    def _note(
        self, names: list[str], changes: dict[str, str | None], jobs: dict[str, dict[str, Any]]
    ) -> None:
        """Write down what is there now."""
        items: dict[str, dict[str, Any]] = {}
        for name in names:
            item, want = {**self.record.items.get(name, {})}, self.wants.get(name)
            item.pop("left", None)
            if name in changes:
                if want is None:
                    continue
                known, item = item, {"laid": want}
                if name in jobs:
                    item = _of_job(jobs[name], known, want)
            elif want is None and (
                self.here[name] is None or item["laid"] is None or item.get("found")
            ):
                continue
            elif want is not None and self.here[name] == want != item.get("laid"):
                ours = item.get("laid") is not None or "next" in item
                item = {"laid": want} if ours else {"laid": want, "found": True}
            items[name] = {"laid": None, **item, "want": want}
            items[name].pop("next", None)
            if name in self.values:
                items[name]["path"] = self.values[name][0]
        record = self.record
        record.items, record.archive, record.unfinished = items, self.declared.digest, False
        record.write()


def _clear(stage: str) -> None:
    """Remove what is left of a laying, however deep the agent dug."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(stage, ignore_errors=True)
    if os.path.lexists(stage):
        subprocess.run(["rm", "-rf", "--", stage], check=False)


def _of_job(job: dict[str, Any], known: dict[str, Any], want: str | None) -> dict[str, Any]:
    """Return what is known of a job that Hermes wrote, or left as it was `known`."""
    if "left" in job:
        return {**known, "left": job["left"]}
    return {"laid": found.job_digest(job), "id": job["id"], "ends": found.job_ends(job), "of": want}

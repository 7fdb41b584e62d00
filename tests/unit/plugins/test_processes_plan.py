# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What a plan finds out about the processes of a deployment on this machine."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.action.show_plan import lines
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.agent.content import digest
from ansible_collections.hermes.workers.plugins.plugin_utils.build.installer import finish
from ansible_collections.hermes.workers.plugins.plugin_utils.build.runtime import Runtime
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.plan import Actual
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import (
    SUPERVISOR_RECORD,
    StateFolder,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.config import render
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.plan import (
    build_digest,
    processes_change,
    worker_built,
)


class Place:
    """A state folder with a build, and what runs from it."""

    def __init__(self, folder: Path) -> None:
        archive = b"what the agent is declared to be"
        self.settings = Settings(name="alice", state_dir=str(folder))
        self.settings.agent = {"archive": digest(archive), "parts": {}}
        self.deployment = StateFolder(str(folder), "alice")
        self.deployment.create()
        self.build = self.deployment.build
        self.runtime = Runtime(self.deployment, Sources(), print)
        self.rendered = render(self.settings, self.runtime.sources)
        (self.build / "config.capnp").write_text(self.rendered.text, encoding="utf-8")
        (self.build / "version").write_text(self.rendered.version)
        self.runtime.bundle.mkdir()
        (self.build / "agent.tar.gz").write_bytes(archive)
        for path in (self.build, self.runtime.bundle):
            (path / "worker.js").write_text("export default {};")
        finish(self.runtime.bundle, {})
        supervisor = {"host": self.runtime.sources.host, "ports": self.settings.ports}
        told = {"worker": {"version": self.rendered.version}}
        self.actual = Actual(supervisor, None, told, build=build_digest(self.build))

    def edit(self, name: str) -> None:
        with (self.build / name).open("a", encoding="utf-8") as file:
            file.write("# by hand\n")

    def planned(self, actual: Actual | None = None) -> str | None:
        found = processes_change(self.settings, self.runtime, self.rendered, actual or self.actual)
        return found and found.detail


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "state")


def test_what_runs_as_it_was_built_stays(place: Place) -> None:
    assert worker_built(place.settings, place.deployment, place.runtime, place.rendered)
    assert place.planned() is None


@pytest.mark.parametrize("name", ["config.capnp", "worker.js", "agent.tar.gz"])
def test_a_workerd_that_read_edited_files_is_started_again(place: Place, name: str) -> None:
    place.edit(name)
    assert not worker_built(place.settings, place.deployment, place.runtime, place.rendered)
    edited = replace(place.actual, build=build_digest(place.build))
    assert place.planned(edited) == "workerd runs from files that were changed by hand"
    assert place.planned() is None, "nobody has read them yet"


def test_a_workerd_of_which_nothing_was_noted_is_started_again(place: Place) -> None:
    assert place.planned(replace(place.actual, build="")) is not None


def test_a_worker_that_refuses_the_token_is_no_silent_one(place: Place) -> None:
    bare = Actual(place.actual.supervisor)
    assert place.planned(bare) == "the Worker does not answer"
    refusing = replace(bare, refuses=True)
    assert place.planned(refusing) == "the Worker refuses the token that is kept"


def test_the_plan_of_a_folder_that_was_moved_can_be_shown(place: Place) -> None:
    record = place.deployment.folder / SUPERVISOR_RECORD
    record.write_text(json.dumps({"pid": os.getpid(), "folder": "/before/alice"}))
    with record.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        change = processes_change(place.settings, place.runtime, place.rendered, place.actual)
    assert change
    shown = lines({"alice": {"changes": [vars(change)]}}, in_full=False)
    assert "  update  processes  moved here from /before/alice" in shown
    assert shown[-1].endswith("Restarts: alice (workerd, its engine and Hermes).")

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What of this machine stands against a deployment is told before anything is made."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils import controller
from ansible_collections.hermes.workers.plugins.plugin_utils.build import installer
from ansible_collections.hermes.workers.plugins.plugin_utils.build.runtime import Runtime
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.controller import Controller
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder


def machine(state: Path) -> Controller:
    deployment = StateFolder(str(state), "alice")
    return Controller(Settings(name="alice"), deployment, Runtime(deployment, Sources(), print))


def told(made: Controller) -> list[str]:
    return [f"{one.subject}: {one.sentence} {one.remedy}" for one in made.problems()]


def test_on_a_machine_that_has_all_there_is_nothing_to_say(tmp_path: Path) -> None:
    made = machine(tmp_path / "state")
    assert told(made) == []
    made.deployment.create()
    assert told(made) == [] and made.problems_of_keys() == [] and made.notes() == []


@pytest.mark.parametrize(
    ("module", "name", "value", "words"),
    [
        (installer.platform, "machine", lambda: "riscv64", "has no build of workerd"),
        (installer.os, "confstr", lambda _name: None, "needs glibc"),
        (controller.os.path, "exists", lambda _path: False, "mount -t proc proc /proc"),
    ],
    ids=["another processor", "musl", "no /proc"],
)
def test_a_machine_on_which_workerd_does_not_run_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    value: Callable[..., Any],
    words: str,
) -> None:
    made = machine(tmp_path / "state")
    monkeypatch.setattr(module, name, value)
    (only,) = [str(one.sentence) + one.remedy for one in made._platform()]
    assert words in only


def test_a_state_folder_that_cannot_be_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (line,) = told(machine(tmp_path / "file" / "state"))
    assert line.startswith(f"hermes_state_dir: {tmp_path / 'file'} is a file.")
    # Whoever runs the tests may write everywhere.
    monkeypatch.setattr(os, "access", lambda *_: False)
    (line,) = told(machine(tmp_path / "state"))
    assert "cannot be written by you" in line


def test_a_folder_that_others_can_read_is_told_with_what_closes_it(tmp_path: Path) -> None:
    made = machine(tmp_path / "a state")
    made.deployment.create()
    made.deployment.folder.chmod(0o750)
    (line,) = told(made)
    assert "open to other users (mode 0750)" in line and "chmod 700 '" in line


def test_a_disk_that_is_too_small_is_told_and_one_that_says_nothing_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = machine(tmp_path / "state")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=5_000_000))
    (line,) = told(made)
    assert line.startswith(f"disk: 5 MB free below {tmp_path}")

    def silent(_path: Path) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(shutil, "disk_usage", silent)
    assert told(made) == []


@pytest.mark.parametrize(
    ("node", "npm", "said", "used"),
    [
        (None, True, "no node on the PATH", False),
        ("exit 1", True, "does not run", False),
        ("echo nonsense", True, "does not run", False),
        ("echo v12.22.9", True, "the system's v12.22.9 is too old", False),
        ("echo v99.1.0", False, "node v99.1.0 comes without npm", False),
        ("echo v99.1.0", True, "system v99.1.0", True),
    ],
    ids=["none", "broken", "another", "old", "without npm", "new"],
)
def test_which_node_brings_the_tools_is_told_with_the_reason(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    node: str | None,
    npm: bool,
    said: str,
    used: bool,
) -> None:
    for name, text in (("node", node), ("npm", "" if npm else None)):
        if text is not None:
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    words = machine(tmp_path / "state").node()
    assert said in words
    assert ("from PyPI (" in words) is not used
    assert bool(installer.system_node()[0]) is used


def test_a_node_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hangs(command: list[str], **more: Any) -> Any:
        raise subprocess.TimeoutExpired(command, more["timeout"])

    monkeypatch.setattr(shutil, "which", lambda _name: "/usr/bin/node")
    monkeypatch.setattr(installer.subprocess, "run", hangs)
    assert installer.system_node() == (None, "/usr/bin/node does not run")


def test_installed_tools_need_no_node(tmp_path: Path) -> None:
    made = machine(tmp_path / "state")
    made.runtime.tools.mkdir(parents=True)
    installer.finish(made.runtime.tools, {})
    assert machine(tmp_path / "state").node() == "not needed, the tools are installed"

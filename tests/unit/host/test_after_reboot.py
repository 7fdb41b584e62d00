# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""After a reboot: what starts again, by whom, and with which keys. The reboot is the death of all processes at once."""

from __future__ import annotations

import json
import os
import plistlib
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import test_supervisor
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd import at_boot
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.at_boot import AtBoot
from test_supervisor import SCRIPT, Box

from tests.measured import measuring
from tests.processes import wait_for_ends

box = test_supervisor.box
KEY = "sk-canary-of-a-provider"
TOKEN = "token-canary"
SECRETS = {"API_TOKEN": TOKEN, "ANTHROPIC_API_KEY": KEY}


def started(box: Box, after_reboot: str) -> Box:
    (box.folder / "api_token").write_text(f"{TOKEN}\n")
    done = box.run(secrets=SECRETS, after_reboot=after_reboot)
    assert done.returncode == 0, done.stderr
    return box


def kept(box: Box) -> dict[str, Any]:
    path = box.folder / "boot.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return json.loads(path.read_text())


def reboot(box: Box) -> None:
    """End everything as a machine does, and start what its unit starts: in an environment with nothing in it."""
    processes = [psutil.Process(pid) for name, pid in box.pids().items() if name != "guardian"]
    box.kill_both()
    for process in processes:
        process.kill()
    wait_for_ends(processes)
    boot(box)


def boot(box: Box) -> None:
    command = [sys.executable, str(SCRIPT), "boot", "--folder", str(box.folder)]
    subprocess.run(
        command, check=True, env=measuring(), stdin=subprocess.DEVNULL, cwd="/", timeout=60
    )
    box.started.append(box.record()["pid"])


def environment(box: Box) -> dict[str, str]:
    return psutil.Process(box.pids()["workerd"]).environ()


def test_keys_are_kept_nowhere_unless_the_owner_chose_so(box: Box) -> None:
    started(box, "start")
    assert kept(box)["lacks"] == ["ANTHROPIC_API_KEY"]
    files = [path for path in box.folder.rglob("*") if path.is_file() and path.name != "api_token"]
    for path in files:
        assert KEY not in path.read_text(errors="replace"), path
        assert TOKEN not in path.read_text(errors="replace"), path


def test_without_keys_it_starts_with_its_token_and_tells_what_it_lacks(box: Box) -> None:
    started(box, "start")
    reboot(box)
    assert box.get()[2] == TOKEN
    assert "ANTHROPIC_API_KEY" not in environment(box)
    assert environment(box)["TZ"] == "UTC"
    assert kept(box)["lacking"] == ["ANTHROPIC_API_KEY"]
    box.ctl("set-secrets", SECRETS)
    assert environment(box)["ANTHROPIC_API_KEY"] == KEY
    assert (kept(box)["lacking"], kept(box)["lacks"]) == ([], ["ANTHROPIC_API_KEY"])
    box.ctl("set-secrets", {"API_TOKEN": TOKEN})
    assert kept(box)["lacks"] == [], "a key that is not wanted any more is not missed"


def test_with_its_keys_it_starts_as_it_was_rotated_ones_too(box: Box) -> None:
    started(box, "start_with_keys")
    box.ctl("change-secrets", {"ANTHROPIC_API_KEY": "sk-canary-the-second"})
    reboot(box)
    assert environment(box)["ANTHROPIC_API_KEY"] == "sk-canary-the-second"
    assert kept(box)["lacking"] == []
    # Nobody settled the change: it can still be taken back.
    box.ctl("undo-secrets")
    assert environment(box)["ANTHROPIC_API_KEY"] == KEY
    assert kept(box)["secrets"]["ANTHROPIC_API_KEY"] == KEY


def test_nothing_is_kept_where_it_is_to_stay_down(box: Box) -> None:
    started(box, "stay_down")
    assert not (box.folder / "boot.json").exists()
    box.ctl("restart", {"after_reboot": "start_with_keys"})
    assert kept(box)["secrets"]["ANTHROPIC_API_KEY"] == KEY
    box.ctl("restart", {"after_reboot": "start"})
    assert KEY not in (box.folder / "boot.json").read_text()
    box.ctl("restart", {"after_reboot": "stay_down"})
    assert not (box.folder / "boot.json").exists()


def test_a_start_beside_what_runs_changes_nothing(box: Box) -> None:
    started(box, "start")
    before = box.record()["pid"]
    boot(box)
    assert box.record()["pid"] == before


ODD = """it's a "state" of 100% $HOME"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AtBoot:
    """A deployment in an odd place, on a machine whose systemctl and loginctl write down what they are asked."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("systemctl", "loginctl"):
        program = programs / name
        program.write_text(f'#!/bin/sh\necho "{name} $@" >>"{tmp_path}/asked"\n')
        program.chmod(0o755)
    (tmp_path / "run" / "systemd").mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / ODD / "alice"
    folder.mkdir(parents=True)
    return AtBoot(StateFolder(str(folder.parent), "alice"), "alice-0123456789ab")


def host(folder: Path) -> Path:
    """A runtime as far as a unit names it."""
    for name in ("venv/bin/python", "supervisor.py"):
        path = folder / ODD / "host" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    return folder / ODD / "host"


def keep(made: AtBoot, **more: Any) -> None:
    (made.deployment.folder / "boot.json").write_text(json.dumps(more))


def test_the_unit_is_what_systemd_takes(made: AtBoot, tmp_path: Path) -> None:
    assert made.problems("start") == []
    assert made.differs("start", host(tmp_path)) == "after a reboot: stay_down -> start"
    keep(made, after_reboot="start")
    assert made.differs("start", host(tmp_path)) == "after a reboot: nothing starts it"
    assert made.settle("start", host(tmp_path)) == ""
    assert made.differs("start", host(tmp_path)) == ""
    asked = (tmp_path / "asked").read_text()
    assert "systemctl --user daemon-reload\n" in asked
    assert f"systemctl --user enable --quiet {made.path.name}\n" in asked
    assert "loginctl enable-linger\n" in asked
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not installed")
    # It looks for the program where systemd would: quotes, blanks and signs are read as they were meant.
    done = subprocess.run(
        [verify, "--user", "verify", str(made.path)],
        env={"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run"), "PATH": os.defpath},
        capture_output=True,
        text=True,
    )
    told = [line for line in done.stderr.splitlines() if made.path.name in line]
    assert told == [], done.stderr
    made.remove()
    assert not made.path.exists()
    assert "systemctl --user disable --quiet" in (tmp_path / "asked").read_text()


def test_a_user_who_may_not_linger_is_told_what_to_do(
    made: AtBoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin" / "loginctl").write_text("#!/bin/sh\nexit 1\n")
    monkeypatch.setattr(at_boot, "user", lambda: "alice")
    left = made.settle("start", host(tmp_path))
    assert left.endswith("sudo loginctl enable-linger alice")


def test_what_systemd_refuses_is_told_with_its_word(made: AtBoot, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "systemctl"
    program.write_text('#!/bin/sh\necho "$3"; echo no bus\n[ "$2" != enable ]\n')
    assert made.settle("start", host(tmp_path)) == "systemctl --user enable failed: no bus"


def test_what_is_to_stay_down_has_its_unit_taken_away(made: AtBoot, tmp_path: Path) -> None:
    assert made.settle("stay_down", host(tmp_path)) == ""
    assert not (tmp_path / "asked").exists()
    made.settle("start", host(tmp_path))
    os.utime(made.path, (0, 0))
    made.settle("start", host(tmp_path))
    assert made.path.stat().st_mtime == 0, "a unit that is as it should be is written again"
    (tmp_path / "asked").unlink()
    assert made.settle("stay_down", host(tmp_path)) == ""
    assert not made.path.exists()
    asked = (tmp_path / "asked").read_text().splitlines()
    name = made.path.name
    assert asked == [f"systemctl --user disable --quiet {name}", "systemctl --user daemon-reload"]


def test_where_there_are_no_such_means_it_is_refused(
    made: AtBoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")
    assert made.problems("stay_down") == []
    (problem,) = made.problems("start_with_keys")
    assert problem.subject == "hermes_after_reboot"


def test_on_macos_it_is_an_agent_of_launchd(
    made: AtBoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_boot.sys, "platform", "darwin")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert made.settle("start", host(tmp_path)) == ""
    (path,) = (tmp_path / "Library" / "LaunchAgents").iterdir()
    agent = plistlib.loads(path.read_bytes())
    assert agent["RunAtLoad"] is True and agent["AbandonProcessGroup"] is True
    assert agent["ProgramArguments"][2:] == ["boot", "--folder", str(made.deployment.folder)]
    made.remove()
    assert not path.exists()


@pytest.mark.parametrize(
    ("kept_so", "words", "lacking"),
    [
        ({}, "stays down; `make deploy` starts it", None),
        ({"after_reboot": "start"}, "starts again", None),
        (
            {"after_reboot": "start", "lacks": ["ANTHROPIC_API_KEY"], "lacking": ["A"]},
            "starts again, without ANTHROPIC_API_KEY; then run `make deploy`",
            "A, not kept for a reboot; run `make deploy`",
        ),
        ({"after_reboot": "start_with_keys"}, "starts again; its keys are kept in ", None),
    ],
)
def test_the_status_says_which_holds(
    made: AtBoot, tmp_path: Path, kept_so: dict[str, Any], words: str, lacking: str | None
) -> None:
    if kept_so:
        keep(made, **kept_so)
        made.settle("start", host(tmp_path))
    assert made.words("make deploy").startswith(words)
    assert made.lacking("make deploy") == lacking
    if kept_so:
        made.path.unlink()
        assert made.words("make deploy").startswith("stays down, for ")

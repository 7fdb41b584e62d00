# SPDX-License-Identifier: Apache-2.0
"""What the start script gives Hermes besides what came with `go`."""

import shutil
import subprocess
from pathlib import Path

import pytest
from sandbox_box import CONTAINER, write_program


@pytest.mark.parametrize(
    ("told", "target"),
    [
        ({"HERMES_LAZY_INSTALLS": "true"}, "home/lazy-packages"),
        ({"HERMES_LAZY_INSTALLS": "false"}, None),
        ({}, None),
        ({"HERMES_LAZY_INSTALL_TARGET": "/elsewhere"}, None),
    ],
)
@pytest.mark.parametrize("words", [[], ["dashboard"]], ids=["gateway", "dashboard"])
def test_hermes_may_fetch_packages_only_where_it_was_said(
    tmp_path: Path, told: "dict[str, str]", target: "str | None", words: "list[str]"
) -> None:
    write_program(tmp_path / "python", "env\n")
    write_program(tmp_path / "hermes", "")
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HERMES_HOME": str(tmp_path / "home"), **told}
    script = CONTAINER / "start-hermes.sh"
    done = subprocess.run(
        ["sh", script, *words], env=environ, capture_output=True, text=True, check=True
    )
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert found["HERMES_DISABLE_LAZY_INSTALLS"] == "1", "the image itself stays as it is"
    wanted = str(tmp_path / target) if target else None
    assert found.get("HERMES_LAZY_INSTALL_TARGET") == wanted


@pytest.mark.parametrize("has", [True, False], ids=["chromium", "none"])
def test_a_browser_of_the_image_is_hermes_and_leaves_nothing_of_an_earlier_process(
    tmp_path: Path, has: bool
) -> None:
    for name in ("python", "hermes"):
        write_program(tmp_path / name, "env\n")
    script = Path(shutil.copy(CONTAINER / "start-hermes.sh", tmp_path))
    browser = tmp_path / "bin" / "chromium"
    if has:
        browser.parent.mkdir()
        write_program(browser, "")
    profile = tmp_path / "tmp" / "agent-browser-chrome-1" / "Default"
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HERMES_HOME": str(tmp_path / "home")}
    environ["TMPDIR"] = str(tmp_path / "tmp")
    for words in (["dashboard"], []):
        profile.mkdir(parents=True, exist_ok=True)
        command = ["sh", script, *words]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        found = dict(line.split("=", 1) for line in done.stdout.splitlines())
        assert found.get("AGENT_BROWSER_EXECUTABLE_PATH") == (str(browser) if has else None)
        in_use = words or not has
        assert profile.exists() is bool(in_use), "the dashboard starts beside a Hermes that browses"

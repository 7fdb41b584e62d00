# SPDX-License-Identifier: Apache-2.0
"""What the start script gives Hermes besides what came with `go`."""

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

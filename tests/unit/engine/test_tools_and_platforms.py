# SPDX-License-Identifier: Apache-2.0
"""The page of what works names all that the pinned Hermes has, and nothing else; a new one is told by its name."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tools import what_works

ASKED = """
import json
from gateway.config import Platform
from hermes_cli.tools_config import CONFIGURABLE_TOOLSETS
from tools.lazy_deps import LAZY_DEPS, feature_missing
from toolsets import TOOLSETS

platforms = {one.value for one in Platform} | Platform._scan_bundled_plugin_platforms()
chosen = {name for name, _label, _tools in CONFIGURABLE_TOOLSETS}
print(json.dumps({
    "platform": sorted(platforms),
    "toolset": sorted(chosen),
    "others": sorted(name for name in {*TOOLSETS} - chosen if not name.startswith("hermes-")),
    "lacks": {one: feature_missing(f"platform.{one}") for one in platforms if f"platform.{one}" in LAZY_DEPS},
}))
"""


@pytest.fixture(scope="module")
def told(image: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the pinned Hermes without features says that it has."""
    home = str(tmp_path_factory.mktemp("home"))
    asked = subprocess.run(
        [image / "venv" / "bin" / "python", "-P", "-c", ASKED],
        env={"HERMES_HOME": home, "HOME": home, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(asked.stdout.splitlines()[-1]))


@pytest.mark.parametrize("kind", ["toolset", "platform"])
def test_each_has_a_row(told: dict[str, Any], kind: str) -> None:
    assert sorted(row.name for row in what_works.rows(kind)) == told[kind]


def test_the_other_toolsets_are_named_too(told: dict[str, Any]) -> None:
    assert sorted(what_works.others()) == told["others"]


def test_what_its_own_channels_lack_is_said(told: dict[str, Any]) -> None:
    said = {
        row.name: set(row.packages) for row in what_works.rows("platform") if row.by == "hermes"
    }
    lacks = {
        name: {one.partition("==")[0].partition("[")[0] for one in told["lacks"].get(name, ())}
        for name in said
    }
    assert said == lacks

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""How much room a deploy asks for: what is installed already needs none again."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.build import installer
from ansible_collections.hermes.workers.plugins.plugin_utils.build.runtime import (
    IMAGE_MARKER,
    Runtime,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setattr(installer, "system_node", lambda: (None, "none"))
    return Runtime(StateFolder(str(tmp_path), "hermes"), Sources(), print)


def finish(folder: Path, marker: str = installer.COMPLETE) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    installer.finish(folder, {}, marker)


def test_each_part_that_is_there_is_room_that_is_not_asked_for(runtime: Runtime) -> None:
    asked = [runtime.missing_bytes()]
    for folder, marker in (
        (runtime.image, IMAGE_MARKER),
        (runtime.tools, installer.COMPLETE),
        (runtime.host, installer.COMPLETE),
    ):
        finish(folder, marker)
        asked.append(runtime.missing_bytes())
    assert asked == [900_000_000, 450_000_000, 50_000_000, 0]


def test_node_is_asked_room_for_only_where_it_is_installed(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installer, "system_node", lambda: ("/usr/bin/node", "system v24"))
    assert runtime.missing_bytes() == 690_000_000


def test_an_engine_asks_room_for_its_own_parts(tmp_path: Path, runtime: Runtime) -> None:
    for engine, needed in (("docker", 450_000_000), ("cloudflare", 650_000_000)):
        other = Runtime(StateFolder(str(tmp_path), "hermes"), Sources(), print, engine)
        assert other.missing_bytes() == needed


def test_what_a_killed_installation_left_is_room(runtime: Runtime) -> None:
    """The next one removes it before it begins; what is linked elsewhere too would stay on the disk."""
    runtime.image.mkdir(parents=True)
    (runtime.image / "part").write_bytes(b"x" * 1_000_000)
    found = runtime.missing_bytes()
    assert found <= 899_000_000
    (runtime.image / "linked").hardlink_to(runtime.image / "part")
    assert runtime.missing_bytes() == 900_000_000

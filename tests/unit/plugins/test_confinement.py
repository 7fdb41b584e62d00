# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""The plan knows what the engine will find: whether bubblewrap confines the next Hermes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.confinement import confines

PROBE = ["bwrap", "--unshare-user", "--ro-bind", "/", "/", "true"]
WORKS = shutil.which("bwrap") and subprocess.run(PROBE, check=False).returncode == 0


def ask() -> bool:
    """Ask anew, as the next play would."""
    confines.cache_clear()
    return confines(Sources().container)


@pytest.mark.skipif(not WORKS, reason="bubblewrap does not work here")
def test_a_bubblewrap_that_works_confines() -> None:
    assert ask()


def test_one_that_is_missing_or_refused_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not ask()
    (tmp_path / "bwrap").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.defpath}")
    assert not ask()

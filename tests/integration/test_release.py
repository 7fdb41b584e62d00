# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""One command makes a release of a clone, and none where something speaks against it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from plays import copy_checkout

WHO = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Somebody"), ("EMAIL", "somebody@example.com"))
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with the checkout as it is now, and nothing released."""
    folder = tmp_path / "clone"
    folder.mkdir()
    copy_checkout(folder)
    for words in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "-m", "Begin")):
        subprocess.run(["git", *words], cwd=folder, env={**os.environ, **WHO}, check=True)
    link = ".ansible/collections/ansible_collections/hermes/workers"
    subprocess.run(
        [sys.executable, "requirements/bootstrap.py", link, "--link"], cwd=folder, check=True
    )
    return folder


def release(clone: Path, version: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.release", version],
        cwd=clone,
        env={**os.environ, **WHO, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )


def git(clone: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=clone, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_what_fails_on_the_way_leaves_nothing(clone: Path) -> None:
    broken = clone / "changelogs" / "fragments" / "broken.yml"
    broken.write_text("bugfixes: [")
    git(clone, "add", "--all")
    subprocess.run(
        ["git", "commit", "--quiet", "-m", "Break"],
        cwd=clone,
        env={**os.environ, **WHO},
        check=True,
    )
    failed = release(clone, "7.0.1")
    assert failed.returncode == 1
    assert "No release was made: antsibull-changelog failed" in failed.stderr
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "tag", "--list") == ""


def test_one_command_makes_it(clone: Path) -> None:
    before = git(clone, "rev-parse", "HEAD")
    fragments = list((clone / "changelogs" / "fragments").glob("*.yml"))
    assert fragments
    done = release(clone, "7.0.1")
    assert done.returncode == 0, done.stderr
    assert git(clone, "rev-parse", "v7.0.1^{commit}") == git(clone, "rev-parse", "HEAD")
    assert git(clone, "rev-parse", "HEAD~1") == before
    assert git(clone, "status", "--porcelain") == ""
    assert "hermes-workers-7.0.1.tar.gz" in (clone / "README.md").read_text()
    assert "/hermes-workers-7.0.1.tar.gz" in (clone / "execution-environment.yml").read_text()
    changes = (clone / "CHANGELOG.rst").read_text()
    assert "v7.0.1" in changes
    assert "Bugfixes" in changes
    assert not list((clone / "changelogs" / "fragments").glob("*.yml"))
    with tarfile.open(clone / "hermes-workers-7.0.1.tar.gz") as tarball:
        assert "CHANGELOG.rst" in tarball.getnames()

    # What has just been released is not released again, and nothing is without a change.
    head = git(clone, "rev-parse", "HEAD")
    for version, words in (
        ("7.0.1", "released already"),
        ("7.0.2", "no fragment"),
        ("seven", "is not a version"),
        ("", "is not a version"),
    ):
        refused = release(clone, version)
        assert refused.returncode == 2
        assert words in refused.stderr
    (clone / "README.md").write_text("mine")
    assert "changes that no commit has" in release(clone, "7.0.3").stderr
    assert git(clone, "rev-parse", "HEAD") == head
    assert (clone / "README.md").read_text() == "mine"

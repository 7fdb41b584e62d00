# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A backup on the controller is what it is said to be: the only other copy may be deleted next."""

from __future__ import annotations

import gzip
import hashlib
import json
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.client import Answer, Unreachable
from ansible_collections.hermes.workers.plugins.plugin_utils import backups

ARCHIVE = b"the state of Hermes" * 1000
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()
LINE = json.dumps({"sha256": SHA256, "bytes": len(ARCHIVE)}).encode() + b"\n"
BACKUP = {"id": 7, "bytes": len(ARCHIVE), "sha256": SHA256, "created": "2026-11-26T12:00:00.000Z"}
OTHER = json.dumps({"sha256": "0" * 64}).encode() + b"\n"


class Worker:
    """Answers a download with some bytes."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def download(self, path: str, write: Callable[[bytes], Any], _seconds: float) -> Answer:
        assert path == "/api/instance/backups/7"
        for start in range(0, len(self.content), 4096):
            write(self.content[start : start + 4096])
        return Answer(200, {}, b"")


def test_a_whole_backup_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "backups" / "hermes.hermes"
    backups.download(Worker(LINE + ARCHIVE), BACKUP, path)  # type: ignore[arg-type]
    assert path.read_bytes() == LINE + ARCHIVE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert backups.difference(path, BACKUP) == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LINE + ARCHIVE[:-1], "has 18999 bytes, not 19000"),
        (LINE + ARCHIVE[:-1] + b"X", "SHA-256 is another"),
        (LINE + ARCHIVE + b"X", "has 19001 bytes, not 19000"),
        (LINE, "has 0 bytes"),
        (b"", "has 0 bytes"),
        (OTHER + ARCHIVE, "manifest is of another backup"),
        (b"<html>\n" + ARCHIVE, "first line is no manifest"),
    ],
)
def test_what_is_cut_or_changed_is_refused_and_not_kept(
    content: bytes, words: str, tmp_path: Path
) -> None:
    with pytest.raises(Unreachable, match=words):
        backups.download(Worker(content), BACKUP, tmp_path / "hermes.hermes")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    folder = tmp_path / "storage"
    (folder / "object").mkdir(parents=True)
    (folder / "object" / "rows.sqlite").write_bytes(ARCHIVE)
    (folder / "alarms").write_bytes(b"soon")
    return folder


def test_a_packed_folder_holds_what_it_held(storage: Path, tmp_path: Path) -> None:
    path = tmp_path / "backups" / "hermes.tar.gz"
    backups.pack(storage, path)
    assert backups.holds(path, storage)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["hermes.tar.gz"]


@pytest.mark.parametrize("harm", ["cut", "changed", "left out"])
def test_a_packed_folder_that_lacks_something_is_noticed(
    harm: str, storage: Path, tmp_path: Path
) -> None:
    path = tmp_path / "hermes.tar.gz"
    backups.pack(storage, path)
    packed = bytearray(gzip.decompress(path.read_bytes()))
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif harm == "changed":
        packed[packed.index(ARCHIVE[:19])] ^= 1
        path.write_bytes(gzip.compress(bytes(packed)))
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.add(storage / "alarms", arcname="storage/alarms")
    assert not backups.holds(path, storage)


def test_a_folder_whose_archive_does_not_read_back_is_not_packed(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backups, "holds", lambda *_: False)
    with pytest.raises(OSError, match="does not read back"):
        backups.pack(storage, tmp_path / "hermes.tar.gz")
    assert list(tmp_path.glob("hermes*")) == []

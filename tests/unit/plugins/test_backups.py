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
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import (
    Answer,
    Unreachable,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.state import backups

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


class Taking:
    """A Worker that takes parts, and refuses or cuts as it is told: one entry for each request to come."""

    def __init__(self, *troubles: int | Exception | None) -> None:
        self.troubles = list(troubles)
        self.parts: dict[int, bytes] = {}
        self.sent: list[int] = []
        self.asked: list[str] = []

    def request(self, method: str, path: str, **_more: Any) -> Answer:
        self.asked.append(method)
        place, _, query = path.partition("?")
        assert place == f"/api/instance/backups/uploads/{WHOLE_SHA256}"
        if method == "POST":
            whole = b"".join(self.parts[n] for n in sorted(self.parts))
            return answer(200, {"backup": {"bytes": len(whole)}}) if whole == WHOLE else answer(409)
        count = int(query.removeprefix("parts="))
        return answer(200, {"missing": [n for n in range(count) if n not in self.parts]})

    def upload(self, path: str, content: bytes, _seconds: float) -> Answer:
        n = int(path.partition("?")[0].rpartition("/")[2])
        assert path.endswith(f"&sha256={hashlib.sha256(content).hexdigest()}")
        self.sent.append(n)
        trouble = self.troubles.pop(0) if self.troubles else None
        if isinstance(trouble, Exception):
            raise trouble
        if trouble:
            return answer(trouble)
        self.parts[n] = content
        return answer(200, {"missing": []})


WHOLE = bytes(range(100))
WHOLE_SHA256 = hashlib.sha256(WHOLE).hexdigest()


def answer(status: int, content: Any = None) -> Answer:
    return Answer(status, {}, json.dumps(content).encode())


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A backup of four parts, and no patience between attempts."""
    monkeypatch.setattr(backups, "PART", 30)
    monkeypatch.setattr(backups, "PAUSES", (0.0, 0.0))
    path = tmp_path / "one.hermes"
    path.write_bytes(WHOLE)
    return path


def test_no_part_is_larger_than_the_worker_and_the_edge_let_in() -> None:
    assert backups.PART <= 64 * 1024 * 1024 < backups.ONE_BODY


def test_a_backup_is_sent_in_parts(whole: Path) -> None:
    worker = Taking()
    told: list[str] = []
    done = backups.upload(worker, whole, told.append)  # type: ignore[arg-type]
    assert (done.status, worker.sent) == (200, [0, 1, 2, 3])
    assert all(len(part) <= 30 for part in worker.parts.values())
    assert "uploaded part 4 of 4" in told


def test_a_part_that_was_cut_is_sent_again_and_no_other(whole: Path) -> None:
    worker = Taking(None, Unreachable("cut"), 503, None)
    assert backups.upload(worker, whole, print).status == 200  # type: ignore[arg-type]
    assert worker.sent == [0, 1, 1, 1, 2, 3]


def test_an_upload_that_broke_off_goes_on_with_what_is_missing(whole: Path) -> None:
    gone = [Unreachable("gone")] * 3
    worker = Taking(None, None, *gone)
    with pytest.raises(Unreachable):
        backups.upload(worker, whole, print)  # type: ignore[arg-type]
    assert "POST" not in worker.asked
    worker.sent.clear()
    told: list[str] = []
    assert backups.upload(worker, whole, told.append).status == 200  # type: ignore[arg-type]
    assert worker.sent == [2, 3]
    assert told[0] == "2 of 4 parts are there already"


def test_a_part_that_is_refused_is_not_sent_again(whole: Path) -> None:
    worker = Taking(507)
    assert backups.upload(worker, whole, print).status == 507  # type: ignore[arg-type]
    assert worker.sent == [0]


def test_a_state_over_100_mb_has_a_word_said_of_it() -> None:
    assert backups.size_words(100_000_000) == ""
    words = backups.size_words(150_000_000)
    assert words.startswith("150 MB") and "in parts" in words and "256 MB" in words

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A backup on the controller is what it is said to be: the only other copy may be deleted next."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import (
    Answer,
    Unreachable,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.state import backups, stored
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder

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
    path = tmp_path / "not" / "there" / "yet" / "hermes.hermes"
    backups.download(Worker(LINE + ARCHIVE), BACKUP, path)
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
        backups.download(Worker(content), BACKUP, tmp_path / "hermes.hermes")
    assert list(tmp_path.iterdir()) == []


SCHEMA = """
CREATE TABLE generations (id INTEGER PRIMARY KEY AUTOINCREMENT, boot TEXT, digest TEXT, sha256 TEXT, bytes INTEGER,
  created INTEGER, reason TEXT, image TEXT, manifest TEXT, state TEXT, note TEXT{});
CREATE TABLE chunks (generation INTEGER, n INTEGER, data BLOB, PRIMARY KEY (generation, n));
CREATE TABLE sign_ins (content BLOB);
INSERT INTO sign_ins VALUES ('sk-canary-of-a-sign-in');
"""


def generation(rows: sqlite3.Connection, number: int, content: bytes, **more: Any) -> None:
    """Write a generation as the Worker's vault does; more: columns that say otherwise."""
    digest = hashlib.sha256(content).hexdigest()
    row = {
        "id": number,
        "sha256": digest,
        "bytes": len(content),
        "created": 1795694400000 + number,
        "manifest": json.dumps({"sha256": digest, "bytes": len(content)}),
        "state": "good",
    }
    row |= more
    rows.execute("INSERT INTO generations (id) VALUES (?)", (number,))
    for name, value in row.items():
        rows.execute(f"UPDATE generations SET {name} = ? WHERE id = ?", (value, number))  # noqa: S608
    body = row.get("body") or number
    for n in range(0, len(content), 4096):
        rows.execute(
            "INSERT INTO chunks VALUES (?, ?, ?)", (body, n // 4096, content[n : n + 4096])
        )


@contextmanager
def storage(folder: Path, further: str = ", body INTEGER") -> Iterator[sqlite3.Connection]:
    """The files of an object that does not run: what it wrote last is in the file beside."""
    (folder / "object").mkdir(parents=True)
    (folder / "object" / "metadata.sqlite").write_bytes(b"alarms")
    with closing(sqlite3.connect(folder / "object" / "a1.sqlite")) as rows:
        rows.execute("PRAGMA journal_mode=WAL")
        rows.executescript(SCHEMA.format(further))
        yield rows
        rows.commit()
        held = sqlite3.connect(folder / "object" / "a1.sqlite")
        held.execute("SELECT * FROM generations").fetchall()
    assert (folder / "object" / "a1.sqlite-wal").stat().st_size > 0
    # Whoever ends last writes the file beside back; an object that was killed did not.
    for name in ("a1.sqlite", "a1.sqlite-wal"):
        shutil.copy(folder / "object" / name, folder / name)
    held.close()
    for name in ("a1.sqlite", "a1.sqlite-wal"):
        (folder / name).replace(folder / "object" / name)


def test_the_newest_backup_is_taken_out_of_the_files_of_an_object(tmp_path: Path) -> None:
    with storage(tmp_path / "storage") as rows:
        generation(rows, 1, b"older")
        generation(rows, 2, ARCHIVE, body=-7)
        generation(rows, 3, b"not tried yet", state="offered")
        generation(rows, 4, b"broken", state="damaged")
    path = stored.newest(tmp_path / "storage", "alice", tmp_path / "backups")
    assert path.name == f"alice-20261126-120000-{SHA256[:8]}.hermes"
    assert path.read_bytes() == LINE + ARCHIVE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_one_that_is_not_what_it_should_be_gives_way_to_the_one_before(tmp_path: Path) -> None:
    with storage(tmp_path / "storage") as rows:
        generation(rows, 1, ARCHIVE)
        generation(rows, 2, b"cut", bytes=4)
        generation(rows, 3, b"changed", sha256="0" * 64)
    path = stored.newest(tmp_path / "storage", "alice", tmp_path / "backups")
    assert path.read_bytes() == LINE + ARCHIVE
    with storage(tmp_path / "other") as rows:
        generation(rows, 2, b"cut", bytes=4)
    with pytest.raises(stored.NoBackup, match="it has 3 bytes, not 4"):
        stored.newest(tmp_path / "other", "alice", tmp_path / "backups")
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_files_without_a_backup_say_nothing_and_broken_ones_why(tmp_path: Path) -> None:
    with storage(tmp_path / "storage"):
        pass
    with pytest.raises(stored.NoBackup, match=r"^$"):
        stored.newest(tmp_path / "storage", "alice", tmp_path)
    with closing(sqlite3.connect(tmp_path / "storage" / "object" / "another.sqlite")) as rows:
        rows.execute("CREATE TABLE of_somebody_else (id INTEGER)")
    with pytest.raises(stored.NoBackup, match=r"^$"):
        stored.newest(tmp_path / "storage", "alice", tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a1.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(stored.NoBackup, match="not a database"):
        stored.newest(tmp_path / "broken", "alice", tmp_path)


def test_what_an_earlier_release_packed_is_taken_too(tmp_path: Path) -> None:
    with storage(tmp_path / "storage", further="") as rows:
        generation(rows, 1, ARCHIVE)
    archive = tmp_path / "alice-20261126-120000.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tmp_path / "storage", arcname="storage")
    path = stored.unpacked(archive, "alice", tmp_path / "not" / "there" / "yet")
    assert path.read_bytes() == LINE + ARCHIVE
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(stored.NoBackup):
        stored.unpacked(archive, "alice", tmp_path / "backups")


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
    done = backups.upload(worker, whole, told.append)
    assert (done.status, worker.sent) == (200, [0, 1, 2, 3])
    assert all(len(part) <= 30 for part in worker.parts.values())
    assert "uploaded part 4 of 4" in told


def test_a_part_that_was_cut_is_sent_again_and_no_other(whole: Path) -> None:
    worker = Taking(None, Unreachable("cut"), 503, None)
    assert backups.upload(worker, whole, print).status == 200
    assert worker.sent == [0, 1, 1, 1, 2, 3]


def test_an_upload_that_broke_off_goes_on_with_what_is_missing(whole: Path) -> None:
    gone = [Unreachable("gone")] * 3
    worker = Taking(None, None, *gone)
    with pytest.raises(Unreachable):
        backups.upload(worker, whole, print)
    assert "POST" not in worker.asked
    worker.sent.clear()
    told: list[str] = []
    assert backups.upload(worker, whole, told.append).status == 200
    assert worker.sent == [2, 3]
    assert told[0] == "2 of 4 parts are there already"


def test_a_part_that_is_refused_is_not_sent_again(whole: Path) -> None:
    worker = Taking(507)
    assert backups.upload(worker, whole, print).status == 507
    assert worker.sent == [0]


def test_a_state_over_100_mb_has_a_word_said_of_it() -> None:
    assert backups.size_words(100_000_000) == ""
    words = backups.size_words(150_000_000)
    assert words.startswith("150 MB") and "in parts" in words and "256 MB" in words


class Keeping:
    """A Worker that keeps these backups, or answers otherwise."""

    def __init__(self, *states: str, status: int = 200) -> None:
        self.states = states
        self.status = status

    def request(self, _method: str, _path: str, **_more: Any) -> Answer:
        kept = [{"id": n, "state": state} for n, state in enumerate(self.states)]
        return answer(self.status, {"backups": kept})


def test_the_newest_whole_backup_of_a_worker_is_told_from_none() -> None:
    """Of no answer it is not told that there is none: a destroy would go on."""
    assert backups.newest(Keeping("offered", "damaged", "good", "good")) == {
        "id": 2,
        "state": "good",
    }
    assert backups.newest(Keeping("offered")) is None
    assert backups.newest(Keeping()) is None
    with pytest.raises(Unreachable):
        backups.newest(Keeping("good", status=503))


def test_backups_on_the_controller_are_found_by_their_deployment_newest_first(
    tmp_path: Path,
) -> None:
    deployment = StateFolder(str(tmp_path), "alice")
    assert backups.on_disk(deployment) == []
    folder = backups.folder_of(deployment)
    folder.mkdir()
    mine = [f"alice-2026112{day}-120000-0a1b2c3d.hermes" for day in (6, 5)]
    for name in (*mine, "alice-b-20261127-120000-0a1b2c3d.hermes", f"{mine[0]}.partial"):
        (folder / name).touch()
    assert [path.name for path in backups.on_disk(deployment)] == mine

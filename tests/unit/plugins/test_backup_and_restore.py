# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A backup is downloaded and put back: what the Worker is asked, what is on the disk, and what is told."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.action import restore as restoring
from ansible_collections.hermes.workers.plugins.action.backup import ActionModule as Backup
from ansible_collections.hermes.workers.plugins.plugin_utils.state import backups
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.storage import Storage
from api_server import Reply
from deployed_here import HEALTH, DeployedHere, error, here

__all__ = ["here"]

Restore = restoring.ActionModule
SAVE = f"POST {backups.PATH}"
ARCHIVE = b"the state of Hermes" * 100
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()
CONTENT = json.dumps({"sha256": SHA256}).encode() + b"\n" + ARCHIVE
WHOLE = hashlib.sha256(CONTENT).hexdigest()
BACKUP = {"id": 7, "bytes": len(ARCHIVE), "sha256": SHA256, "created": "2026-11-26T12:00:00.000Z"}
FILE = f"alice-20261126-120000-{SHA256[:8]}.hermes"
UPLOAD = f"{backups.PATH}/uploads/{WHOLE}"


@pytest.fixture
def saved(here: DeployedHere) -> DeployedHere:
    """The deployment of a Worker that has saved something."""
    here.answers |= {SAVE: {"backup": BACKUP}, f"GET {backups.PATH}/7": Reply(200, CONTENT)}
    return here


def downloads(here: DeployedHere) -> int:
    return sum(call.path == f"{backups.PATH}/7" for call in here.worker.calls)


def test_a_backup_is_downloaded_once_and_what_changed_on_the_disk_again(
    saved: DeployedHere,
) -> None:
    path = saved.deployment.state_dir / "backups" / FILE
    first = saved.run(Backup)
    assert first["changed"] is True and first["path"] == str(path)
    assert path.read_bytes() == CONTENT
    assert first["shown"][:3] == ["", "alice: backed up", f"  backup  state/backups/{FILE}"]
    assert f"hermes_backup=state/backups/{FILE}" in first["shown"][-1]
    again = saved.run(Backup)
    assert again["changed"] is False and downloads(saved) == 1
    assert again["shown"][1] == "alice: backed up already, nothing has changed since"
    path.write_bytes(CONTENT[:-1])
    assert saved.run(Backup)["changed"] is True
    assert path.read_bytes() == CONTENT and downloads(saved) == 2


def test_a_backup_goes_to_the_folder_that_is_named(saved: DeployedHere, tmp_path: Path) -> None:
    result = saved.run(Backup, {"folder": str(tmp_path / "elsewhere")})
    assert result["path"] == str(tmp_path / "elsewhere" / FILE)
    assert (tmp_path / "elsewhere" / FILE).read_bytes() == CONTENT


def test_a_try_of_a_backup_has_nothing_saved(saved: DeployedHere) -> None:
    assert saved.run(Backup, check=True)["changed"] is True
    assert saved.worker.calls == []


@pytest.mark.parametrize(
    ("key", "reply", "words"),
    [
        (
            SAVE,
            {"backup": None},
            "alice: there is nothing to back up: Hermes has never been awake.",
        ),
        (SAVE, error(507, "It is too large."), "alice: It is too large."),
        (f"GET {backups.PATH}/7", Reply(200, CONTENT[:-1]), "the backup did not arrive"),
        (f"GET {backups.PATH}/7", error(404, "It is gone."), "did not arrive: It is gone."),
        (f"GET {backups.PATH}/7", Reply(drop=True), "alice: the backup did not arrive"),
    ],
    ids=["never awake", "refused", "cut", "gone", "broken"],
)
def test_a_backup_that_cannot_be_had_leaves_no_file(
    saved: DeployedHere, key: str, reply: Any, words: str
) -> None:
    saved.answers[key] = reply
    result = saved.run(Backup)
    assert result["failed"] and words in result["msg"]
    assert list(saved.deployment.state_dir.rglob("*.hermes*")) == []


def test_a_large_backup_has_a_word_said_of_it(
    saved: DeployedHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backups, "ONE_BODY", 10)
    note = saved.run(Backup)["shown"][3]
    assert note.startswith("  note    0 MB: Cloudflare lets in no more than 100 MB at once")


@pytest.fixture
def kept(here: DeployedHere) -> Path:
    """A backup in the default folder, and a Worker that takes it."""
    folder = backups.folder_of(here.deployment)
    folder.mkdir()
    path = folder / FILE
    path.write_bytes(CONTENT)
    here.answers |= {
        f"GET {UPLOAD}": {"missing": [0]},
        f"PUT {UPLOAD}/0": {},
        f"POST {UPLOAD}": {"backup": BACKUP},
        "GET /api/health": HEALTH | {"storage": {"id": "abc", "backups": 2}},
    }
    return path


@pytest.mark.parametrize("named", ["newest", "file"])
def test_a_backup_is_put_back_and_its_storage_is_the_known_one(
    here: DeployedHere, kept: Path, named: str
) -> None:
    options = {"backup": "newest" if named == "newest" else str(kept)}
    tried = here.run(Restore, options, check=True)
    assert tried == tried | {"changed": True, "path": str(kept)} and here.asked == []
    result = here.run(Restore, options)
    assert result["changed"] is True and result["backup"] == BACKUP
    assert here.asked == [f"PUT {UPLOAD}/0", f"POST {UPLOAD}"]
    assert here.worker.writes[0].content == CONTENT
    assert Storage(here.deployment).known() == {"id": "abc", "backups": 2}
    assert result["shown"][1] == f"alice: restored, Hermes runs with state/backups/{FILE}"


@pytest.mark.parametrize(
    ("key", "reply", "words"),
    [
        (f"GET {UPLOAD}", error(404, "no"), "alice: the Worker is of an earlier release"),
        (f"POST {UPLOAD}", error(422, "It is damaged."), "alice: it was not restored: It is dam"),
        (f"PUT {UPLOAD}/0", error(413, "Too large."), "alice: it was not restored: Too large."),
        (f"POST {UPLOAD}", Reply(drop=True), "alice: the upload broke off: "),
        ("GET /api/health", error(401, "no"), "alice: the Worker does not take the token in"),
    ],
    ids=["an earlier release", "damaged", "refused", "broken off", "another token"],
)
def test_a_backup_that_is_not_taken_is_told_with_why(
    here: DeployedHere, kept: Path, key: str, reply: Reply, words: str
) -> None:
    here.answers[key] = reply
    result = here.run(Restore, {"backup": str(kept)})
    assert result["failed"] and result["msg"].startswith(words)
    assert Storage(here.deployment).known() is None and "shown" not in result


def test_what_is_no_backup_is_not_sent(
    here: DeployedHere, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "letter").write_text("Dear Anna")
    (tmp_path / "old.tar.gz").write_bytes(b"\x1f\x8bcut")
    (tmp_path / "large").write_bytes(CONTENT)
    monkeypatch.setattr(restoring, "CAP", len(CONTENT) - 1)
    for named, words in (
        ("", "hermes_backup: not set."),
        ("nowhere", "hermes_backup: there is no file nowhere."),
        ("state", "hermes_backup: there is no file state."),
        ("letter", "hermes_backup: letter is not a backup of Hermes."),
        ("large", "hermes_backup: large has 0 MB, and a backup has at most"),
        ("old.tar.gz", "hermes_backup: old.tar.gz holds no backup of Hermes: "),
    ):
        result = here.run(Restore, {"backup": named})
        assert result["failed"] and result["msg"].startswith(words), result["msg"]
        assert here.asked == []
        if named != "old.tar.gz":
            assert f"There is state/backups/{FILE}." in result["msg"]


def test_a_file_that_one_may_not_read_is_told_as_that(
    here: DeployedHere, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring.os, "access", lambda *_: False)
    card = here.run(Restore, {"backup": str(kept)})["msg"]
    assert card.startswith(f"hermes_backup: state/backups/{FILE} cannot be read.")


def test_of_no_backup_at_all_it_is_told_how_to_have_one(here: DeployedHere) -> None:
    card = here.run(Restore, {"backup": "newest"})["msg"]
    assert card.startswith("hermes_backup: there is no backup in state/backups.")
    assert "hermes.workers.backup` makes one." in card


def test_files_of_an_object_without_a_backup_are_told_as_that(
    here: DeployedHere, kept: Path, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "old.tar.gz", "w:gz"):
        pass
    card = here.run(Restore, {"backup": "old.tar.gz"})["msg"]
    assert card.startswith("hermes_backup: old.tar.gz holds no backup of Hermes.")
    assert here.asked == []

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A deployment whose memory is not what it was is not started over it."""

from __future__ import annotations

import re
import shutil
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.config import STORAGE_KEY
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.storage import Storage

ID = str(uuid.uuid4())


def command(playbook: str, **variables: str) -> str:
    """What a person types, told apart from what a text might hold by itself."""
    return " ".join(["run", playbook, *(f"{name}={variables[name]}" for name in variables)])


def fill(storage: Storage, identity: str = ID) -> Path:
    """Make the files as workerd does, with a mark as the Worker serialises it and a backup in rows."""
    folder = storage.folder / STORAGE_KEY
    folder.mkdir(parents=True, exist_ok=True)
    sqlite3.connect(folder / "metadata.sqlite").executescript("CREATE TABLE _cf_ALARM (at)")
    path = folder / "0a1b.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE _cf_KV (key TEXT PRIMARY KEY, value BLOB)")
        mark = b'\xff\x0fo"\x02id"$' + identity.encode() + b'"\x05sinceN\x00{\x02'
        database.execute("INSERT INTO _cf_KV VALUES ('storage', ?)", (mark,))
        database.execute("CREATE TABLE chunks (bytes BLOB)")
        database.executemany("INSERT INTO chunks VALUES (randomblob(?))", [(3000,)] * 20)
    database.close()
    return path


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    deployment = StateFolder(str(tmp_path / "state"), "alice")
    deployment.create()
    made = Storage(deployment)
    fill(made)
    made.note({"id": ID, "since": "2026-03-01T12:00:00.000Z", "backups": 2})
    return made


def removed(path: Path) -> None:
    shutil.rmtree(path.parent)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def overwritten(path: Path) -> None:
    path.write_bytes(b"garbage" * 1000)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def a_page_lost(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8192:12288] = bytes(4096)
    path.write_bytes(content)


def test_what_it_had_is_what_it_has(storage: Storage) -> None:
    assert storage.flaw() is None
    assert storage.problems(command) == []


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (removed, "is gone"),
        (emptied, "is empty"),
        (overwritten, "is damaged (file is not a database)"),
        (cut, "is damaged"),
        (a_page_lost, "is damaged"),
    ],
)
def test_what_became_of_it_is_told_with_what_to_do(
    storage: Storage, harm: Callable[[Path], None], words: str
) -> None:
    backups = storage.deployment.state_dir / "backups"
    backups.mkdir()
    for name in ("alice-20260301-120000-0a1b2c3d", "alice-20260302-120000-0a1b2c3e"):
        (backups / f"{name}.hermes").touch()
    harm(storage.folder / STORAGE_KEY / "0a1b.sqlite")
    [problem] = storage.problems(command)
    assert words in problem.sentence
    assert "it had 2 backups" in problem.sentence
    assert re.search(
        r"`run restore hermes_backup=\S*alice-20260302-120000-0a1b2c3e.hermes`", problem.remedy
    )
    assert "`run deploy hermes_forget=true`" in problem.remedy


def test_of_a_worker_that_tells_nothing_nothing_is_noted(storage: Storage) -> None:
    storage.note(None)
    assert storage.known() == {"id": ID, "backups": 2}


def test_another_ones_files_are_not_its_own(storage: Storage) -> None:
    removed(storage.folder / STORAGE_KEY / "0a1b.sqlite")
    fill(storage, str(uuid.uuid4()))
    assert storage.flaw() == "is another one than it had"


def test_a_first_deploy_has_nothing_to_lose(tmp_path: Path) -> None:
    deployment = StateFolder(str(tmp_path / "state"), "alice")
    assert Storage(deployment).problems(command) == []
    deployment.create()
    assert Storage(deployment).problems(command) == []


def test_whoever_lets_it_go_begins_empty_and_keeps_what_is_there(storage: Storage) -> None:
    overwritten(storage.folder / STORAGE_KEY / "0a1b.sqlite")
    storage.forget()
    assert storage.problems(command) == []
    assert list(storage.folder.iterdir()) == []
    [aside] = storage.folder.parent.glob("storage.lost-*")
    assert (aside / STORAGE_KEY / "0a1b.sqlite").read_bytes().startswith(b"garbage")


def test_who_would_let_it_go_loses_nothing_that_is_sound(storage: Storage) -> None:
    storage.forget()
    assert (storage.folder / STORAGE_KEY / "0a1b.sqlite").stat().st_size > 0
    assert not list(storage.folder.parent.glob("storage.lost-*"))


def test_a_running_worker_that_lost_it_is_told_and_not_noted_as_the_one_it_had(
    storage: Storage,
) -> None:
    told = {"id": str(uuid.uuid4()), "since": "2026-03-03T12:00:00.000Z", "backups": 0}
    assert "had 2 backups" in storage.lost(told, command).render()
    assert storage.lost({**told, "id": ID}, command) is None

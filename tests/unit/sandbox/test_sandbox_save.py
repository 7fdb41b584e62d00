# SPDX-License-Identifier: Apache-2.0
"""What is saved, that it is consistent, and that equal states have equal digests."""

import hashlib
import os
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sandbox_box import Box, header


@pytest.fixture
def full(box: Box) -> Box:
    return box.pretend().fill()


def test_a_saved_state_comes_back_whole(full: Box, new_box: Callable[[], Box]) -> None:
    archive = full.save()
    other = new_box().pretend(restored=False)
    other.ok("restore", stdin=archive)
    assert other.tree() == full.tree()
    assert header(other.save())["digest"] == header(archive)["digest"]


def test_the_header_describes_the_archive(full: Box) -> None:
    archive = full.save()
    described, body = header(archive), archive.split(b"\n", 1)[1]
    assert described["bytes"] == len(body)
    assert described["sha256"] == hashlib.sha256(body).hexdigest()
    assert (described["boot"], described["databases"]) == (full.boot, ["state.db"])


def test_keys_logs_caches_and_what_belongs_to_a_process_stay_behind(
    full: Box, new_box: Callable[[], Box]
) -> None:
    before = full.tree()
    for name in (
        ".env",
        "gateway.pid",
        "gateway.lock",
        "gateway_state.json",
        "processes.json",
        "logs/agent.log",
        "cache/x",
        "skills/greet/__pycache__/a.pyc",
        "plugins/p/venv/bin/python",
        "state/gateway.heartbeat",
        "cron/ticker_heartbeat",
    ):
        path = full.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("left behind")
    (full.home / "memories" / "MEMORY.md.lock").touch()
    (full.home / "skills" / "greet" / "uv.lock").write_text("content, so no lock of a process")
    (full.home / "auth.json").write_text("{}")
    os.mkfifo(full.home / "fifo")
    other = new_box().pretend(restored=False)
    other.ok("restore", stdin=full.save())
    kept = set(other.tree()) - set(before)
    assert kept == {
        "auth.json",
        "skills/greet/uv.lock",
        "plugins",
        "plugins/p",
        "state",
        "cron",
    }


def test_links_that_lead_out_stay_behind_and_those_within_become_relative(
    full: Box, new_box: Callable[[], Box]
) -> None:
    (full.home / "out").symlink_to("/etc/passwd")
    (full.home / "up").symlink_to("../..")
    (full.home / "skills" / "absolute").symlink_to(full.home / "memories")
    other = new_box().pretend(restored=False)
    other.ok("restore", stdin=full.save())
    assert not os.path.lexists(other.home / "out")
    assert not os.path.lexists(other.home / "up")
    assert os.readlink(other.home / "skills" / "absolute") == "../memories"


def test_an_unchanged_state_is_not_sent_again(full: Box) -> None:
    digest = header(full.save())["digest"]
    for name in ("state/gateway.heartbeat", "cron/ticker_heartbeat", "logs/agent.log"):
        (full.home / name).parent.mkdir(exist_ok=True)
    digest = header(full.save())["digest"]
    (full.home / "state" / "gateway.heartbeat").write_text(str(time.time()))
    os.utime(full.home / "memories" / "MEMORY.md")
    again = full.command("save", "--unless", digest)
    assert (again.returncode, again.stdout) == (3, b"")


def _write(home: Path) -> None:
    (home / "memories" / "MEMORY.md").write_text("the user's cat is called Eva\n")


def _insert(home: Path) -> None:
    with sqlite3.connect(home / "state.db") as database:
        database.execute("UPDATE messages SET text = 'other' WHERE id = 7")


@pytest.mark.parametrize(
    "change",
    [
        _write,
        _insert,
        lambda home: (home / "skills" / "greet" / "run.sh").chmod(0o644),
        lambda home: (home / "sessions").rmdir(),
        lambda home: (home / "latest").rename(home / "newest"),
        lambda home: (home / "a-file-nobody-knows.bin").unlink(),
    ],
)
def test_every_change_changes_the_digest(full: Box, change: Callable[[Path], None]) -> None:
    before = header(full.save())["digest"]
    change(full.home)
    after = full.command("save", "--unless", before)
    assert after.returncode == 0
    assert header(after.stdout)["digest"] != before


def test_a_database_in_use_is_saved_with_what_was_committed(
    full: Box, new_box: Callable[[], Box]
) -> None:
    database = sqlite3.connect(full.home / "state.db", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("INSERT INTO messages (text) VALUES ('committed, not checkpointed')")
    database.execute("BEGIN")
    database.execute("INSERT INTO messages (text) VALUES ('not committed')")
    other = new_box().pretend(restored=False)
    other.ok("restore", stdin=full.save())
    database.close()
    restored = sqlite3.connect(other.home / "state.db")
    texts = [row[0] for row in restored.execute("SELECT text FROM messages WHERE id > 500")]
    restored.close()
    assert texts == ["committed, not checkpointed"]
    assert not list(other.home.glob("state.db-*"))


def test_saves_during_writes_are_consistent_and_hold_nobody_up(
    full: Box, new_box: Callable[[], Box]
) -> None:
    stop, waits = threading.Event(), []

    def write() -> None:
        database = sqlite3.connect(full.home / "state.db", timeout=5, isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        while not stop.is_set():
            began = time.monotonic()
            database.execute("INSERT INTO messages (text) VALUES (?)", ("x" * 2000,))
            waits.append(time.monotonic() - began)
            (full.home / "sessions" / "now.json").write_text("y" * (len(waits) % 5000))
        database.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        archives = [full.save() for _ in range(5)]
    finally:
        stop.set()
        writer.join()
    assert max(waits) < 1.0
    for archive in archives:
        new_box().pretend(restored=False).ok("restore", stdin=archive)


@pytest.mark.parametrize("spoil", ["header", "page", "truncate"])
def test_a_damaged_database_is_not_saved(full: Box, spoil: str) -> None:
    path = full.home / "state.db"
    content = bytearray(path.read_bytes())
    if spoil == "truncate":
        del content[len(content) // 2 + 100 :]
    else:
        at = 0 if spoil == "header" else 4096 * 3
        content[at : at + 200] = os.urandom(200)
    path.write_bytes(content)
    done = full.command("save")
    assert (done.returncode, done.stdout) == (71, b"")
    assert b"state.db" in done.stderr.splitlines()[-1]


def test_a_home_without_its_memory_is_not_saved_once_hermes_ran(full: Box) -> None:
    (full.run / "state.json").write_text('{"state": "running", "everReady": true}')
    (full.home / "state.db").unlink()
    done = full.command("save")
    assert (done.returncode, done.stdout) == (71, b"")


def test_a_ghost_cannot_be_saved(full: Box) -> None:
    assert full.command("save", boot="boot-2").returncode == 65


def test_nothing_is_saved_before_a_restore(box: Box) -> None:
    box.pretend(restored=False).home.mkdir()
    assert box.command("save").returncode == 67
    (box.run / "restored").write_text("boot-0")
    assert box.command("save").returncode == 67


@pytest.mark.parametrize(
    "words", [("save", "--unless"), ("save", "--what"), ("logs", "--lines", "x"), ("nothing",)]
)
def test_wrong_usage_is_told_apart(full: Box, words: "tuple[str, ...]") -> None:
    assert full.command(*words).returncode == 64


def test_a_full_disk_is_reported_and_leaves_no_rest(full: Box) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    done = full.command("save", preexec_fn=limit)
    assert (done.returncode, done.stdout) == (73, b"")
    assert [path.name for path in full.home.parent.iterdir()] == [".hermes"]


def test_a_full_disk_while_a_database_is_copied_is_no_damage(full: Box) -> None:
    (full.home / "a-file-nobody-knows.bin").unlink()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    assert full.command("save", preexec_fn=limit).returncode == 73


def test_what_a_killed_save_left_is_removed_by_the_next(full: Box) -> None:
    left = full.home.parent / ".hermes.saving-left"
    left.mkdir()
    (left / "archive").write_text("half")
    full.save()
    assert not left.exists()


def test_large_files_are_not_held_in_memory(full: Box, new_box: Callable[[], Box]) -> None:
    block = os.urandom(1 << 20)
    with open(full.home / "large.bin", "wb") as file:
        file.writelines(block for _ in range(120))
    archive = full.folder / "archive"
    other = new_box().pretend(restored=False)
    for sandbox, word, stdin, stdout in (
        (full, "save", os.devnull, archive),
        (other, "restore", archive, os.devnull),
    ):
        probe = (
            "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr);"
            "sys.exit(code)"
        )
        with open(stdin, "rb") as source, open(stdout, "wb") as target:
            command = [f"{sandbox.image}/bin/sandbox", word, "--boot", sandbox.boot]
            done = subprocess.run(
                [sys.executable, "-c", probe, *command],
                env=sandbox.environ,
                stdin=source,
                stdout=target,
                stderr=subprocess.PIPE,
                check=True,
            )
        assert int(done.stderr.split()[-1]) < 60_000  # KiB
    assert (other.home / "large.bin").stat().st_size == 120 << 20

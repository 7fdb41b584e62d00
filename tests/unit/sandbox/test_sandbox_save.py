# SPDX-License-Identifier: Apache-2.0
"""What is saved, that it is consistent, and that equal states have equal digests."""

import fcntl
import hashlib
import json
import os
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sandbox_box import Box, dump, header


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
    os.mkfifo(full.home / "fifo")
    other = new_box().pretend(restored=False)
    other.ok("restore", stdin=full.save())
    kept = set(other.tree()) - set(before)
    assert kept == {
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
    # Nor is it packed first: there need be no room for that.
    few = {"preexec_fn": lambda: resource.setrlimit(FSIZE, (1_000_000, 1_000_000))}
    assert full.command("save", "--unless", digest, **few).returncode == 3


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


def test_a_database_that_only_aged_is_the_same(full: Box) -> None:
    """Its journal mode is nothing that Hermes remembers."""
    before = header(full.save())["digest"]
    database = sqlite3.connect(full.home / "state.db", isolation_level=None)
    assert database.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
    database.close()
    assert full.command("save", "--unless", before).returncode == 3


def test_what_looks_like_a_database_further_into_a_file_is_content(full: Box) -> None:
    """What ages there is in the first bytes of a database, not of any part that is read."""
    path = full.home / "two-of-them.bin"
    first = bytes(1 << 20)
    path.write_bytes(first + b"SQLite format 3\0" + bytes(100))
    before = header(full.save())["digest"]
    path.write_bytes(first + b"SQLite format 3\0" + bytes(8) + b"x" + bytes(91))
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
    assert max(waits) < 5.0
    for archive in archives:
        new_box().pretend(restored=False).ok("restore", stdin=archive)


@pytest.mark.parametrize("spoil", ["header", "page", "truncate", "contents"])
def test_a_damaged_database_is_not_saved(full: Box, spoil: str) -> None:
    path = full.home / "state.db"
    if spoil == "contents":  # every page can be read and copied; only a check finds it
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE strict (a)")
            database.execute("INSERT INTO strict VALUES (NULL)")
            database.execute("PRAGMA writable_schema = ON")
            database.execute(
                "UPDATE sqlite_master SET sql = 'CREATE TABLE strict (a NOT NULL)'"
                " WHERE name = 'strict'"
            )
        database.close()
    content = bytearray(path.read_bytes())
    if spoil == "truncate":
        del content[len(content) // 2 + 100 :]
    elif spoil != "contents":
        at = 0 if spoil == "header" else 4096 * 3
        content[at : at + 200] = os.urandom(200)
    path.write_bytes(content)
    done = full.command("save")
    assert (done.returncode, done.stdout) == (71, b"")
    assert b"state.db" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("left", [20, 60, 100, 4096])
def test_a_further_database_of_hermes_that_is_cut_short_is_not_saved_as_an_empty_one(
    full: Box, left: int
) -> None:
    (full.home / "kanban.db").write_bytes((full.home / "state.db").read_bytes()[:left])
    done = full.command("save")
    assert (done.returncode, done.stdout) == (71, b"")
    assert b"kanban.db" in done.stderr


@pytest.mark.parametrize(("found", "code"), [("SQLITE_IOERR_READ", 74), ("SQLITE_CORRUPT", 71)])
def test_a_page_that_could_not_be_read_is_no_damage(full: Box, found: str, code: int) -> None:
    told = f"Tree 2 page 3: unable to get the page. error code={getattr(sqlite3, found)}"
    line = '    if verdict != "ok":\n'
    full.change("state/databases.py", line, f"    verdict = {told!r}\n{line}")
    assert full.command("save").returncode == code


def test_a_database_that_may_not_be_read_is_no_damaged_one(full: Box) -> None:
    (full.home / "state.db").chmod(0)
    done = full.obeys("save", code=74)
    assert done.stdout == b""
    assert b"state.db could not be read" in done.stderr


@pytest.mark.parametrize("spoil", ["missing", "empty", "folder", "link", "another", "tables gone"])
def test_a_home_without_hermes_memory_is_not_saved(full: Box, spoil: str) -> None:
    state = full.home / "state.db"
    content = state.read_bytes()
    state.unlink()
    if spoil == "empty":
        state.touch()
    elif spoil == "folder":
        state.mkdir()
    elif spoil == "link":
        (full.home / "elsewhere.db").write_bytes(content)
        state.symlink_to("elsewhere.db")
    elif spoil == "another":
        sqlite(state, "CREATE TABLE bookmarks (url TEXT)")
    elif spoil == "tables gone":
        state.write_bytes(content)
        sqlite(state, "DROP TABLE messages")
    done = full.command("save")
    assert (done.returncode, done.stdout) == (71, b"")
    assert b"state.db" in done.stderr.splitlines()[-1]


def sqlite(path: Path, *statements: str) -> None:
    """Run statements on a database, which is made when it is not there."""
    database = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        database.execute(statement)
    database.close()


def test_the_header_counts_what_hermes_remembers(full: Box) -> None:
    described = header(full.save())
    assert (described["sessions"], described["messages"]) == (0, 500)
    sqlite(full.home / "state.db", "DELETE FROM messages WHERE id > 3")
    assert header(full.save())["messages"] == 3


def test_a_sparse_file_beyond_all_bounds_is_named_before_anything_is_copied(full: Box) -> None:
    with open(full.home / "skills" / "disk.img", "wb") as file:
        file.truncate(8 << 30)
    done = full.command("save", preexec_fn=lambda: resource.setrlimit(FSIZE, (0, 0)))
    assert (done.returncode, done.stdout) == (72, b"")
    assert b"skills/disk.img: 8192 MB" in done.stderr
    assert [path.name for path in full.home.parent.iterdir()] == [".hermes"]


FSIZE = resource.RLIMIT_FSIZE


def test_what_does_not_pack_is_named_when_the_archive_passes_its_bound(full: Box) -> None:
    full.change("state/archive.py", "PACKED = 256 << 20", "PACKED = 5 << 20")
    full.save()
    (full.home / "noise").write_bytes(os.urandom(6 << 20))
    done = full.command("save", preexec_fn=lambda: resource.setrlimit(FSIZE, (8 << 20, 8 << 20)))
    assert (done.returncode, done.stdout) == (72, b"")
    assert b"noise: 6 MB" in done.stderr and b"Hermes' files" in done.stderr


def test_a_file_that_grows_without_end_while_it_is_read_ends_the_save(full: Box) -> None:
    full.change("state/members.py", "UNPACKED = 1 << 30", "UNPACKED = 4 << 20")
    full.save()
    # What `stat` says is no longer so.
    full.change("state/archive.py", "file.read(CHUNK)", "file.read(CHUNK) or bytes(CHUNK)")
    assert full.command("save").returncode == 72


def test_a_database_of_somebody_else_never_stops_a_save(
    full: Box, new_box: Callable[[], Box]
) -> None:
    """A cut download, a broken one, one of no known kind, one that is in use by its own rules."""
    skill = full.home / "skills" / "greet"
    sound = (full.home / "state.db").read_bytes()
    (skill / "cut.db").write_bytes(sound[: len(sound) // 2 + 100])
    (skill / "short.db").write_bytes(sound[:20])
    (full.home / "state.db.corrupt.20260101.bak").write_bytes(sound[:4096] + os.urandom(8192))
    locked = sqlite3.connect(skill / "locked.db", isolation_level=None)
    for statement in ("PRAGMA locking_mode=EXCLUSIVE", "CREATE TABLE t (x)", "BEGIN EXCLUSIVE"):
        locked.execute(statement)
    used = sqlite3.connect(skill / "used.db", isolation_level=None)
    for statement in ("PRAGMA journal_mode=WAL", "CREATE TABLE t (x)", "INSERT INTO t VALUES (7)"):
        used.execute(statement)
    archive = full.command("save", timeout=30).stdout
    other = new_box().pretend(restored=False)
    other.ok("restore", stdin=archive)
    used.close()
    locked.close()
    assert header(archive)["databases"] == ["state.db"]
    for name in ("cut.db", "short.db", "locked.db"):
        assert (other.home / "skills" / "greet" / name).read_bytes() == (skill / name).read_bytes()
    # Before anything opens it, which would lay what is beside it into it.
    assert not (other.home / "skills" / "greet" / "used.db-wal").exists()
    assert dump(other.home / "skills" / "greet" / "used.db") == dump(skill / "used.db")
    other.save()


def test_a_sound_database_of_somebody_else_is_the_same_after_a_restore(
    full: Box, new_box: Callable[[], Box]
) -> None:
    sqlite(full.home / "notes.sqlite", "CREATE TABLE t (x)", "INSERT INTO t VALUES (7)")
    sqlite(full.home / "notes.sqlite", "PRAGMA journal_mode=WAL")
    archive = full.save()
    other = new_box().pretend(restored=False)
    other.ok("restore", stdin=archive)
    assert other.command("save", "--unless", header(archive)["digest"]).returncode == 3


@pytest.fixture
def left(full: Box) -> Iterator["dict[str, bytes]"]:
    """What a crash left of a database, half of a change and the journal that takes it back, by suffix."""
    database = sqlite3.connect(full.folder / "made.db", isolation_level=None)
    for statement in (
        "CREATE TABLE sessions (id TEXT)",
        "CREATE TABLE messages (x)",
        "INSERT INTO messages WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 3000) SELECT i FROM n",
        "PRAGMA cache_size = 1",
        "BEGIN",
        "UPDATE messages SET x = 'half of it ' || x",
    ):
        database.execute(statement)
    yield {name: (full.folder / f"made{name}").read_bytes() for name in (".db", ".db-journal")}
    database.close()


def test_a_database_of_somebody_else_that_a_crash_left_is_not_mended(
    full: Box, new_box: Callable[[], Box], left: "dict[str, bytes]"
) -> None:
    for name, content in left.items():
        (full.home / f"notes{name}").write_bytes(content)
    other = new_box().pretend(restored=False)
    other.ok("restore", stdin=full.save())
    for name, content in left.items():
        assert (full.home / f"notes{name}").read_bytes() == content
        assert (other.home / f"notes{name}").read_bytes() == content


def test_hermes_memory_that_a_crash_left_is_saved_as_it_was_before_the_change(
    full: Box, new_box: Callable[[], Box], left: "dict[str, bytes]"
) -> None:
    for name, content in left.items():
        (full.home / f"state{name}").write_bytes(content)
    other = new_box().pretend(restored=False)
    other.ok("restore", stdin=full.save())
    restored = sqlite3.connect(other.home / "state.db")
    found = [row[0] for row in restored.execute("SELECT x FROM messages")]
    restored.close()
    assert found == [*range(1, 3001)]


def test_a_broken_database_of_somebody_else_keeps_what_its_process_wrote_beside_it(
    full: Box, new_box: Callable[[], Box]
) -> None:
    for name, content in (
        ("a.db", b"SQLite format 3\0" + os.urandom(8192)),
        ("a.db-wal", b"w"),
        ("a.db-shm", b"s"),
    ):
        (full.home / name).write_bytes(content)
    other = new_box().pretend(restored=False)
    other.ok("restore", stdin=full.save())
    assert (other.home / "a.db-wal").read_bytes() == b"w"
    assert not (other.home / "a.db-shm").exists()


def test_what_is_only_named_like_the_memory_of_a_process_is_kept(
    full: Box, new_box: Callable[[], Box]
) -> None:
    for name in ("alone-shm", "diary", "diary-shm", "begun.db-wal", "begun.db-shm"):
        (full.home / name).write_text("mine")
    (full.home / "begun.db").touch()  # all that is in it is still beside it
    other = new_box().pretend(restored=False)
    other.ok("restore", stdin=full.save())
    for name in ("alone-shm", "diary-shm", "begun.db-wal"):
        assert (other.home / name).read_text() == "mine"
    assert not (other.home / "begun.db-shm").exists()


def test_two_thousand_databases_are_saved_under_a_header_that_the_worker_takes(
    full: Box, new_box: Callable[[], Box]
) -> None:
    folder = full.home / "skills" / ("a name that makes the list long " * 3)
    folder.mkdir()
    (folder / "0.db").write_bytes(b"SQLite format 3\0" + bytes(84))
    for number in range(1, 2000):
        os.link(folder / "0.db", folder / f"{number}.db")
    archive = full.save()
    assert archive.index(b"\n") < 64 * 1024
    new_box().pretend(restored=False).ok("restore", stdin=archive)


def test_what_may_not_be_read_is_left_out_and_named(full: Box, new_box: Callable[[], Box]) -> None:
    (full.home / "sessions" / "inner").mkdir()
    (full.home / "sessions" / "inner" / "x").write_text("x")
    (full.home / "sessions" / "inner").chmod(0)
    (full.home / "memories" / "MEMORY.md").chmod(0)
    (full.home / ("deep/" * 70)).mkdir(parents=True)
    archive = full.obeys("save").stdout
    left_out = header(archive)["leftOut"]
    assert "sessions/inner: no permission to read it" in left_out
    assert "memories/MEMORY.md: no permission to read it" in left_out
    assert any(item.startswith("deep/") and "deeper" in item for item in left_out)
    assert len(left_out) == 3
    other = new_box().pretend(restored=False)
    other.ok("restore", stdin=archive)
    assert not (other.home / "memories" / "MEMORY.md").exists()
    assert (other.home / "skills" / "greet" / "run.sh").exists()
    assert full.obeys("save", "--unless", header(archive)["digest"], code=3).stdout == b""


def test_packages_that_hermes_fetched_are_saved_until_they_would_hold_up_what_it_remembers(
    full: Box, new_box: Callable[[], Box]
) -> None:
    fetched = full.home / "lazy-packages" / "exa_py"
    fetched.mkdir(parents=True)
    (fetched / "__init__.py").write_text("x = 1")
    other = new_box().pretend(restored=False)
    other.ok("restore", stdin=full.save())
    assert (other.home / "lazy-packages" / "exa_py" / "__init__.py").read_text() == "x = 1"
    with (fetched / "large.so").open("wb") as file:
        file.truncate(97 << 20)
    archive = full.save()
    (said,) = header(archive)["leftOut"]
    assert said.startswith("lazy-packages: it has more than 96 MB")
    third = new_box().pretend(restored=False)
    third.ok("restore", stdin=archive)
    assert not (third.home / "lazy-packages").exists()
    assert (third.home / "memories" / "MEMORY.md").exists()


def test_the_list_of_what_is_left_out_has_bounds(full: Box) -> None:
    for number in range(300):
        (full.home / f"{number:03} {'x' * 240}").touch(mode=0)
    described = header(full.obeys("save").stdout)
    assert described["leftOut"][-1] == "and 280 more"
    assert len(json.dumps(described)) < 10_000
    for path in sorted(full.home.glob("??? *"))[20:]:
        path.unlink()
    described = header(full.obeys("save").stdout)
    assert len(described["leftOut"]) == 20 and "more" not in described["leftOut"][-1]


def test_what_vanishes_while_it_is_read_is_no_failure(
    full: Box, new_box: Callable[[], Box]
) -> None:
    """After it was found and before it is read: gone, shut, a folder now, its folder a file now."""
    (full.home / "gone").write_text("x")
    (full.home / "shut").write_text("x")
    sqlite(full.home / "gone.sqlite", "CREATE TABLE t (x)")
    line = "        self._require_bounds()\n"
    swap = (
        "        import pathlib\n"
        "        home = pathlib.Path(paths.home)\n"
        "        (home / 'gone').unlink()\n"
        "        (home / 'shut').chmod(0)\n"
        "        (home / 'gone.sqlite').unlink()\n"
        "        (home / 'a-file-nobody-knows.bin').unlink()\n"
        "        (home / 'a-file-nobody-knows.bin').mkdir()\n"
        "        shutil.rmtree(home / 'memories')\n"
        "        (home / 'memories').touch()\n"
    )
    full.change("state/save.py", line, line + swap)
    archive = full.obeys("save").stdout
    other = new_box().pretend(restored=False)
    other.ok("restore", stdin=archive)
    for name in ("gone", "shut", "gone.sqlite", "a-file-nobody-knows.bin", "memories/MEMORY.md"):
        assert not (other.home / name).exists()
    assert (other.home / "skills" / "greet" / "run.sh").exists()
    left_out = header(archive)["leftOut"]
    assert not any("gone" in line or "MEMORY" in line for line in left_out)
    assert "shut: no permission to read it" in left_out


def test_a_save_does_not_wait_for_another_for_ever(full: Box) -> None:
    full.change("paths.py", "LOCK_PATIENCE = 120.0", "LOCK_PATIENCE = 0.3")
    with open(full.run / "save.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = full.command("save", timeout=15)
    assert (done.returncode, done.stdout) == (75, b"")
    assert b"save.lock" in done.stderr
    full.save()


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

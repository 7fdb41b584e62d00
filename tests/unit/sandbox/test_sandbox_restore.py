# SPDX-License-Identifier: Apache-2.0
"""A restore is all or nothing, and an archive is never trusted."""

import functools
import gzip
import hashlib
import io
import itertools
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from sandbox_box import Box, header

KILLED_AT_A_STEP = """
import os, signal, sys

left, sys.path[:0] = int(sys.argv[1]), [sys.argv[2]]


def count(event, _):
    global left
    if event not in ("os.mkdir", "os.remove", "os.rename", "os.rmdir"):
        return
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(count)
from sandbox.cli import main

sys.exit(main(sys.argv[3:]))
"""
CHOSEN = random.Random(1)  # noqa: S311 - the same places in every run


@pytest.fixture
def archive(new_box: Callable[[], Box]) -> bytes:
    return new_box().pretend().fill().save()


@pytest.fixture
def old(box: Box) -> Box:
    """A sandbox with a state on its disk that no failed restore may touch."""
    box.pretend(restored=False).home.mkdir()
    (box.home / "old").write_text("old")
    return box


def refused(box: Box, archive: bytes, code: int = 70) -> None:
    """Assert that a restore fails with `code`, changes nothing and sets no marker."""
    before = box.tree()
    done = box.command("restore", stdin=archive)
    assert done.returncode == code, done.stderr
    assert done.stderr.strip()
    assert box.tree() == before
    assert not (box.run / "restored").exists()
    assert [path.name for path in box.home.parent.iterdir()] == [".hermes"]


def crafted(*members: "tuple[tarfile.TarInfo, bytes]", **changes: object) -> bytes:
    """Return an archive with right checksums around members that no save writes, and a memory."""
    members, databases = (member("state.db", memory()), *members), ["state.db"]
    return sealed(members, databases, changes)


def sealed(
    members: "Sequence[tuple[tarfile.TarInfo, bytes]]",
    databases: "list[str]",
    changes: "dict | None" = None,
) -> bytes:
    """Return an archive of just these members with right checksums, and with `changes`."""
    digest, raw = hashlib.sha256(), io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
            kind = {tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "link"}.get(info.type, "file")
            kind = "database" if info.name in databases else kind
            plain = kind in ("file", "database")
            hashed = hashlib.sha256(timeless(content)).hexdigest() if plain else info.linkname
            mode = info.mode if kind != "link" else 0
            digest.update(json.dumps([info.name, kind, mode, hashed]).encode() + b"\n")
    promised = {"digest": digest.hexdigest(), "files": len(members), "databases": databases}
    return packed(raw.getvalue(), {**promised, **(changes or {})})


def packed(raw: bytes, promised: dict) -> bytes:
    """Return a tar as an archive that promises just this."""
    body = gzip.compress(raw, 1)
    described = {
        "format": 1,
        "boot": "b",
        "sha256": hashlib.sha256(body).hexdigest(),
        "bytes": len(body),
    }
    return json.dumps({**described, **promised}).encode() + b"\n" + body


def timeless(content: bytes) -> bytes:
    """Return a file's content as digests see it: without what only ages in a database."""
    changed = bytearray(content)
    if content.startswith(b"SQLite format 3\0"):
        for start, end in ((18, 20), (24, 28), (40, 44), (92, 100)):
            changed[start:end] = bytes(end - start)
    return bytes(changed)


@functools.cache
def memory(*tables: str) -> bytes:
    """Return a database with these tables, else with those of Hermes' memory."""
    database = sqlite3.connect(":memory:")
    for table in tables or ("sessions", "messages"):
        database.execute(f"CREATE TABLE {table} (id TEXT)")
    content = database.serialize()
    database.close()
    return content


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> "tuple[tarfile.TarInfo, bytes]":
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o644
    return info, content


def test_crafted_archives_are_accepted_when_they_are_harmless(old: Box) -> None:
    link = member("inside", kind=tarfile.SYMTYPE, link="folder/file")
    folder = member("folder", kind=tarfile.DIRTYPE)
    old.ok("restore", stdin=crafted(folder, member("folder/file", b"x"), link))
    assert (old.home / "inside").read_text() == "x"


FOLDER = tarfile.DIRTYPE
LINK = tarfile.SYMTYPE


@pytest.mark.parametrize(
    "members",
    [
        [member("../out", b"x")],
        [member("/tmp/out", b"x")],
        [member("a", kind=FOLDER), member("a/../../out", b"x")],
        [member("./a", b"x")],
        [member("a//b", b"x")],
        [member("nowhere/file", b"x")],
        [member("out", kind=LINK, link="/etc")],
        [member("out", kind=LINK, link="../..")],
        [member("out", kind=LINK, link="../.."), member("out/file", b"x")],
        [member("here", kind=LINK, link="."), member("here/file", b"x")],
        [
            member("a", kind=FOLDER),
            member("a/up", kind=LINK, link=".."),
            member("out", kind=LINK, link="a/up/../.."),
        ],
        [member("a", b"x"), member("b", kind=tarfile.LNKTYPE, link="a")],
        [member("b", kind=tarfile.LNKTYPE, link="/etc/passwd")],
        [member("device", kind=tarfile.CHRTYPE)],
        [member("device", kind=tarfile.BLKTYPE)],
        [member("pipe", kind=tarfile.FIFOTYPE)],
        [member("twice", b"x"), member("twice", b"y")],
        [member("twice", b"x"), member("twice", kind=FOLDER)],
        [member("link", kind=LINK, link="victim"), member("link", b"x")],
    ],
)
def test_tricks_are_refused(old: Box, members: "list[tuple[tarfile.TarInfo, bytes]]") -> None:
    refused(old, crafted(*members))
    assert not (old.folder / "disk" / "out").exists()
    assert not Path("/tmp/out").exists()


@pytest.mark.parametrize(
    "members",
    [
        [member("n" * 300, b"x")],
        [member("f", kind=FOLDER), member("f/" + "n" * 256, b"x")],
        [member("/".join("d" * n), kind=FOLDER) for n in range(1, 66)],
        [member("/".join(["d" * 250] * n), kind=FOLDER) for n in range(1, 10)],
        [member("a\0b", b"x")],
        [member("link", kind=LINK, link="n" * 3000)],
        [member("link", kind=LINK)],
        [member("response_store.db", memory())],  # unnamed in the header, so nobody checked it
    ],
)
def test_what_no_machine_should_have_to_unpack_is_refused_with_a_sentence(
    old: Box, members: "list[tuple[tarfile.TarInfo, bytes]]"
) -> None:
    archive = crafted(*members)
    refused(old, archive)
    done = old.command("check", stdin=archive)
    assert done.returncode == 70
    assert done.stderr.startswith(b"The archive cannot be used: ")
    assert len(done.stderr.splitlines()) == 1
    assert len(done.stderr) < 400


def test_times_beyond_all_time_are_refused(old: Box) -> None:
    for headers in ({"mtime": "9e99"}, {"mtime": "nan"}, {"size": "-1"}):
        odd = member("a", b"x")
        odd[0].pax_headers = headers
        refused(old, crafted(odd))


@pytest.mark.parametrize(
    "kind", [tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME]
)
def test_a_description_of_any_length_is_not_read_into_memory(old: Box, kind: bytes) -> None:
    info = tarfile.TarInfo("described")
    info.type, info.size = kind, 1 << 30
    raw = info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)
    archive = packed(raw, {"digest": "0", "files": 0, "databases": []})
    refused(old, archive)
    # Not by its end, which would be found after all that comes before it.
    assert b"of no sensible size" in old.command("check", stdin=archive).stderr


def test_descriptions_upon_descriptions_are_refused(old: Box) -> None:
    info = tarfile.TarInfo("described")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1
    raw = (info.tobuf(tarfile.GNU_FORMAT) + b"a".ljust(512, b"\0")) * 5000
    refused(old, packed(raw, {"digest": "0", "files": 0, "databases": []}))


def test_sparse_files_are_refused(old: Box) -> None:
    sparse = member("hole", b"1\n0\n1\n".ljust(512, b"\0") + b"x")
    names = {"major": "1", "minor": "0", "name": "hole", "realsize": str(1 << 29)}
    sparse[0].pax_headers = {f"GNU.sparse.{name}": value for name, value in names.items()}
    refused(old, crafted(sparse))


def test_more_than_a_state_may_have_is_refused_before_it_is_unpacked(old: Box) -> None:
    old.change("state/members.py", "MEMBERS = 100_000", "MEMBERS = 20")
    old.change("state/members.py", "UNPACKED = 1 << 30", "UNPACKED = 1 << 20")
    for many in (
        [member(f"file {number}", b"x") for number in range(20)],
        [member("zeros", bytes(1 << 20))],
        [member(f"zeros {number}", bytes(1 << 18)) for number in range(4)],
    ):
        refused(old, crafted(*many))
    old.ok("restore", stdin=crafted(*(member(f"file {number}", b"x") for number in range(19))))


@pytest.mark.parametrize(
    "content", [None, b"", b"no database", memory("users"), memory("sessions"), "folder", "link"]
)
def test_an_archive_without_hermes_memory_is_refused(old: Box, content: "bytes | str") -> None:
    state = member("state.db", content if isinstance(content, bytes) else b"")
    if content in ("folder", "link"):
        state = member("state.db", kind=FOLDER if content == "folder" else LINK, link="a")
    members = [member("a", b"x"), *([] if content is None else [state])]
    for databases in ([], ["state.db"]):
        archive = sealed(members, databases)
        refused(old, archive)
        assert old.command("check", stdin=archive).returncode == 70


def test_what_its_owner_could_not_read_is_restored_readable(old: Box) -> None:
    folder, file = member("closed", kind=FOLDER), member("closed/shut", b"x")
    folder[0].mode = file[0].mode = 0
    old.obeys("restore", stdin=crafted(folder, file))
    assert header(old.obeys("save").stdout)["leftOut"] == []
    assert (old.home / "closed" / "shut").read_text() == "x"


def test_a_check_says_what_a_restore_would_and_changes_nothing(old: Box, archive: bytes) -> None:
    before = old.tree()
    old.ok("check", stdin=archive)
    for code, bad in ((70, crafted(member("../out", b"x"))), (74, archive[:-1]), (74, b"")):
        done = old.command("check", stdin=bad)
        assert done.returncode == code
    assert old.tree() == before
    assert [path.name for path in old.home.parent.iterdir()] == [".hermes"]
    assert not (old.run / "restored").exists()


def test_a_check_is_made_beside_a_running_hermes(box: Box, archive: bytes) -> None:
    box.run_hermes()
    before = box.state()["pid"]
    box.ok("check", stdin=archive)
    assert box.command("check", stdin=crafted(member("n" * 300))).returncode == 70
    assert box.state()["pid"] == before == box.health()["pid"]


def test_a_machine_that_cannot_is_no_verdict_on_the_archive(old: Box, archive: bytes) -> None:
    """No memory, an I/O error and a place that cannot be written say nothing of the bytes."""
    for line in ("    content = tar.extractfile(info)", "    root = os.path.realpath(folder)"):
        for trouble in ("MemoryError", "OSError(errno.EIO, 'Input/output error')"):
            raised = f"    raise {trouble}\n{line}"
            old.change("state/archive.py", line, raised)
            refused(old, archive, code=74)
            old.change("state/archive.py", raised, line)
    old.home.parent.chmod(0o500)
    try:
        assert old.obeys("restore", stdin=archive, code=74).stderr
    finally:
        old.home.parent.chmod(0o700)
    old.ok("restore", stdin=archive)


def test_headers_that_do_not_fit_are_refused(old: Box) -> None:
    one = member("a", b"x")
    for change in (
        {"format": 2},
        {"files": 3},
        {"databases": []},
        {"databases": ["state.db", "a"]},
        {"databases": ["state.db", "state.db"]},
        {"databases": [7]},
        {"databases": [["state.db"]]},
        {"digest": "0" * 64},
        {"sha256": "0" * 64},
        {"bytes": -1},
        {"bytes": 10},
        {"bytes": 10**9},
        {"bytes": "1"},
        {"boot": None},
    ):
        refused(old, crafted(one, **change))
    for archive in (b"\n", b"{}\n", b"no json\n", b"x" * 100_000, crafted(one) + b"more"):
        refused(old, archive)
    refused(old, b"[" * 60_000 + b"\n")


def test_a_truncation_is_refused_and_proves_nothing_of_the_archive(
    old: Box, archive: bytes
) -> None:
    cuts = {0, 1, 100, len(header_line(archive)), len(archive) // 2, len(archive) - 1}
    for cut in sorted(cuts | {CHOSEN.randrange(len(archive)) for _ in range(5)}):
        refused(old, archive[:cut], code=74)


def test_what_is_found_wrong_in_an_archive_of_which_the_end_never_came_proves_nothing(
    old: Box,
) -> None:
    """It may be the connection that spoilt it, as it cut it."""
    whole = crafted(member("../out", b"x"), member("large", os.urandom(3 << 20)))
    refused(old, whole)
    refused(old, whole[:-1], code=74)


def test_a_database_that_could_not_be_read_where_it_was_unpacked_proves_nothing(
    old: Box, archive: bytes
) -> None:
    told = f"Tree 2 page 3: unable to get the page. error code={sqlite3.SQLITE_IOERR_READ}"
    line = '    if verdict != "ok":\n'
    old.change("state/databases.py", line, f"    verdict = {told!r}\n{line}")
    refused(old, archive, code=74)


def test_every_flipped_byte_is_refused(old: Box, archive: bytes) -> None:
    start = len(header_line(archive))
    for at in [
        start,
        start + 9,
        len(archive) - 1,
        *(CHOSEN.randrange(start, len(archive)) for _ in range(8)),
    ]:
        refused(old, archive[:at] + bytes([archive[at] ^ 0x10]) + archive[at + 1 :])


def test_what_is_wrong_with_an_archive_is_told(old: Box, archive: bytes) -> None:
    start = len(header_line(archive))
    no_gzip = archive[:start] + b"x" + archive[start + 1 :]
    assert b"gzip" in old.command("check", stdin=no_gzip).stderr


def test_a_damaged_database_in_an_archive_is_refused(old: Box) -> None:
    content = b"SQLite format 3\0" + os.urandom(8192)
    refused(old, sealed([member("state.db", content)], ["state.db"]))


def test_a_full_disk_is_reported_and_changes_nothing(old: Box, archive: bytes) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    before = old.tree()
    assert old.command("restore", stdin=archive, preexec_fn=limit).returncode == 73
    assert old.tree() == before
    assert not (old.run / "restored").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_disk_that_is_really_full(tmp_path: Path, archive: bytes) -> None:
    disk = tmp_path / "small"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "small", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let root mount")
    try:
        with Box(disk / "box") as small:
            small.pretend(restored=False).home.mkdir()
            (small.home / "old").write_text("old")
            refused(small, archive, code=73)
            (small.run / "restored").write_text(small.boot)
            (small.home / "state.db").write_bytes(memory())
            (small.home / "more").write_bytes(os.urandom(1_200_000))
            done = small.command("save")
            assert (done.returncode, done.stdout) == (73, b"")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_kill_at_any_moment_leaves_the_old_state_or_the_new(
    new_box: Callable[[], Box], archive: bytes
) -> None:
    """Before each step that changes what stands where: between two of them nothing changes but what is staged."""
    source = new_box().pretend(restored=False)
    source.ok("restore", stdin=archive)
    new, seen = source.tree(), []
    for step in itertools.count(1):
        box = new_box().pretend(restored=False)
        box.home.mkdir()
        (box.home / "old").write_text("old")
        old = box.tree()
        words = [str(step), str(box.image), "restore", "--boot", box.boot]
        command = [sys.executable, "-BIS", "-c", KILLED_AT_A_STEP, *words]
        done = subprocess.run(command, env=box.environ, input=archive, check=False)
        complete = (box.run / "restored").exists()
        box.start()  # PID 1 settles what was cut
        tree = box.tree()
        assert tree in (old, new)
        assert tree == new or not complete
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        seen.append(tree == new)
    assert seen == sorted(seen) and set(seen) == {False, True}, "cut before and after the swap"


def test_a_swap_that_was_cut_between_its_renames_is_undone(old: Box, archive: bytes) -> None:
    old.home.rename(old.home.with_name(".hermes.old"))
    old.start()
    assert (old.home / "old").read_text() == "old"
    old.ok("restore", stdin=archive)
    assert not (old.home / "old").exists()
    assert [path.name for path in old.home.parent.iterdir()] == [".hermes"]


@pytest.mark.parametrize("stands", ["file", "link"])
def test_what_stands_for_the_home_and_is_no_folder_is_replaced(
    old: Box, archive: bytes, stands: str
) -> None:
    """A link goes, and where it led to stays."""
    elsewhere = old.folder / "elsewhere"
    old.home.rename(elsewhere)
    if stands == "link":
        old.home.symlink_to(elsewhere)
    else:
        old.home.touch()
    old.ok("restore", stdin=archive)
    assert (old.home / "memories" / "MEMORY.md").exists() and not old.home.is_symlink()
    assert (elsewhere / "old").read_text() == "old"
    assert [path.name for path in old.home.parent.iterdir()] == [".hermes"]


def test_empty_means_empty_and_keep_keeps(old: Box) -> None:
    assert old.command("restore", "--keep").returncode == 71  # no memory
    (old.home / "state.db").write_bytes(memory("users"))
    assert old.command("restore", "--keep").returncode == 71  # somebody else's
    (old.home / "state.db").write_bytes(memory())
    (old.home / "kanban.db").write_bytes(memory("cards"))
    old.ok("restore", "--keep")
    assert (old.home / "old").exists()
    old.ok("restore", "--empty")
    assert old.tree() == {}
    (old.home / "state.db").write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    assert old.command("restore", "--keep").returncode == 71
    assert not (old.run / "restored").exists()


def test_another_boot_cannot_restore(old: Box, archive: bytes) -> None:
    assert old.command("restore", stdin=archive, boot="boot-2").returncode == 65
    assert (old.home / "old").exists()


def test_hermes_starts_only_after_a_restore_and_no_restore_comes_after_it(
    box: Box, archive: bytes
) -> None:
    box.start()
    assert box.command("go", stdin=b"{}").returncode == 67
    refused_archive = box.command("restore", stdin=archive[:-1])
    assert refused_archive.returncode == 74
    assert box.command("go", stdin=b"{}").returncode == 67
    box.ok("restore", stdin=archive)
    box.ok("go", stdin=b"{}")
    assert box.command("restore", stdin=archive).returncode == 66
    assert box.command("restore", "--empty").returncode == 66
    assert box.command("go", stdin=b"{}").returncode == 66
    assert header(archive)["files"] > 5


def header_line(archive: bytes) -> bytes:
    return archive[: archive.index(b"\n") + 1]

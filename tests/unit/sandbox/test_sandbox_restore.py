# SPDX-License-Identifier: Apache-2.0
"""A restore is all or nothing, and an archive is never trusted."""

import gzip
import hashlib
import io
import json
import os
import random
import resource
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sandbox_box import Box, header

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
    """Return an archive with right checksums around members that no save writes."""
    digest, raw = hashlib.sha256(), io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
            kind = {tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "link"}.get(info.type, "file")
            hashed = hashlib.sha256(content).hexdigest() if kind == "file" else info.linkname
            mode = info.mode if kind != "link" else 0
            digest.update(json.dumps([info.name, kind, mode, hashed]).encode() + b"\n")
    body = gzip.compress(raw.getvalue())
    described = {
        "format": 1,
        "boot": "b",
        "digest": digest.hexdigest(),
        "files": len(members),
        "sha256": hashlib.sha256(body).hexdigest(),
        "bytes": len(body),
        "databases": [],
    }
    return json.dumps({**described, **changes}).encode() + b"\n" + body


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


def test_headers_that_do_not_fit_are_refused(old: Box) -> None:
    one = member("a", b"x")
    for change in (
        {"format": 2},
        {"files": 2},
        {"databases": ["state.db"]},
        {"digest": "0" * 64},
        {"sha256": "0" * 64},
        {"bytes": -1},
        {"bytes": 10},
        {"bytes": 10**9},
        {"boot": None},
    ):
        refused(old, crafted(one, **change))
    for archive in (b"", b"\n", b"{}\n", b"no json\n", b"x" * 100, crafted(one) + b"more"):
        refused(old, archive)


def test_every_truncation_is_refused(old: Box, archive: bytes) -> None:
    cuts = {1, 100, len(header_line(archive)), len(archive) // 2, len(archive) - 1}
    for cut in sorted(cuts | {CHOSEN.randrange(len(archive)) for _ in range(5)}):
        refused(old, archive[:cut])


def test_every_flipped_byte_is_refused(old: Box, archive: bytes) -> None:
    start = len(header_line(archive))
    for at in [
        start,
        start + 9,
        len(archive) - 1,
        *(CHOSEN.randrange(start, len(archive)) for _ in range(8)),
    ]:
        refused(old, archive[:at] + bytes([archive[at] ^ 0x10]) + archive[at + 1 :])


def test_a_damaged_database_in_an_archive_is_refused(old: Box) -> None:
    content = b"SQLite format 3\0" + os.urandom(8192)
    fingerprint = bytearray(content)
    for start, end in ((18, 20), (24, 28), (40, 44), (92, 100)):
        fingerprint[start:end] = bytes(end - start)
    line = json.dumps(["state.db", "database", 0o644, hashlib.sha256(fingerprint).hexdigest()])
    digest = hashlib.sha256(line.encode() + b"\n").hexdigest()
    refused(old, crafted(member("state.db", content), databases=["state.db"], digest=digest))


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
            (small.home / "more").write_bytes(os.urandom(1_200_000))
            done = small.command("save")
            assert (done.returncode, done.stdout) == (73, b"")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_kill_at_any_moment_leaves_the_old_state_or_the_new(
    new_box: Callable[[], Box], archive: bytes
) -> None:
    source = new_box().pretend(restored=False)
    began = time.monotonic()
    source.ok("restore", stdin=archive)
    duration = time.monotonic() - began
    new, seen = source.tree(), set()
    for step in range(12):
        box = new_box().pretend(restored=False)
        box.home.mkdir()
        (box.home / "old").write_text("old")
        old = box.tree()
        command = [f"{box.image}/bin/sandbox", "restore", "--boot", box.boot]
        with subprocess.Popen(command, env=box.environ, stdin=subprocess.PIPE) as restore:
            try:
                restore.stdin.write(archive)
                restore.stdin.close()
            except BrokenPipeError:
                pass
            time.sleep(duration * step / 11)
            restore.send_signal(signal.SIGKILL)
        complete = (box.run / "restored").exists()
        box.start()  # PID 1 settles what was cut
        tree = box.tree()
        assert tree in (old, new)
        assert tree == new or not complete
        seen.add(tree == new)
    assert False in seen


def test_a_swap_that_was_cut_between_its_renames_is_undone(old: Box, archive: bytes) -> None:
    old.home.rename(old.home.with_name(".hermes.old"))
    old.start()
    assert (old.home / "old").read_text() == "old"
    old.ok("restore", stdin=archive)
    assert not (old.home / "old").exists()
    assert [path.name for path in old.home.parent.iterdir()] == [".hermes"]


def test_empty_means_empty_and_keep_keeps(old: Box) -> None:
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
    assert refused_archive.returncode == 70
    assert box.command("go", stdin=b"{}").returncode == 67
    box.ok("restore", stdin=archive)
    box.ok("go", stdin=b"{}")
    assert box.command("restore", stdin=archive).returncode == 66
    assert box.command("restore", "--empty").returncode == 66
    assert box.command("go", stdin=b"{}").returncode == 66
    assert header(archive)["files"] > 5


def header_line(archive: bytes) -> bytes:
    return archive[: archive.index(b"\n") + 1]

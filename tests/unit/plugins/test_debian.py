# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""From where a locked package of Debian is fetched, and what is refused of one."""

from __future__ import annotations

import hashlib
import io
import tarfile
import urllib.error
from email.message import Message
from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.build import debian
from ansible_collections.hermes.workers.plugins.plugin_utils.build.debian import DebianError
from api_server import ApiServer, Reply

CONTENT = b"a package"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
HERE = "https://mirror.example/debian"
THERE = f"{debian.ARCHIVED}/debian/20260101T000000Z"


class Mirrors:
    """Answers each address with what it was given: a content, a status, or a failure; elsewhere there is nothing."""

    def __init__(self, **answers: bytes | int | OSError) -> None:
        self.answers, self.asked = answers, []  # type: ignore[var-annotated]

    def __call__(self, address: str) -> bytes:
        self.asked.append(address)
        name = "archive" if address.startswith(THERE) else "mirror"
        found = self.answers.get(name, 404)
        if isinstance(found, int):
            raise urllib.error.HTTPError(address, found, "", Message(), None)
        if isinstance(found, OSError):
            raise found
        return found


def fetched(mirrors: Mirrors) -> bytes:
    snapshot = THERE.rpartition("/")[2]
    return debian.fetched("debian", DIGEST, snapshot, "pool/a.deb", "pool/a.deb", mirrors)


@pytest.fixture(autouse=True)
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(debian.MIRROR, raising=False)
    monkeypatch.setattr(debian, "APT", tmp_path)
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def test_a_machine_that_is_no_debian_fetches_from_where_every_version_is() -> None:
    mirrors = Mirrors(archive=CONTENT)
    assert fetched(mirrors) == CONTENT
    assert mirrors.asked == [f"{THERE}/pool/a.deb"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sources.list", f"# deb https://other.example/debian x main\ndeb {HERE} x main\n"),
        ("sources.list", f"deb [signed-by=/k] {HERE}/ x main # https://other.example/debian\n"),
        ("sources.list.d/debian.sources", f"Types: deb\nURIs: {HERE}\nSuites: x\n"),
    ],
    ids=["a line", "with options", "deb822"],
)
def test_a_debian_fetches_from_its_own_mirror_first(apt: Path, name: str, text: str) -> None:
    (apt / "sources.list.d" / "another.list").write_text("deb https://x.example/other x main\n")
    (apt / name).write_text(text)
    mirrors = Mirrors(mirror=CONTENT)
    assert fetched(mirrors) == CONTENT
    assert mirrors.asked == [f"{HERE}/pool/a.deb"]
    mirrors = Mirrors(archive=CONTENT)  # the mirror has a newer one by now
    assert fetched(mirrors) == CONTENT
    assert mirrors.asked == [f"{HERE}/pool/a.deb", f"{THERE}/pool/a.deb"]


@pytest.mark.parametrize(
    ("mirror", "words"),
    [
        (b"another", "Hash mismatch for"),
        (503, "HTTP error 503 for"),
        (OSError(101, "Network is unreachable"), "Could not connect: "),
    ],
    ids=["another content", "refused", "unreachable"],
)
def test_a_mirror_that_fails_is_named_and_not_passed_over(
    monkeypatch: pytest.MonkeyPatch, mirror: bytes | int | OSError, words: str
) -> None:
    monkeypatch.setenv(debian.MIRROR, "https://mirror.example/")
    mirrors = Mirrors(mirror=mirror, archive=CONTENT)
    with pytest.raises(DebianError, match=words) as caught:
        fetched(mirrors)
    assert f"{HERE}/pool/a.deb" in str(caught.value)


def test_what_is_nowhere_is_named_where_it_should_be_for_ever() -> None:
    with pytest.raises(DebianError, match=f"HTTP error 404 for {THERE}/pool/a.deb"):
        fetched(Mirrors())


def test_a_mirror_that_is_none_of_the_web_reads_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "debian" / "pool").mkdir(parents=True)
    (tmp_path / "debian" / "pool" / "a.deb").write_bytes(CONTENT)
    monkeypatch.setenv(debian.MIRROR, f"file://{tmp_path}")
    with pytest.raises(DebianError, match="no address of the web"):
        fetched(None)  # type: ignore[arg-type]


def test_what_a_mirror_has_is_fetched_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with ApiServer(lambda _call: Reply(200, CONTENT)) as server:
        monkeypatch.setenv(debian.MIRROR, server.url)
        snapshot = THERE.rpartition("/")[2]
        place = "pool/a.deb"
        assert debian.fetched("debian", DIGEST, snapshot, place, place, None) == CONTENT
        (call,) = server.calls
        assert call.path == "/debian/pool/a.deb"
        with pytest.raises(DebianError, match="Hash mismatch"):
            debian.fetched("debian", "0" * 64, snapshot, place, place, None)


def tar(**files: str | bytes) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            if isinstance(text, bytes):  # what no file is made of
                entry.type = text
                archive.addfile(entry)
            else:
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
    return held.getvalue()


def deb(**members: bytes) -> bytes:
    packed = b"!<arch>\n"
    for name, content in members.items():
        packed += f"{name + '.tar':<48}{len(content):<10}`\n".encode() + content
        packed += b"\n" * (len(content) % 2)
    return packed


CONTROL = "Package: git\nVersion: 1\n"


@pytest.mark.parametrize(
    ("package", "words"),
    [
        (b"<html>", "has no files"),
        (deb(data=tar()), "has no files"),
        (deb(control=tar(control="Version: 1\n"), data=tar()), "does not say which one it is"),
        (deb(control=tar(control="Package: ../git\n"), data=tar()), "does not say which one"),
        (deb(control=tar(control=CONTROL), data=tar(**{"usr/../../x": "x"})), "the file 'usr/../"),
        (deb(control=tar(control=CONTROL), data=tar(**{"/etc/x": "x"})), "the file '/etc/x'"),
    ],
    ids=["no package", "no control", "no name", "a path for a name", "above", "absolute"],
)
def test_what_is_no_package_or_leads_out_of_its_folder_is_refused(
    tmp_path: Path, package: bytes, words: str
) -> None:
    folder = tmp_path / "laid"
    with pytest.raises(DebianError) as caught:
        debian.unpack(package, folder)
    assert words in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_of_a_package_only_files_and_links_are_laid(tmp_path: Path) -> None:
    data = tar(**{"usr/bin/git": "git", "dev/null": tarfile.CHRTYPE, "usr/share/man/git.1": "man"})
    debian.unpack(deb(control=tar(control=CONTROL), data=data), tmp_path / "laid")
    laid = {path.name for path in (tmp_path / "laid").rglob("*") if path.is_file()}
    assert laid == {"git", "git.md5sums"}
    assert (tmp_path / "laid" / "usr" / "bin" / "git").read_text() == "git"

# SPDX-License-Identifier: Apache-2.0
"""What a package of Debian needs, and which of two versions is the newer one."""

from __future__ import annotations

import hashlib
import json
import lzma
import urllib.error
from email.message import Message
from itertools import pairwise
from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.build import debian, debian_index
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources

INDEX = """Package: libc6
Architecture: amd64
Version: 2.36-9
Filename: pool/main/g/libc6.deb
Size: 9
SHA256: c6

Package: dpkg
Essential: yes
Architecture: amd64
Version: 1.21
Pre-Depends: libc6 (>= 2.15)
Filename: pool/main/d/dpkg.deb
Size: 8
SHA256: d0

Package: jq
Architecture: amd64
Version: 1.6-2.1
Depends: libjq1 (= 1.6-2.1), libc6 (>= 2.34), adduser
Filename: pool/main/j/jq.deb
Size: 3
SHA256: 11

Package: libjq1
Architecture: amd64
Version: 1.6-2.1
Depends: libonig5 (>= 6.8) | libonig4, regex-engine:any, nowhere | dpkg
Filename: pool/main/j/libjq1.deb
Size: 4
SHA256: 22

Package: libonig5
Architecture: all
Version: 6.9
Filename: pool/main/o/libonig5.deb
Size: 5
SHA256: 33

Package: pcre
Architecture: amd64
Version: 8
Provides: other, regex-engine (= 1)
Filename: pool/main/p/pcre.deb
Size: 6
SHA256: 44

Package: adduser
Architecture: all
Version: 3
Filename: pool/main/a/adduser.deb
Size: 1
SHA256: 55

Package: jq
Architecture: arm64
Version: 1.7-1
Filename: pool/main/j/jq_arm64.deb
Size: 3
SHA256: 66
"""
MENDED = "Package: jq\nArchitecture: amd64\nVersion: 1.6-2.1+deb12u2\nDepends: libjq1\n"
MENDED += "Filename: pool/updates/j/jq.deb\nSize: 3\nSHA256: 77\n"
PACKED = {
    "debian": lzma.compress(INDEX.encode()),
    "debian-security": lzma.compress(MENDED.encode()),
}
DAY = "20260101T000000Z"
WANTED = "jq=1.6-2.1+deb12u2"


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """The collection's folder with a lock of two indexes."""
    suites = {"debian": "bookworm", "debian-security": "bookworm-security"}
    indexes = [
        {"archive": name, "suite": suites[name], "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in PACKED.items()
    ]
    lock = {"snapshot": DAY, "suite": "bookworm", "indexes": indexes, "packages": {}, "parts": {}}
    (tmp_path / debian.LOCK).write_text(json.dumps(lock))
    return tmp_path


def archived(address: str) -> bytes:
    """Stands for Debian's archive of all versions; no mirror has any of it."""
    if "snapshot" not in address:
        raise urllib.error.HTTPError(address, 404, "gone", Message(), None)
    archive, day, at = address.split("/archive/")[1].split("/", 2)
    assert (day, at.rsplit("/", 1)[1]) == (DAY, "Packages.xz")
    return PACKED[archive]


def test_a_package_brings_what_it_needs_beyond_the_base(container: Path) -> None:
    lock = debian_index.resolve(container, [WANTED], archived)
    assert lock["snapshot"] == DAY
    assert [*lock["packages"]] == ["jq", "libjq1", "libonig5", "pcre"]
    assert lock["packages"]["jq"] == {
        "archive": "debian-security",
        "path": "pool/updates/j/jq.deb",
        "sha256": "77",
        "size": 3,
        "version": WANTED.partition("=")[2],
    }
    assert "dpkg" in debian_index.resolve(container, ["dpkg=1.21"], archived)["packages"]


def test_an_index_is_asked_of_the_mirror_by_its_hash(
    container: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(debian.MIRROR, "http://mirror.example/")
    asked = []

    def mirror(address: str) -> bytes:
        asked.append(address)
        return PACKED[address.split("/")[3]]

    debian_index.resolve(container, [WANTED], mirror)
    digest = hashlib.sha256(PACKED["debian"]).hexdigest()
    at = "http://mirror.example/debian/dists/bookworm/main/binary-amd64"
    assert asked[0] == f"{at}/by-hash/SHA256/{digest}"
    with pytest.raises(debian.DebianError, match="Hash mismatch for http://mirror"):
        debian_index.resolve(container, [WANTED], lambda _address: PACKED["debian-security"])


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("jq=1.6-2.1", "jq=1.6-2.1 is not to be had: in Debian bookworm jq is 1.6-2.1+deb12u2"),
        ("jqq=1", "in Debian bookworm there is no jqq"),
    ],
)
def test_another_version_than_there_is_is_said(container: Path, wanted: str, said: str) -> None:
    with pytest.raises(debian_index.NotInDebian) as caught:
        debian_index.resolve(container, [wanted], archived)
    assert said in str(caught.value)


def test_versions_are_in_debians_order() -> None:
    """The examples of deb-version(7), and such as it is easy to be wrong about."""
    older_first = ["1.0~~", "1.0~~a", "1.0~", "1.0", "1.0-1", "1.0-1+deb12u2", "1.0-1+deb12u10"]
    older_first += ["1.0a", "1.0+x", "1.0.1", "1.2", "1.10", "1:0.1", "2:0"]
    for one, other in pairwise(older_first):
        assert debian_index.order(one, other) < 0 < debian_index.order(other, one), (one, other)
    for one in older_first:
        assert debian_index.order(one, one) == 0
    assert debian_index.order("0:1.0-0", "1.0") == 0


def test_what_the_collection_locked_stands_in_the_indexes_that_it_names() -> None:
    lock = debian.read_lock(Sources().container)
    suites = [(one["archive"], one["suite"]) for one in lock["indexes"]]
    assert suites == [
        ("debian", "bookworm"),
        ("debian", "bookworm-updates"),
        ("debian-security", "bookworm-security"),
    ]
    assert all(len(one["sha256"]) == 64 for one in lock["indexes"])


def package(name: str, version: str = "1", **more: str) -> dict[str, str]:
    return {"Package": name, "Version": version} | more


def test_of_two_versions_the_newer_one_counts_whichever_comes_first() -> None:
    for versions in (["1", "2"], ["2", "1"]):
        known: dict[str, debian_index.Package] = {}
        debian_index.merge(known, [package("jq", one) for one in versions])
        assert known["jq"]["Version"] == "2"


def test_what_two_ask_for_comes_once_and_what_nobody_has_is_left() -> None:
    """Also what asks for itself by a detour, and what stands for others than the asked one."""
    known = {
        one["Package"]: one
        for one in (
            package("a", Depends="b, c, c, nowhere | nothing, sendmail"),
            package("b", Depends="c"),
            package("c", Depends="a"),
            package("d", Provides="sendmail-other"),
            package("postfix", Provides="x, sendmail"),
        )
    }
    assert debian_index.needed(known, ["a"]) == {"a", "b", "c", "postfix"}
    assert debian_index.needed(known, ["a"], leave_out={"c"}) == {"a", "b", "postfix"}
    assert debian_index.needed(known, ["a", "c"], leave_out={"c"}) >= {"c"}, "it is asked for"

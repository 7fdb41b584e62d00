# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's packages for the image: fetched and unpacked by the controller, from locks with their hashes.

A package is two tar archives in an ar archive. What is laid here are the files of the second one; of the first one
nothing is run, and what says which package it is, is laid where scanners of images without dpkg look for it, with the
digests of the files. What only people read is left out, but for the licences.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import urllib.error
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from .download import download

LOCK = "debian.json"
FOLDER = "debian"
"""Folder of the unpacked files in the build's; the Dockerfile lays them where the base has none of that name."""

MIRROR = "HERMES_DEBIAN_MIRROR"
"""Variable of the environment that names another mirror, in which `debian` and `debian-security` are."""

APT = Path("/etc/apt")
"""Where a controller that is a Debian says which mirror it uses."""
ARCHIVED = "https://snapshot.debian.org/archive"
"""Has every version that there ever was: mirrors drop one when there is a newer one."""

PATIENCE_SECONDS = 30.0
_UNREAD = """
    usr/share/doc usr/share/man usr/share/locale usr/share/lintian usr/share/info usr/share/bash-completion
    usr/share/doc-base usr/share/bug usr/share/apport usr/share/gitweb lib/systemd usr/lib/systemd etc/bash_completion.d
    etc/init.d etc/apparmor.d etc/ufw etc/default
    """
UNREAD = tuple(_UNREAD.split())
"""Folders of what nobody reads or starts in a sandbox."""
RECORDS = PurePosixPath("var/lib/dpkg/status.d")
"""Where an image says what was laid into it: NAME is the package's own description, NAME.md5sums has its files."""
MOVED = ("bin", "sbin", "lib", "lib64")
"""Folders that are links into /usr on every Debian since 12."""

Fetch = Callable[[str], bytes]
Locked = dict[str, Any]
"""A package: its archive, its path there, its sha256 and its size."""
Lock = dict[str, Any]
"""Packages by name, and the day on which all of them were in Debian."""


class DebianError(Exception):
    """A package could not be had; in the words of an installer."""


def read_lock(container_dir: Path) -> Lock:
    """Return what the collection itself has locked."""
    lock: Lock = json.loads((container_dir / LOCK).read_text(encoding="utf-8"))
    return lock


def told(container_dir: Path, name: str) -> str:
    """Return which version of a package the collection has locked, and of which day, for people."""
    lock = read_lock(container_dir)
    upstream = lock["packages"][name]["version"].rpartition(":")[2].rpartition("-")[0]
    day = lock["snapshot"]
    return f"{upstream}, Debian's of {day[:4]}-{day[4:6]}-{day[6:8]}"


def text(container_dir: Path, features: Sequence[str], further: Lock | None = None) -> str:
    """Return what is locked for these features, whatever their order; empty when nothing of Debian is needed.

    further: a lock of packages besides.
    """
    chosen = _chosen(container_dir, features, further)
    return "".join(f"{name} {one['sha256']}\n" for name, (one, _snapshot) in chosen.items())


def _chosen(
    container_dir: Path, features: Sequence[str], further: Lock | None
) -> dict[str, tuple[Locked, str]]:
    """Return each package and the day of its lock, by name."""
    ours = read_lock(container_dir)
    names = {name for feature in features for name in ours["parts"].get(feature, [])}
    found = {name: (ours["packages"][name], ours["snapshot"]) for name in names}
    if further:
        found |= {name: (one, further["snapshot"]) for name, one in further["packages"].items()}
    return dict(sorted(found.items()))


def lay(
    container_dir: Path,
    features: Sequence[str],
    folder: Path,
    fetch: Fetch | None = None,
    further: Lock | None = None,
) -> None:
    """Fetch and unpack what is needed into a folder, which is made. further: as for text. Raises DebianError."""
    folder.mkdir(parents=True)
    for package, snapshot in _chosen(container_dir, features, further).values():
        path = package["path"]
        content = fetched(package["archive"], package["sha256"], snapshot, path, path, fetch)
        unpack(content, folder)


def installed(name: str) -> bool:
    """Tell whether this machine is a Debian that has a package, in whatever version."""
    command = ["dpkg-query", "--show", "--showformat", "${db:Status-Status}", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return False
    return done.stdout.startswith("installed")


def fetched(
    archive: str, sha256: str, snapshot: str, path: str, archived: str, fetch: Fetch | None
) -> bytes:
    """Return a file as it was locked, from the mirror, or where all versions are kept. Raises DebianError.

    path: on a mirror; archived: where all versions are.
    """
    addresses = [f"{base}/{path}" for base in _mirrors(archive)]
    addresses.append(f"{ARCHIVED}/{archive}/{snapshot}/{archived}")
    while True:
        address = addresses.pop(0)
        try:
            content = (fetch or _fetch)(address)
        except urllib.error.HTTPError as error:
            if error.code == 404 and addresses:
                continue
            raise DebianError(f"HTTP error {error.code} for {address}") from error
        except OSError as error:
            raise DebianError(f"Could not connect: {address}: {error}") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DebianError(f"Hash mismatch for {address}")
        return content


def _mirrors(archive: str) -> list[str]:
    """Return where an archive lies: on the mirror that was named, else on that of this machine's apt, if any."""
    if named := os.environ.get(MIRROR):
        return [f"{named.rstrip('/')}/{archive}"]
    for path in sorted([*APT.glob("sources.list"), *APT.glob("sources.list.d/*")]):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            found = re.search(rf"^[^#]*?(https?://[^\s#]+/{archive})/?(?=\s|$)", line)
            if found:
                return [found[1]]
    return []


def _fetch(address: str) -> bytes:
    if not address.startswith(("https://", "http://")):
        raise OSError("it is no address of the web")
    return download(address, PATIENCE_SECONDS)


def unpack(package: bytes, folder: Path) -> None:
    """Unpack the files of a package into a folder. Raises DebianError when it is none."""
    parts = {name.partition(".")[0]: content for name, content in _members(package)}
    if not {"control", "data"} <= {*parts}:
        raise DebianError("A package of Debian has no files.")
    with tarfile.open(fileobj=io.BytesIO(parts["data"])) as tar:
        for member in tar:
            _lay(tar, member, folder)
    with tarfile.open(fileobj=io.BytesIO(parts["control"])) as tar:
        texts = {PurePosixPath(one.name).name: _text(tar, one) for one in tar if one.isfile()}
    _note(texts.get("control", ""), texts.get("md5sums", ""), folder)


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    source = tar.extractfile(member)
    return source.read().decode("utf-8", "replace") if source else ""


def _note(control: str, md5sums: str, folder: Path) -> None:
    """Lay what says which package its files are of. md5sums: its own, of all that it has. Raises DebianError."""
    name = re.search(r"^Package: ([a-z0-9][a-z0-9+.-]+)$", control, re.MULTILINE)
    if name is None:
        raise DebianError("A package of Debian does not say which one it is.")
    lines = (line.split("  ", 1) for line in md5sums.splitlines())
    laid = [(digest, _place(path)) for digest, path in lines]
    text = "".join(f"{digest}  {path}\n" for digest, path in laid if (folder / path).is_file())
    record = folder / RECORDS / name[1]
    record.parent.mkdir(parents=True, exist_ok=True)
    for path, content in ((record, control), (record.with_name(f"{name[1]}.md5sums"), text)):
        path.write_text(content, encoding="utf-8")
        path.chmod(0o644)


def _members(package: bytes) -> Iterator[tuple[str, bytes]]:
    """Return what is in an ar archive."""
    at = 8
    while package.startswith(b"!<arch>\n") and at + 60 <= len(package):
        name = package[at : at + 16].decode("ascii").strip().rstrip("/")
        size = int(package[at + 48 : at + 58])
        yield name, package[at + 60 : at + 60 + size]
        at += 60 + size + size % 2


def _place(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise DebianError(f"A package of Debian has the file {name!r}.")
    return PurePosixPath("usr", path) if path.parts and path.parts[0] in MOVED else path


def _lay(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    place = _place(member.name)
    unread = any(place.is_relative_to(one) for one in UNREAD) and place.name != "copyright"
    if member.isdir() or unread:
        return
    target = folder / place
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        target.symlink_to(member.linkname)
    elif member.islnk():
        # Another name of a file that came before it.
        target.symlink_to(os.path.relpath(folder / _place(member.linkname), target.parent))
    elif source := tar.extractfile(member):
        with source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
        target.chmod(0o755 if member.mode & 0o100 else 0o644)

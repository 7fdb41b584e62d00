# SPDX-License-Identifier: Apache-2.0
"""The archive: one line of JSON, then a gzip'ed tar of which the line says size and SHA-256.

Both directions work on streams: neither the archive nor a file in it is held in memory.
"""

import errno
import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
import tempfile
import zlib
from typing import BinaryIO

from sandbox import databases
from sandbox.errors import DAMAGED_ARCHIVE, SandboxError
from sandbox.members import Member, inside, is_database

FORMAT = 1
CHUNK = 1 << 20
_HEADER_LIMIT = 1 << 20
_IN_MEMORY = 1 << 20


class Digest:
    """Fingerprint of a state: names, permissions and contents, no times; order counts."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.entries = 0

    def add(self, name: str, kind: str, mode: int, content: str) -> None:
        """Add one entry; `content` is a SHA-256 or the target of a link."""
        line = json.dumps([name, kind, mode if kind != "link" else 0, content])
        self._hash.update(line.encode() + b"\n")
        self.entries += 1

    def hex(self) -> str:
        """Return the digest of what was added."""
        return self._hash.hexdigest()


def damaged(reason: str) -> SandboxError:
    """Return the error for an archive that must not be used."""
    return SandboxError(DAMAGED_ARCHIVE, f"The archive is damaged: {reason}.")


class Writer:
    """Writes members into a gzip'ed tar and computes its SHA-256 and the state's digest."""

    def __init__(self, file: BinaryIO) -> None:
        self._sink = _HashingSink(file)
        self._gzip = gzip.GzipFile("", "wb", compresslevel=1, fileobj=self._sink, mtime=0)
        self._tar = tarfile.open(  # noqa: SIM115 - finish() closes it
            fileobj=self._gzip, mode="w|", format=tarfile.PAX_FORMAT
        )
        self._digest = Digest()
        self.databases: list[str] = []

    def add(self, member: Member, copied: "str | None") -> bool:
        """Add a member; `copied` is the path of a database's copy.

        Returns False when the file has vanished, which a live state may do.
        """
        info = tarfile.TarInfo(member.name)
        info.mode, info.mtime = member.mode, member.mtime
        if member.kind == "folder":
            info.type = tarfile.DIRTYPE
            content = ""
        elif member.kind == "link":
            info.type, info.linkname = tarfile.SYMTYPE, member.target
            content = member.target
        elif copied:
            content = self._add_database(info, copied)
        else:
            return self._add_file(info, member)
        if not info.isreg():
            self._tar.addfile(info)
        self._digest.add(member.name, member.kind, member.mode, content)
        return True

    def finish(self, boot: str) -> dict:
        """End the archive and return its header."""
        self._tar.close()
        self._gzip.close()
        return {
            "format": FORMAT,
            "boot": boot,
            "digest": self._digest.hex(),
            "sha256": self._sink.hash.hexdigest(),
            "bytes": self._sink.size,
            "files": self._digest.entries,
            "databases": self.databases,
        }

    def _add_database(self, info: tarfile.TarInfo, copied: str) -> str:
        info.size = os.path.getsize(copied)
        with open(copied, "rb") as file:
            self._tar.addfile(info, file)
        self.databases.append(info.name)
        return databases.fingerprint(copied)

    def _add_file(self, info: tarfile.TarInfo, member: Member) -> bool:
        """Copy first, then add: a file that grows or shrinks meanwhile must not spoil the tar."""
        # The folder's file system, not /tmp: that may be memory.
        folder = os.path.dirname(self._sink.name)
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=folder) as copy:
            hashed = hash_file(member.path, copy)
            if hashed is None:
                return False
            info.size = copy.tell()
            copy.seek(0)
            self._tar.addfile(info, copy)
        self._digest.add(member.name, "file", member.mode, hashed)
        return True


def hash_file(path: str, copy: "BinaryIO | None" = None) -> "str | None":
    """Return the SHA-256 of a regular file and copy it on the way; None when it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise
    digest = hashlib.sha256()
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            if copy is not None:
                copy.write(chunk)
    return digest.hexdigest()


def unpack(source: BinaryIO, folder: str) -> dict:
    """Unpack an archive into an empty folder, verify all of it, and return its header.

    Raises SandboxError 70 for anything that is not exactly what the header promises, OSError as
    the system reports it, e.g. for a full disk.
    """
    header = _read_header(source)
    body = _HashingSource(source, header["bytes"])
    digest, found = Digest(), []
    try:
        with tarfile.open(fileobj=body, mode="r|gz") as tar:
            for info in tar:
                _unpack_member(tar, info, folder, digest, found)
        body.drain()
    except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        raise damaged(str(error) or "it cannot be read") from error
    except OSError as error:  # the gzip module reports bad data as an OSError without a number
        if error.errno is None:
            raise damaged(str(error)) from error
        raise
    _verify(header, body, digest, found, source)
    _verify_tree(folder, found)
    return header


def _read_header(source: BinaryIO) -> dict:
    line = source.readline(_HEADER_LIMIT)
    try:
        header = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        header = None
    kinds = {"boot": str, "digest": str, "sha256": str, "bytes": int, "files": int}
    if not isinstance(header, dict) or not isinstance(header.get("databases"), list):
        raise damaged("its first line is not a header")
    if header.get("format") != FORMAT:
        raise damaged(f"format {header.get('format')!r} is not known here")
    for name, kind in kinds.items():
        if not isinstance(header.get(name), kind):
            raise damaged(f"its header has no {name}")
    return header


def _unpack_member(
    tar: tarfile.TarFile, info: tarfile.TarInfo, folder: str, digest: Digest, found: "list[str]"
) -> None:
    path = _safe_path(info.name, folder)
    mode = info.mode & 0o777
    try:
        if info.isdir():
            os.mkdir(path, 0o700)
            os.chmod(path, mode | 0o700)
            digest.add(info.name, "folder", mode, "")
        elif info.issym():
            os.symlink(info.linkname, path)
            digest.add(info.name, "link", mode, info.linkname)
        elif info.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            hashed = _unpack_file(tar, info, path, mode)
            database = is_database(path)
            if database:
                found.append(info.name)
                hashed = databases.fingerprint(path)
            digest.add(info.name, "database" if database else "file", mode, hashed)
        else:
            raise damaged(f"{info.name!r} is neither file, folder nor link")
    except FileExistsError as error:
        raise damaged(f"{info.name!r} is in it twice") from error


def _safe_path(name: str, folder: str) -> str:
    """Return where a member goes. Its folder must be one that this archive made before it."""
    parts = name.split("/")
    if not name or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise damaged(f"the name {name!r} is not allowed")
    path = folder
    for part in parts[:-1]:
        path = os.path.join(path, part)
        if os.path.islink(path) or not os.path.isdir(path):
            raise damaged(f"{name!r} is not in a folder of the archive")
    return os.path.join(path, parts[-1])


def _unpack_file(tar: tarfile.TarFile, info: tarfile.TarInfo, path: str, mode: int) -> str:
    digest = hashlib.sha256()
    content = tar.extractfile(info)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(os.open(path, flags, 0o600), "wb") as file:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        if os.fstat(file.fileno()).st_size != info.size:
            raise damaged(f"{info.name!r} is cut short")
        os.fchmod(file.fileno(), mode)
    os.utime(path, (info.mtime, info.mtime))
    return digest.hexdigest()


def _verify(
    header: dict, body: "_HashingSource", digest: Digest, found: "list[str]", source: BinaryIO
) -> None:
    if body.left:
        raise damaged(f"{body.left} bytes are missing")
    if source.read(1):
        raise damaged("it is longer than its header says")
    if body.hash.hexdigest() != header["sha256"]:
        raise damaged("its checksum is wrong")
    if digest.entries != header["files"] or sorted(found) != sorted(header["databases"]):
        raise damaged("its members are not those of its header")
    if digest.hex() != header["digest"]:
        raise damaged("its content is not what was saved")


def _verify_tree(folder: str, found: "list[str]") -> None:
    root = os.path.realpath(folder)
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(parent, name)
            if os.path.islink(path) and not inside(path, root):
                raise damaged(f"the link {name!r} leads out")
    for name in found:
        try:
            databases.check(os.path.join(folder, name), name)
        except SandboxError as error:
            raise damaged(str(error).rstrip(".")) from error


class _HashingSink(io.RawIOBase):
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.name = file.name
        self.hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self.hash.update(data)
        self.size += len(data)
        return len(data)


class _HashingSource(io.RawIOBase):
    """At most `left` bytes of a stream, hashed as they are read."""

    def __init__(self, source: BinaryIO, left: int) -> None:
        self._source = source
        self.left = left
        self.hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        wanted = self.left if size < 0 else min(size, self.left)
        data = self._source.read(wanted) if wanted > 0 else b""
        self.left -= len(data)
        self.hash.update(data)
        return data

    def drain(self) -> None:
        """Read what the tar did not need: padding after its end still counts."""
        while self.read(CHUNK):
            pass

# SPDX-License-Identifier: Apache-2.0
"""The archive: one line of JSON, then a gzip'ed tar of which the line says size and SHA-256.

Both directions work on streams: neither the archive nor a file in it is held in memory.
"""

from __future__ import annotations

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
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from sandbox.errors import DAMAGED_ARCHIVE, DAMAGED_STATE, TOO_LARGE, UNFINISHED, SandboxError
from sandbox.state import databases
from sandbox.state.members import (
    CHANGED,
    DATABASES,
    FORBIDDEN,
    MEMBERS,
    UNPACKED,
    Member,
    inside,
    is_database,
    unfit,
    unfit_target,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

FORMAT = 1
CHUNK = 1 << 20
# The Worker knows these as well.
HEADER_LIMIT = 64 * 1024
PACKED = 256 << 20
SIGN_INS = 8 << 20
# Of what a tar says about its next member: names and numbers.
_MEMBER_HEADER = 64 * 1024
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


class ContentHash:
    """SHA-256 of a file, of a database's without what only ages. Its first 100 bytes come whole."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._begun = False

    def update(self, chunk: bytes) -> None:
        """Add what comes next."""
        self._hash.update(chunk if self._begun else databases.without_age(chunk))
        self._begun = True

    def hex(self) -> str:
        """Return the digest of what was added."""
        return self._hash.hexdigest()


def refused(reason: str) -> SandboxError:
    """Return the error for an archive whose bytes prove that it must not be used."""
    return SandboxError(DAMAGED_ARCHIVE, f"The archive cannot be used: {reason}.")


class Overflow(SandboxError):
    """More than an archive may have."""

    def __init__(self) -> None:
        super().__init__(TOO_LARGE, "The state is larger than a backup may be.")


class Writer:
    """Writes members into a gzip'ed tar and computes its SHA-256 and the state's digest.

    Every method raises Overflow as soon as the archive, or what is in it, gets too large.
    """

    def __init__(self, file: BinaryIO, limit: int) -> None:
        """`limit`: of the archive's bytes."""
        self._sink = _HashingSink(file, limit)
        self._gzip = gzip.GzipFile("", "wb", compresslevel=1, fileobj=self._sink, mtime=0)
        self._tar = tarfile.open(  # noqa: SIM115 - finish() closes it
            fileobj=self._gzip, mode="w|", format=tarfile.PAX_FORMAT
        )
        self._digest = Digest()
        self._left = UNPACKED
        self.databases: list[str] = []

    def add(self, member: Member, copied: str | None) -> bool:
        """Add a member; `copied` is the path of a database's copy.

        Returns False when the file has vanished or may not be read, which a live state may do.
        """
        info = tarfile.TarInfo(member.name)
        info.mode, info.mtime = member.mode, member.mtime
        if member.kind in ("file", "database"):
            return self._add_file(info, member, copied or member.path)
        if member.kind == "folder":
            info.type = tarfile.DIRTYPE
        else:
            info.type, info.linkname = tarfile.SYMTYPE, member.target
        self._tar.addfile(info)
        self._digest.add(member.name, member.kind, member.mode, member.target)
        return True

    def finish(self, boot: str) -> dict[str, Any]:
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

    def _add_file(self, info: tarfile.TarInfo, member: Member, path: str) -> bool:
        """Copy first, then add: a file that grows or shrinks meanwhile must not spoil the tar."""
        # The folder's file system, not /tmp: that may be memory.
        folder = os.path.dirname(self._sink.name)
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=folder) as copy:
            hashed = hash_file(path, copy, self._left)
            if hashed is None:
                return False
            info.size = copy.tell()
            self._left -= info.size
            copy.seek(0)
            self._tar.addfile(info, copy)
        self._digest.add(member.name, member.kind, member.mode, hashed)
        if member.kind == "database":
            self.databases.append(member.name)
        return True


def hash_file(path: str, copy: IO[bytes] | None = None, limit: int = UNPACKED) -> str | None:
    """Return the hash of a regular file and copy it on the way.

    None when it is gone or may not be read. Raises Overflow beyond `limit` bytes, which a file
    may reach while it is read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in CHANGED | FORBIDDEN | {errno.ENXIO}:
            return None
        raise
    digest = ContentHash()
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    with open(descriptor, "rb") as file:
        while chunk := file.read(CHUNK):
            limit -= len(chunk)
            if limit < 0:
                raise Overflow
            digest.update(chunk)
            if copy is not None:
                copy.write(chunk)
    return digest.hex()


def unpack(source: BinaryIO, folder: str) -> dict[str, Any]:
    """Unpack an archive into an empty folder, verify all of it, and return its header.

    Raises SandboxError: 70 when all of its bytes came and are not what the header promises, or
    more than may be; 74 when some did not come. OSError as the system reports it.
    """
    header = _read_header(source)
    body = _HashingSource(source, header["bytes"])
    try:
        found = _unpack_members(header, body, folder)
        body.drain()
    except (tarfile.TarError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise _judged(body, str(error)) from error
    except RecursionError as error:  # headers upon headers
        raise _judged(body, "it is nested too deeply") from error
    except SandboxError:
        body.drain()  # whoever sends it should not find the reader gone
        if body.left:
            raise _cut(body) from None
        raise
    _verify(header, body, source)
    _verify_tree(folder, found)
    return header


def _judged(body: _HashingSource, reason: str) -> SandboxError:
    """Return what is wrong with an archive that cannot be read: its end never came, or itself."""
    body.drain()
    return _cut(body) if body.left else refused(reason or "it cannot be read")


def _cut(body: _HashingSource) -> SandboxError:
    return SandboxError(UNFINISHED, f"The archive was cut off: {body.left} bytes did not come.")


def _unpack_members(header: dict[str, Any], body: _HashingSource, folder: str) -> list[str]:
    """Unpack what is in an archive and return its databases. The header's promise is compared."""
    digest, found, left = Digest(), [], UNPACKED
    with tarfile.open(fileobj=body, mode="r|gz", tarinfo=Bounded) as tar:
        while (info := tar.next()) is not None:
            vars(tar)["members"].clear()  # or it would remember them all
            left -= info.size
            if info.size < 0 or left < 0:
                raise refused(f"it unpacks to more than {UNPACKED >> 20} MB")
            if digest.entries >= MEMBERS:
                raise refused(f"it has more than {MEMBERS} members")
            _unpack_member(tar, info, folder, digest, header["databases"])
            if info.name in header["databases"]:
                found.append(info.name)
    if digest.entries != header["files"] or sorted(found) != sorted(header["databases"]):
        raise refused("its members are not those of its header")
    if digest.hex() != header["digest"]:
        raise refused("its content is not what was saved")
    return found


class Bounded(tarfile.TarInfo):
    """A member whose own description is no memory hog: tarfile reads it whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Bounded:
        """Refuse what describes the next member at more than any length."""
        info = super().frombuf(buf, encoding, errors)
        plain = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
        if info.size < 0 or (info.size > _MEMBER_HEADER and not plain):
            raise refused("what it says of a member is of no sensible size")
        return info


def _read_header(source: BinaryIO) -> dict[str, Any]:
    line = source.readline(HEADER_LIMIT)
    if not line.endswith(b"\n") and len(line) < HEADER_LIMIT:
        raise SandboxError(UNFINISHED, "The archive was cut off in its first line.")
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        header = None
    kinds = {"boot": str, "digest": str, "sha256": str, "bytes": int, "files": int}
    if not isinstance(header, dict) or not isinstance(header.get("databases"), list):
        raise refused("its first line is not a header")
    if not all(isinstance(name, str) for name in header["databases"]):
        raise refused("its header names databases that are no names")
    if header.get("format") != FORMAT:
        raise refused(f"format {header.get('format')!r} is not known here")
    for name, kind in kinds.items():
        if not isinstance(header.get(name), kind):
            raise refused(f"its header has no {name}")
    if not 0 <= header["bytes"] <= PACKED:
        raise refused(f"it is larger than {PACKED >> 20} MB")
    return header


def _unpack_member(
    tar: tarfile.TarFile, info: tarfile.TarInfo, folder: str, digest: Digest, known: list[str]
) -> None:
    path = _safe_path(info.name, folder)
    mode = info.mode & 0o777
    try:
        if info.isdir():
            os.mkdir(path, 0o700)
            os.chmod(path, mode | 0o700)
            digest.add(info.name, "folder", mode, "")
        elif info.issym():
            if not info.linkname or unfit_target(info.linkname):
                raise refused(f"the link {short(info.name)} leads nowhere")
            os.symlink(info.linkname, path)
            digest.add(info.name, "link", mode, info.linkname)
        elif info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.issparse():
            hashed = _unpack_file(tar, info, path, mode)
            kind = "database" if info.name in known else "file"
            if kind == "database" and not is_database(path):
                raise refused(f"{short(info.name)} is no database")
            if kind == "file" and info.name in DATABASES and info.size:
                raise refused(f"its header does not name {info.name}")
            digest.add(info.name, kind, mode, hashed)
        else:
            raise refused(f"{short(info.name)} is neither file, folder nor link")
    except FileExistsError as error:
        raise refused(f"{short(info.name)} is in it twice") from error


def _safe_path(name: str, folder: str) -> str:
    """Return where a member goes. Its folder must be one that this archive made before it."""
    if why := unfit(name):
        raise refused(f"the name {short(name)} is not allowed: {why}")
    path, parts = folder, name.split("/")
    for part in parts[:-1]:
        path = os.path.join(path, part)
        if os.path.islink(path) or not os.path.isdir(path):
            raise refused(f"{short(name)} is not in a folder of the archive")
    return os.path.join(path, parts[-1])


def short(name: str) -> str:
    """Return a name as a sentence may quote it."""
    return repr(name if len(name) <= 80 else f"{name[:77]}...")


def _unpack_file(tar: tarfile.TarFile, info: tarfile.TarInfo, path: str, mode: int) -> str:
    digest = ContentHash()
    content = tar.extractfile(info) or io.BytesIO()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with open(os.open(path, flags, 0o600), "wb") as file:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
            file.write(chunk)
        os.fchmod(file.fileno(), mode | 0o400)  # what its owner may not read is never saved again
    os.utime(path, (info.mtime, info.mtime))
    return digest.hex()


def _verify(header: dict[str, Any], body: _HashingSource, source: BinaryIO) -> None:
    if body.left:
        raise _cut(body)
    if source.read(1):
        raise refused("it is longer than its header says")
    if body.hash.hexdigest() != header["sha256"]:
        raise refused("its checksum is wrong")


def _verify_tree(folder: str, found: list[str]) -> None:
    root = os.path.realpath(folder)
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(parent, name)
            if os.path.islink(path) and not inside(path, root):
                raise refused(f"the link {short(name)} leads out")
    for name in found:
        judge(databases.check, os.path.join(folder, name), name)


def judge(verdict: Callable[[str, str], object], path: str, name: str) -> None:
    """Have a database of an archive judged; a verdict on it is one on the archive."""
    try:
        verdict(path, name)
    except SandboxError as error:
        if error.code != DAMAGED_STATE:
            raise
        raise refused(str(error).rstrip(".")) from error


class _HashingSink(io.RawIOBase):
    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._limit = limit
        self.name = file.name
        self.hash = hashlib.sha256()
        self.size = 0

    def write(self, data: Buffer) -> int:
        data = memoryview(data)
        self.size += data.nbytes
        if self.size > self._limit:
            raise Overflow
        self._file.write(data)
        self.hash.update(data)
        return data.nbytes


class _HashingSource(io.RawIOBase):
    """At most `left` bytes of a stream, hashed as they are read."""

    def __init__(self, source: BinaryIO, left: int) -> None:
        self._source = source
        self.left = left
        self.hash = hashlib.sha256()

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

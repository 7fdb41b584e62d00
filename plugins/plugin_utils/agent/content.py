# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is declared, as files: packed into one archive that is the same byte for byte wherever it is made."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, cast

ARCHIVE = "agent.tar.gz"
"""Name of the archive, beside the Worker's code and as its module."""
TABLE = "agent.json"
"""What is no file of Hermes: its settings, servers and jobs, and what is to be taken over."""
SOUL = "SOUL.md"
GZIP = b"\x1f\x8b\x08" + bytes(5) + b"\x02\xff"
"""A header without a time, of no system."""
MOST_PACKED = 4 << 20
MOST_UNPACKED = 32 << 20
MOST_FILES = 2000
MOST_OF_TABLE = 1 << 20
"""Of settings, servers and jobs together: each start reads them."""
DEEPEST = 64
"""How many parts a path may have."""


@dataclass(frozen=True)
class Member:
    """One file. runs: whether it is a program."""

    content: bytes
    runs: bool = False


Members = dict[str, Member]
"""Files by their path in the archive, with forward slashes."""


def pack(members: Mapping[str, Member]) -> bytes:
    """Return the archive: sorted, without times, owners or whatever else differs between machines.

    The table comes first: a start that finds the rest laid already reads no further.
    """
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in sorted(members, key=lambda one: (one != TABLE, one)):
            member = members[name]
            entry = tarfile.TarInfo(name)
            entry.size = len(member.content)
            entry.mode = 0o755 if member.runs else 0o644
            archive.addfile(entry, io.BytesIO(member.content))
    content = held.getvalue()
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = packer.compress(content) + packer.flush()
    # Python's own header names the system that made it.
    return GZIP + packed + struct.pack("<II", zlib.crc32(content), len(content))


def unpack(archive: bytes) -> Members:
    """Return the files of an archive that pack() made. Raises ValueError for what is none."""
    try:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(archive))) as opened:
            return {
                entry.name: Member(
                    cast(IO[bytes], opened.extractfile(entry)).read(), bool(entry.mode & 0o100)
                )
                for entry in opened
                if entry.isreg()
            }
    except (OSError, EOFError, tarfile.TarError) as error:
        raise ValueError(f"no archive: {error}") from error


def digest(content: bytes) -> str:
    """Return the name of some content."""
    return hashlib.sha256(content).hexdigest()


def digest_of_members(members: Mapping[str, Member]) -> str:
    """Return the name of some files."""
    total = hashlib.sha256()
    for name in sorted(members):
        member = members[name]
        total.update(f"{name}\0{member.runs}\0{digest(member.content)}\n".encode())
    return total.hexdigest()

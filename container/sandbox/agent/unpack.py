# SPDX-License-Identifier: Apache-2.0
"""Unpacks a declaration, of which nothing is trusted: bounded, no links, nothing beside its places."""

from __future__ import annotations

import io
import os
import re
import tarfile
import zlib

from sandbox.agent.declared import FIRST, unusable
from sandbox.agent.found import FILES, MEMORIES, MEMORY_FILES, SKILLS, UNPACKED
from sandbox.state.archive import Bounded, short
from sandbox.state.members import unfit

_SKILL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_PLACES = {"SOUL.md", *(f"{MEMORIES}/{name}" for name in MEMORY_FILES)}


def unpack(content: bytes, folder: str) -> None:
    """Unpack an archive into an empty folder.

    Raises SandboxError 70 for one that must not be used; OSError as the system reports it.
    """
    left, count = UNPACKED, 0
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r|gz", tarinfo=Bounded) as tar:
            for info in tar:
                left, count = left - info.size, count + (info.name != FIRST)
                if left < 0:
                    raise unusable(f"it unpacks to more than {UNPACKED >> 20} MB")
                if count > FILES:
                    raise unusable(f"it has more than {FILES} files")
                if info.name != FIRST:
                    _unpack_member(tar, info, folder)
    except (tarfile.TarError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise unusable(str(error) or "it cannot be read") from error
    except RecursionError as error:  # headers upon headers
        raise unusable("it is nested too deeply") from error


def _unpack_member(tar: tarfile.TarFile, info: tarfile.TarInfo, folder: str) -> None:
    if unfit(info.name) or not _has_a_place(info):
        raise unusable(f"there is no place for {short(info.name)}")
    path = os.path.join(folder, info.name)
    try:
        # Nothing in here is a link: what is on the way was made by this archive.
        os.makedirs(path if info.isdir() else os.path.dirname(path), 0o755, exist_ok=True)
        if info.isdir():
            return
        if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.issparse():
            source = tar.extractfile(info) or io.BytesIO()
            mode = 0o755 if info.mode & 0o100 else 0o644
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(source.read())
                os.fchmod(file.fileno(), mode)
        else:
            raise unusable(f"{short(info.name)} is neither file nor folder")
    except (FileExistsError, NotADirectoryError) as error:
        raise unusable(f"{short(info.name)} is in it twice") from error


def _has_a_place(info: tarfile.TarInfo) -> bool:
    kind, _slash, rest = info.name.partition("/")
    if kind == SKILLS:
        name, _slash, inside = rest.partition("/")
        return (info.isdir() and not rest) or bool(_SKILL.match(name) and (inside or info.isdir()))
    return info.name == MEMORIES if info.isdir() else info.name in _PLACES

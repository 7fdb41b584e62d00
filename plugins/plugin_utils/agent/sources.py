# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files, folders and archives of the controller that an inventory names, read as what they are meant to be."""

from __future__ import annotations

import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ansible.errors import AnsibleError

from ...module_utils.settings.values import show
from .content import MOST_FILES, MOST_UNPACKED, Member, Members

LEFT_OUT = frozenset(
    {".git", ".DS_Store", "__MACOSX", "__pycache__", ".ruff_cache", ".pytest_cache"}
)
"""What lies in folders, and is nothing of what people mean by them."""
TEMPLATE = ".j2"
MOST_TEXT = 1 << 20
ONE_LINE = "A text of one line is written {text: ...}."
DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error),
    # A password, a way of packing, names and numbers that are none.
    *(RuntimeError, ValueError, OverflowError),
)
"""What Python raises about an archive that cannot be unpacked, besides an OSError without a number."""
SKILL = "SKILL.md"


class Flaw(Exception):
    """What is wrong with a source. sentence: behind the name of the variable; remedy: what to do."""

    def __init__(self, sentence: str, remedy: str) -> None:
        super().__init__(sentence)
        self.sentence, self.remedy = sentence, remedy


class Absent(Flaw):
    """Nothing is where a source was looked for."""


class Finder:
    """Looks names up beside the inventory, then in the playbook's folder."""

    def __init__(self, folders: list[Path], render: Callable[[str], str]) -> None:
        """render: renders the text of a template with the host's variables. Raises AnsibleError."""
        self.folders = list(dict.fromkeys(folders))
        self.render = render

    def find(self, name: str) -> Path:
        """Return where a file or folder is. Raises a Flaw that tells where it was looked for."""
        expanded = os.path.expanduser(name)
        looked = [Path(os.path.normpath(folder / expanded)) for folder in self.folders]
        for path in dict.fromkeys(looked):
            try:
                found = path.exists()
            except OSError as error:
                raise Flaw(
                    f"{show(name)} is no path: {error.strerror}.",
                    "name a file or folder, or write the text itself with |, in lines of its own.",
                ) from error
            if found and not (path.is_file() or path.is_dir()):
                raise Flaw(f"{_shown(path)} is neither a file nor a folder.", "name one of these.")
            if found:
                return path
        where = ", ".join(_shown(path) for path in dict.fromkeys(looked)) or "nowhere"
        raise Absent(
            f"{show(name)} is not there. Looked for: {where}.",
            "put it there, or mend the path: it is relative to the inventory, then to the playbook.",
        )

    def text(self, value: Any) -> bytes:
        """Return a text: of several lines as it stands, of one line the file that it names. Raises a Flaw."""
        if isinstance(value, Mapping) and set(value) == {"text"} and isinstance(value["text"], str):
            text: str = value["text"]
        elif isinstance(value, Mapping) and set(value) == {"file"} and _is_name(value["file"]):
            text = self._file(value["file"])
        elif isinstance(value, str) and "\n" in value:
            text = value
        elif _is_name(value):
            try:
                text = self._file(value)
            except Absent as flaw:
                raise Absent(flaw.sentence, f"{flaw.remedy} {ONE_LINE}") from flaw
        else:
            raise Flaw(
                f"{show(value)} is neither a text of several lines nor the path of a file.",
                "write the text with |, or name a file; {text: ...} and {file: ...} say which is meant.",
            )
        if not text.strip():
            raise Flaw("is an empty text.", "write something, or leave it out.")
        try:
            content = (text if text.endswith("\n") else f"{text}\n").encode()
        except UnicodeEncodeError as error:  # what a template made
            raise Flaw("has half a character, which no file can hold.", "mend it.") from error
        if len(content) > MOST_TEXT or b"\0" in content:
            raise _too_long("is")
        return content

    def _file(self, name: str) -> str:
        path = self.find(name)
        if path.is_dir():
            raise Flaw(f"{_shown(path)} is a folder.", "name a file.")
        try:
            if path.stat().st_size > MOST_TEXT:
                raise _too_long(f"{_shown(path)} is")
            text = path.read_bytes().decode().replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise Flaw(f"{_shown(path)} is no text in UTF-8.", "save it as one.") from error
        except OSError as error:
            raise _unreadable(path, error) from error
        if path.suffix != TEMPLATE:
            return text
        try:
            return self.render(text)
        except AnsibleError as error:
            reason = str(error).partition("\n")[0][:160].rstrip(".")
            raise Flaw(
                f"the template {_shown(path)} cannot be rendered: {reason}.",
                "mend the template, or define what it refers to.",
            ) from error

    def skill(self, value: Any) -> Members:
        """Return the files of a skill: of a folder, an archive, or of its one text. Raises a Flaw."""
        if not _is_name(value):
            return {SKILL: Member(self.text(value))}
        path = self.find(value)
        try:
            if path.is_dir():
                members = _folder(path)
            elif zipfile.is_zipfile(path):
                members = _rooted(_zip(path))
            elif tarfile.is_tarfile(path):
                members = _rooted(_tar(path))
            else:
                return {SKILL: Member(self.text(value))}
        except (*DAMAGED, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise _unreadable(error.filename or path, error) from error
            why = str(error).partition("\n")[0][:160].rstrip(".") or "it ends too early"
            raise Flaw(
                f"{_shown(path)} cannot be unpacked: {why}.",
                "pack it again, as .zip or .tar.gz, without a password.",
            ) from error
        folders = {str(folder) for name in members for folder in PurePosixPath(name).parents}
        if twice := folders & members.keys():
            raise Flaw(
                f"{_shown(path)} has {show(min(twice))}, which is a file and a folder.",
                "pack one of the two.",
            )
        if SKILL not in members:
            raise Flaw(
                f"{_shown(path)} has no {SKILL}.", f"a skill is a folder with a {SKILL} in it."
            )
        return members


def _is_name(value: Any) -> bool:
    return (
        isinstance(value, str) and "\n" not in value and "\0" not in value and bool(value.strip())
    )


def _shown(path: Path) -> str:
    """Return a path the way a person would type it."""
    relative = os.path.relpath(path)
    text = relative if not relative.startswith("..") else str(path)
    return text if text.isprintable() else show(text)


def _too_long(subject: str) -> Flaw:
    return Flaw(f"{subject} no text of at most {MOST_TEXT >> 20} MB.", "make it shorter.")


def _unreadable(path: Path | str, error: OSError) -> Flaw:
    return Flaw(
        f"{_shown(Path(path))} cannot be read: {error.strerror or error}.",
        "mend its rights, or its path.",
    )


class _Limits:
    """Counts what is read, so that no more is than fits."""

    def __init__(self, path: Path) -> None:
        self.path, self.files, self.size = path, 0, 0

    def take(self, size: int) -> None:
        """Count one more file. Raises a Flaw."""
        self.files += 1
        self.size += size
        if self.files > MOST_FILES or self.size > MOST_UNPACKED:
            raise Flaw(
                f"{_shown(self.path)} has more than {MOST_FILES} files or {MOST_UNPACKED >> 20} MB.",
                "leave out what Hermes does not read.",
            )


def _folder(folder: Path) -> Members:
    limits, members = _Limits(folder), {}

    def stop(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=stop):
        folders[:] = sorted(set(folders) - LEFT_OUT)
        for name in sorted({*folders, *files} - LEFT_OUT):
            path = Path(place, name)
            mode = path.lstat().st_mode
            inside = path.relative_to(folder).as_posix()
            if stat.S_ISDIR(mode):
                continue
            if not stat.S_ISREG(mode):
                kind = "a link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
                raise Flaw(f"{_shown(path)} is {kind}.", "put a copy of the file there.")
            if path.suffix != ".pyc":
                limits.take(path.stat().st_size)
                members[inside] = Member(path.read_bytes(), bool(mode & 0o100))
    return members


def _zip(path: Path) -> Members:
    limits, members = _Limits(path), {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            mode = entry.external_attr >> 16
            if entry.is_dir():
                continue
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise _odd_member(path, entry.filename)
            limits.take(entry.file_size)
            name = _member_name(path, entry.filename)
            members[name] = Member(archive.read(entry), bool(mode & 0o100))
    return members


def _tar(path: Path) -> Members:
    limits, members = _Limits(path), {}
    with tarfile.open(path) as archive:
        for entry in archive:
            if entry.isdir():
                continue
            held = archive.extractfile(entry) if entry.isreg() else None
            if held is None:
                raise _odd_member(path, entry.name)
            limits.take(entry.size)
            name = _member_name(path, entry.name)
            members[name] = Member(held.read(), bool(entry.mode & 0o100))
    return members


def _member_name(path: Path, name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name:
        raise _odd_member(path, name)
    return "/".join(parts)


def _odd_member(path: Path, name: str) -> Flaw:
    return Flaw(
        f"{_shown(path)} has {show(name)}, which is no file inside of it.",
        "pack plain files and folders only.",
    )


def _rooted(members: Members) -> Members:
    """Return the files of an archive that may have a folder around them."""
    kept = {
        name: one for name, one in members.items() if not LEFT_OUT.intersection(name.split("/"))
    }
    tops = {name.partition("/")[0] for name in kept}
    if SKILL in kept or len(tops) != 1:
        return kept
    return {name.partition("/")[2]: one for name, one in kept.items() if "/" in name}

# SPDX-License-Identifier: Apache-2.0
"""Which packages this process has, as the files around its own interpreter say. Runs on Hermes' interpreter.

Of a package of Debian an image holds what dpkg would know (see plugins/plugin_utils/build/debian.py): its version, and
the digests of its files, which are compared with the files that are there. So a file that the base had already, or
that somebody replaced, is told.
"""

import functools
import hashlib
import os
import re
import sys
import sysconfig
from pathlib import Path

RECORDS = "var/lib/dpkg/status.d"
_NAME = re.compile(r"^Name: *(\S+)$", re.MULTILINE)
_VERSION = re.compile(r"^Version: *(\S+)$", re.MULTILINE)


def told(root: str = "/") -> "dict[str, object]":
    """Return the packages of Python, by name with the version, and those of Debian; names of modules and programs.

    root: where the files of Debian's are.
    """
    return {
        "python": of_python(),
        "debian": of_debian(Path(root)),
        "modules": sorted(
            {name.partition(".")[0] for name in _listed(sysconfig.get_path("purelib"))}
        ),
        "commands": _listed(os.path.join(sys.prefix, "bin")),
    }


def of_python() -> "dict[str, str]":
    """Return the version of each that an import finds, by its name as a lock spells it."""
    found: dict[str, str] = {}
    for place in sys.path:
        for notes in sorted(Path(place).glob("*.dist-info/METADATA")):
            name, version = _noted(notes, *_state(notes))
            # Of two with one name the first is imported.
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
    return found


@functools.cache
def _noted(notes: Path, *_state: int) -> "tuple[str, str]":
    """Return a package's name and version; once for each state of its notes, most of which is a long description."""
    head = notes.read_text("utf-8", "replace").partition("\n\n")[0]
    name, version = _NAME.search(head), _VERSION.search(head)
    return (name[1] if name else notes.parent.name, version[1] if version else "")


def _listed(folder: str) -> "list[str]":
    """Return the names in a folder that is there."""
    return sorted(os.listdir(folder))


def of_debian(root: Path) -> "dict[str, dict[str, object]]":
    """Return each package that was laid into the image: its version, and which of its files are others, or gone."""
    found: dict[str, dict[str, object]] = {}
    for record in sorted(root.joinpath(RECORDS).glob("*")):
        sums = record.with_name(f"{record.name}.md5sums")
        if sums.is_file() and (version := _VERSION.search(record.read_text("utf-8"))):
            lines = (line.split("  ", 1) for line in sums.read_text("utf-8").splitlines())
            now = {path: (digest, _digest(root / path)) for digest, path in lines}
            found[record.name] = {
                "version": version[1],
                "other": [path for path, (packed, there) in now.items() if packed != there],
                "gone": [path for path, (_packed, there) in now.items() if not there],
            }
    return found


def _digest(path: Path) -> str:
    try:
        return _read(path, *_state(path))
    except OSError:
        return ""


def _state(path: Path) -> "tuple[int, int, int]":
    """Return what is otherwise once a file was changed."""
    now = path.stat()
    return now.st_mtime_ns, now.st_ctime_ns, now.st_size


@functools.cache
def _read(path: Path, *_state: int) -> str:
    """Return a file's digest; once for each state of it, since a small machine reads long."""
    # In parts: a browser is one file, larger than all of Hermes in memory.
    with path.open("rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


def _md5() -> "hashlib._Hash":
    return hashlib.md5(usedforsecurity=False)

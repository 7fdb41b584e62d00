# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why an installer failed, by its own words, and what of this machine was in its way.

Needs nothing but Python itself: requirements/bootstrap.py reads it.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

FULL = re.compile(
    r"ENOSPC|No space left on device|os error 28|Errno 28|EDQUOT|Disk quota exceeded", re.IGNORECASE
)
HASH = re.compile(r"EINTEGRITY|Hash mismatch|THESE PACKAGES DO NOT MATCH THE HASHES", re.IGNORECASE)

# A package in uv's cache that somebody wrote over, and its name: what is installed is one file with what is there.
CACHED = re.compile(
    r"Failed to install: ([\w.]+?)-\d.*?Wheel version does not match filename", re.DOTALL
)
# A certificate holds for some months, and a clock that is wrong by years is in none of them.
CLOCK = re.compile(
    r"certificate (?:not valid yet|is not yet valid|expired|has expired)|CERT_NOT_YET_VALID|CERT_HAS_EXPIRED",
    re.IGNORECASE,
)
# What a shell, a user or a container is limited to: threads and processes, memory, open files, their lengths.
LIMIT = re.compile(
    r"Resource temporarily unavailable|Cannot allocate memory|MemoryError|can't start new thread"
    r"|Too many open files|File too large|out of memory|\b(?:EAGAIN|ENOMEM|EMFILE|EFBIG)\b"
    r"|os error (?:11|12|24|27)\b",
    re.IGNORECASE,
)
KILLED = (-9, 137)
"""How a program ends that the system kills because there is no memory left; by itself, and below a shell."""
UNWRITABLE = re.compile(
    r"\b(?:EROFS|EACCES)\b|Read-only file system|Permission denied|os error (?:13|30)\b",
    re.IGNORECASE,
)


def of_machine(said: str, env: Mapping[str, str], code: int = 1) -> dict[str, str] | None:
    """Return what of this machine was in an installer's way, as words of a card; None where it was something else.

    said: by the installer; env: what it was told; code: how it ended.
    """
    if CLOCK.search(said):
        today = time.strftime("%Y-%m-%d")
        return problem(
            "clock",
            f"it is {today} on this machine, and a certificate does not hold then",
            "set the clock; where it is right, ask who runs your package mirror; then run it again.",
            "clock",
        )
    if LIMIT.search(said) or code in KILLED:
        return problem(
            "limit",
            "no further process, memory or open file, or no longer file, may be had",
            "raise what limits this shell (`ulimit -a`), user or container, then run it again.",
            "limit",
        )
    folders = caches(env)
    unwritable = [name for name in folders if not os.access(_existing(folders[name]), os.W_OK)]
    if UNWRITABLE.search(said) and unwritable:
        return problem(
            str(folders[unwritable[0]]),
            "cannot be written, and packages are kept there",
            f"set {' and '.join(unwritable)} to folders that you can write; then run it again.",
            "system",
        )
    return None


def problem(subject: str, sentence: str, remedy: str, heading: str) -> dict[str, str]:
    """Return the words of a card, by the names that its text has for them. heading: of errors.md."""
    return {"subject": subject, "sentence": sentence, "remedy": remedy, "heading": heading}


def caches(env: Mapping[str, str]) -> dict[str, Path]:
    """Return the folders that installers keep packages in, by the variables that name others. env: of the installer."""
    home = env.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return {
        "UV_CACHE_DIR": Path(env.get("UV_CACHE_DIR") or home),
        "npm_config_cache": Path(env.get("npm_config_cache") or os.path.expanduser("~/.npm")),
    }


def fullest(target: Path, env: Mapping[str, str]) -> tuple[Path, int, str]:
    """Return, of the folders that an installer writes to, the one on the fullest disk.

    With it come the free bytes there, and the variable that names another folder; "" for what is installed into.
    target: what is installed into; env: of the installer.
    """
    places = {"": target, "TMPDIR": Path(tempfile.gettempdir()), **caches(env)}
    found = [(_free(place := _existing(path)), place, name) for name, path in places.items()]
    free, place, name = min(found, key=lambda one: one[0])
    return place, free, name


def _free(path: Path) -> int:
    """Return how many bytes can be written below a folder; none where no further file can be made."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize if found.f_favail or not found.f_files else 0


def _existing(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if one.exists())

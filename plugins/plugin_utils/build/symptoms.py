# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why an installer failed, by its own words, and which disk was full then.

Needs nothing but Python itself: requirements/bootstrap.py reads it.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

FULL = re.compile(
    r"ENOSPC|No space left on device|os error 28|Errno 28|EDQUOT|Disk quota exceeded", re.IGNORECASE
)
HASH = re.compile(r"EINTEGRITY|Hash mismatch|THESE PACKAGES DO NOT MATCH THE HASHES", re.IGNORECASE)


def fullest(target: Path, env: Mapping[str, str]) -> tuple[Path, int, str]:
    """Return, of the folders that an installer writes to, the one on the fullest disk.

    With it come the free bytes there, and the variable that names another folder; "" for what is installed into.
    target: what is installed into; env: of the installer.
    """
    cache = env.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    places = {
        "": target,
        "TMPDIR": Path(tempfile.gettempdir()),
        "UV_CACHE_DIR": Path(env.get("UV_CACHE_DIR") or cache),
        "npm_config_cache": Path(env.get("npm_config_cache") or os.path.expanduser("~/.npm")),
    }
    found = [(_free(place := _existing(path)), place, name) for name, path in places.items()]
    free, place, name = min(found, key=lambda one: one[0])
    return place, free, name


def _free(path: Path) -> int:
    """Return how many bytes can be written below a folder; none where no further file can be made."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize if found.f_favail or not found.f_files else 0


def _existing(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if one.exists())

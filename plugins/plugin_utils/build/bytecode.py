# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytecode of an earlier installation for a later one: most packages are the same, and compiling costs the most."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

COMPILED = "lib/python3*/site-packages/**/__pycache__/*.pyc"


@contextmanager
def lent(earlier: Path | None, later: Path) -> Iterator[None]:
    """Lend a virtual environment the bytecode of another, while its packages are installed and compiled.

    Whoever compiles leaves out what has bytecode for a source of that time. Two sources may share that, so at the end
    bytecode is kept only for a source that is byte for byte the one it was made from.

    earlier: the environment that has bytecode; None where there is none. later: one without packages.
    """
    laid = {} if earlier is None else _lay(earlier, later)
    yield
    for place, number in laid.items():
        if earlier is not None and not _equal(_source(earlier / place), _source(later / place)):
            _take_back(later / place, number)


def _lay(earlier: Path, later: Path) -> dict[Path, int]:
    """Link the bytecode; return its places, relative to an environment, and the number of each one's inode."""
    laid = {}
    for compiled in earlier.glob(COMPILED):
        place = compiled.relative_to(earlier)
        # Another play may remove the earlier installation, and a file system may have no links.
        with suppress(OSError):
            (later / place).parent.mkdir(parents=True, exist_ok=True)
            os.link(compiled, later / place)
            laid[place] = (later / place).stat().st_ino
    return laid


def _source(compiled: Path) -> Path:
    """Return where the source of some bytecode is, if it is."""
    return compiled.parents[1] / f"{compiled.name.rsplit('.', 2)[0]}.py"


def _equal(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return one.samefile(other) or filecmp.cmp(one, other, shallow=False)
    return False


def _take_back(compiled: Path, number: int) -> None:
    """Remove what was lent, unless it was compiled anew, and the folders that held nothing else.

    Python would take such a folder for a package.
    """
    with suppress(OSError):
        if compiled.stat().st_ino == number:
            compiled.unlink()
        for folder in compiled.parents:
            folder.rmdir()

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what an installer laid is what the packages themselves say that they hold, by the digests of their files.

An installer compares what it fetches. What it has unpacked before it takes as it lies in its cache, where each file is
one with that of every environment that has it: whoever writes over one writes over all, and over later ones.
"""

from __future__ import annotations

import base64
import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path

RECORDS = "*.dist-info/RECORD"


def overwritten(packages: Path) -> Iterator[tuple[str, Path]]:
    """Return for each package that has another file than its record the package's name and the first such file.

    packages: the folder that they were installed into.
    """
    for record in sorted(packages.glob(RECORDS)):
        name = record.parent.name.split("-")[0]
        with record.open(encoding="utf-8", newline="") as rows:
            for path, digest, _size in csv.reader(rows):
                if digest and not _is_so(packages / path, digest):
                    yield name, packages / path
                    break


def _is_so(path: Path, digest: str) -> bool:
    """Tell whether a file is there with a digest, as a record writes it: `sha256=...`, in base64 without its end."""
    kind, _equals, value = digest.partition("=")
    try:
        with path.open("rb") as content:
            found = hashlib.file_digest(content, kind).digest()
    except OSError:
        return False
    return base64.urlsafe_b64encode(found).rstrip(b"=").decode() == value

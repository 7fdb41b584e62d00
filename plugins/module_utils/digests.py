# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Digests that name what was built, and proofs of secrets that cannot be read back."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

LENGTH = 16
"""Hexadecimal digits of a digest; 64 bits name a build and leave room in a path."""

IGNORED_FOLDERS = frozenset(
    {"__pycache__", "node_modules", "tests", "test", ".pytest_cache", ".ruff_cache"}
)


def files_below(folder: Path) -> list[Path]:
    """Return the source files below a folder, sorted, without caches and tests."""
    found = []
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if path.is_file() and path.suffix != ".pyc" and not IGNORED_FOLDERS.intersection(inside):
            found.append(path)
    return sorted(found)


def clean_bytes(path: Path) -> bytes:
    """Return a text file's bytes with Unix line ends, so that a Windows clone has the same digest."""
    return path.read_bytes().replace(b"\r\n", b"\n")


def digest_of(root: Path, paths: list[Path], *facts: str) -> str:
    """Return the digest over files (name relative to root, and content) and further facts.

    Raises OSError when a file cannot be read.
    """
    total = hashlib.sha256()
    for path in sorted(paths):
        content = hashlib.sha256(clean_bytes(path)).hexdigest()
        total.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    for fact in facts:
        total.update(f"\0{fact}\n".encode())
    return total.hexdigest()[:LENGTH]


def proof(value: str, nonce: str) -> str:
    """Return HMAC-SHA256 in hexadecimal, keyed by the secret's value, over the nonce's text."""
    return hmac.new(value.encode(), nonce.encode(), hashlib.sha256).hexdigest()


def matches(value: str, nonce: str, claimed: str) -> bool:
    """Whether a proof is that of this value, compared in constant time."""
    return hmac.compare_digest(claimed.encode(), proof(value, nonce).encode())


def differing(wanted: dict[str, str], proofs: dict[str, str], nonce: str) -> list[str]:
    """Return the names of secrets that the other side lacks, holds with another value, or should not hold."""
    changed = [
        name for name, value in wanted.items() if not matches(value, nonce, proofs.get(name, ""))
    ]
    return sorted(changed + [name for name in proofs if name not in wanted])

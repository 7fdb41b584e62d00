# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk below a state folder: room on it, private files, and what it says when it fails."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from pathlib import Path

from ...module_utils.cards import Card, Problem

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
ROOM_BYTES = 4_000_000
"""What a save of a small state takes, with the database's own log of it."""


def write_private(path: Path, text: str | bytes, *, durable: bool = False) -> None:
    """Write a file of mode 0600 so that a reader sees the old or the new content, never a part.

    durable: return only when a loss of power cannot undo it.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(text if isinstance(text, bytes) else text.encode())
            if durable:
                handle.flush()
                os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def full_disk(folder: Path) -> Problem | None:
    """Return the problem of a folder whose disk has no room for a save; None when there is room, or no such folder."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return None
    if free >= ROOM_BYTES:
        return None
    sentence = f"no space left below {folder}: {free / 1e6:.1f} MB free."
    return Problem("disk", sentence, "free space there; nothing is saved until then.", "disk")


def disk_card(error: OSError, path: Path, changed: str | None = None) -> Card:
    """Return the card for a failure to write below a path."""
    if error.errno in DISK_FULL:
        return Card.of(
            "disk",
            f"no space left below {path}.",
            "free space there, or set hermes_state_dir.",
            "disk",
            changed,
        )
    return Card.of(
        "hermes_state_dir",
        f"{path} cannot be written: {error.strerror or error}.",
        "set hermes_state_dir to a folder that you own.",
        "state-dir",
        changed,
    )


INSTALL_BYTES = {
    "image": 450_000_000,
    "tools": 190_000_000,
    "node": 210_000_000,
    "host": 50_000_000,
    "wrangler": 250_000_000,
}
"""What each part of the runtime takes while it is installed, where the cache of uv is on another disk, so that nothing
is shared with it."""
RUN_BYTES = 100_000_000
IMAGE_BYTES = 1_500_000_000
"""For a while there are a base, the packages, and two layers with them."""

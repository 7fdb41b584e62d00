# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Makes this checkout importable as the collection hermes.workers."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COLLECTIONS = ROOT / ".ansible" / "collections"


def link_checkout() -> None:
    """Make the link that the Makefile makes too, so that pytest can be run by itself."""
    link = COLLECTIONS / "ansible_collections" / "hermes" / "workers"
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("../../../..")


link_checkout()
sys.path.insert(0, str(COLLECTIONS))

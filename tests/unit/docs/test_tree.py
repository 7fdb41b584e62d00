# SPDX-License-Identifier: Apache-2.0
"""The checkout can be copied, searched and packed by whoever follows its links."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_no_link_contains_itself() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    links = [
        line.split("\t")[1] for line in listed.stdout.splitlines() if line.startswith("120000")
    ]
    assert links
    for link in links:
        target = (ROOT / link).resolve(strict=True)
        assert target.is_relative_to(ROOT), f"{link} leads out of the checkout"
        assert not (ROOT / os.path.dirname(link)).is_relative_to(target), f"{link} contains itself"

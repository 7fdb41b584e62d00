# SPDX-License-Identifier: Apache-2.0
"""Makes the hashed lock of Debian's packages for the features anew: `make lock`, on a machine with Debian 12.

container/debian.json says of each package where it lies in the archive, its SHA-256 and its size, and of each feature
which packages it needs beyond those that every Debian has; and by which hashes the indexes are known that hold all
packages, for `hermes_packages`. apt's own lists are read, whose signatures apt has checked.
"""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from ansible_collections.hermes.workers.plugins.module_utils.settings.features import (
    FEATURES,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.build import debian_index

from tools import ROOT

LOCK = ROOT / "container" / "debian.json"
SUITE = "bookworm"
OF_GIT = {"git-man", "liberror-perl", "perl"}
"""What git needs these for is none of an agent's work: mail, Subversion, a manual."""
OF_CHROMIUM = {"x11-utils", "xdg-utils"}
"""What Chromium has these for needs a screen; they bring all of Mesa along."""
LEFT_OUT = debian_index.BASE_HAS | OF_GIT | OF_CHROMIUM


def indexes() -> tuple[dict[str, debian_index.Package], list[dict[str, str]]]:
    """Return the newest package of each name that apt knows, and of which indexes: archive, suite and hash."""
    listed = subprocess.run(
        [
            *("apt-get", "indextargets", "--format"),
            "$(FILENAME) $(REPO_URI) $(CODENAME)",
            *("Created-By: Packages", "Component: main", "Architecture: amd64"),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    known: dict[str, debian_index.Package] = {}
    found = []
    targets = [line.split(" ") for line in listed.splitlines()]
    archives = [(uri.rstrip("/").rpartition("/")[2], suite, path) for path, uri, suite in targets]
    for archive, suite, path in sorted(archives):
        if not suite.startswith(SUITE):
            continue
        text = subprocess.run(
            ["/usr/lib/apt/apt-helper", "cat-file", path], check=True, capture_output=True
        ).stdout.decode()
        debian_index.merge(known, debian_index.packages(text, archive))
        signed = Path(re.sub(r"_main_binary-amd64_Packages.*", "_InRelease", path)).read_text()
        (sha256,) = re.findall(
            rf"^ ([0-9a-f]{{64}}) +\d+ {debian_index.INDEX}/Packages.xz$", signed, re.MULTILINE
        )
        found.append({"archive": archive, "suite": suite, "sha256": sha256})
    return known, found


def main() -> None:
    """Write the lock."""
    known, found = indexes()
    there = debian_index.base(known) | LEFT_OUT
    parts = {
        feature.name: sorted(debian_index.needed(known, feature.debian, there))
        for feature in FEATURES
        if feature.debian
    }
    lock = {
        "snapshot": datetime.now(UTC).strftime("%Y%m%dT000000Z"),
        "suite": SUITE,
        "indexes": found,
        "packages": debian_index.locked(known, {name for part in parts.values() for name in part}),
        "parts": parts,
    }
    LOCK.write_text(json.dumps(lock, indent=2) + "\n")


if __name__ == "__main__":
    main()

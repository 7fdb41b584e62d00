# SPDX-License-Identifier: Apache-2.0
"""Makes the hashed lock of Debian's packages for the features anew: `make lock`, on a machine with Debian 12.

container/debian.json says of each package where it lies in the archive, its SHA-256 and its size, and of each feature
which packages it needs beyond those that every Debian has. apt's own lists are read, whose signatures apt has checked.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".ansible" / "collections"))

from ansible_collections.hermes.workers.plugins.module_utils.settings.features import (  # noqa: E402
    FEATURES,
)

LOCK = ROOT / "container" / "debian.json"
SUITE = "bookworm"
LEFT_OUT = frozenset(
    # What git needs them for is none of an agent's work: mail, Subversion, a manual. Accounts are the base's.
    ("git-man", "liberror-perl", "perl", "passwd", "adduser", "debconf")
)

Package = dict[str, str]


def packages() -> dict[str, Package]:
    """Return the newest package of each name that apt knows, with what its archive is called."""
    listed = subprocess.run(
        [
            *("apt-get", "indextargets", "--format", "$(FILENAME) $(REPO_URI) $(CODENAME)"),
            *("Created-By: Packages", "Component: main"),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found: dict[str, Package] = {}
    for line in listed.splitlines():
        path, uri, codename = line.split(" ")
        if not codename.startswith(SUITE):
            continue
        text = subprocess.run(
            ["/usr/lib/apt/apt-helper", "cat-file", path], check=True, capture_output=True
        ).stdout.decode()
        for block in text.split("\n\n"):
            package = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", block, re.MULTILINE))
            if package.get("Architecture") not in ("amd64", "all"):
                continue
            package["Archive"] = uri.rstrip("/").rpartition("/")[2]
            old = found.get(package["Package"])
            if old is None or newer(package["Version"], old["Version"]):
                found[package["Package"]] = package
    return found


def newer(one: str, other: str) -> bool:
    """Tell whether a version is newer than another, as Debian orders them."""
    command = ["dpkg", "--compare-versions", one, "gt", other]
    return subprocess.run(command, check=False).returncode == 0


def needed(known: dict[str, Package], names: list[str]) -> set[str]:
    """Return all that these need, and they themselves."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        package = known.get(name)
        if package is None or name in found or name in LEFT_OUT:
            continue
        found.add(name)
        wanted = ", ".join(filter(None, (package.get("Depends"), package.get("Pre-Depends"))))
        left += [re.split(r"[ :]", one, maxsplit=1)[0] for one in filter(None, wanted.split(", "))]
    return found


def main() -> None:
    """Write the lock."""
    known = packages()
    every = {
        name
        for name, package in known.items()
        if package.get("Essential") == "yes" or name == "apt"
    }
    there = needed(known, sorted(every))
    parts = {
        feature.name: sorted(needed(known, list(feature.debian)) - there)
        for feature in FEATURES
        if feature.debian
    }
    locked = {
        name: {
            "archive": known[name]["Archive"],
            "path": known[name]["Filename"],
            "sha256": known[name]["SHA256"],
            "size": int(known[name]["Size"]),
        }
        for name in sorted({name for part in parts.values() for name in part})
    }
    snapshot = datetime.now(UTC).strftime("%Y%m%dT000000Z")
    text = json.dumps({"snapshot": snapshot, "packages": locked, "parts": parts}, indent=2)
    LOCK.write_text(text + "\n")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Moves the pin of Hermes: `make bump VERSION=0.20.1`. Its locks are made anew, and what changed is shown.

Commits nothing. Where a lock cannot be made, everything is as before.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CONTAINER = Path(__file__).resolve().parent.parent / "container"
FILES = ("requirements.in", "requirements.lock", "features.lock", "features.json")
PIN = re.compile(r"^(hermes-agent\[[^\]]*\]==)(\S+)$", re.MULTILINE)
LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
VERSION = re.compile(r"\d+(\.\d+)+[a-z0-9.+]*")


def changes(before: str, after: str) -> list[str]:
    """Return a line for each package whose version differs between two locks."""
    old, new = dict(LOCKED.findall(before)), dict(LOCKED.findall(after))
    lines = []
    for name in sorted({*old, *new}):
        was, now = old.get(name, "-"), new.get(name, "-")
        if was != now:
            lines.append(f"{name:<28} {was} -> {now}")
    return lines


def bump(container: Path, version: str, lock: list[str]) -> list[str]:
    """Pin a version and make the locks anew; return what changed. lock: the command that makes them.

    Raises subprocess.CalledProcessError, after everything was put back.
    """
    before = {name: (container / name).read_bytes() for name in FILES}
    pins = container / "requirements.in"
    pins.write_text(PIN.sub(rf"\g<1>{version}", pins.read_text()))
    try:
        subprocess.run(lock, check=True)
    except BaseException:
        for name, content in before.items():
            (container / name).write_bytes(content)
        raise
    return changes(before["features.lock"].decode(), (container / "features.lock").read_text())


def main() -> None:
    """Move the pin to the version that is the one argument."""
    version = sys.argv[1] if len(sys.argv) == 2 else ""
    if not VERSION.fullmatch(version):
        sys.exit("Say which Hermes: make bump VERSION=0.20.1")
    try:
        found = bump(CONTAINER, version, [sys.executable, "-m", "tools.lock_features"])
    except subprocess.CalledProcessError:
        sys.exit(f"Hermes {version} cannot be locked; the pin and the locks are as before.")
    print("\n".join(found or ["No package changed."]))
    print(
        f"\nNothing is committed. What is known against {version} belongs into container/advisories.json;"
        " then `make test`."
    )


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Makes the hashed locks of Hermes and of its features anew: `make lock`.

container/requirements.lock is what an image without features holds. container/features.lock has the
packages of all features and of Hermes in versions that fit them all, and container/features.json which
of them Hermes by itself ("") and each feature needs: of two features an image gets what either does.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from ansible_collections.hermes.workers.plugins.module_utils.settings.features import (
    FEATURES,
)

from tools import ROOT

CONTAINER = ROOT / "container"
LINE = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)


def compiled(lock: Path, requirements: list[str], *options: str) -> str:
    """Lock Hermes with further requirements, on all Pythons and machines that it runs on.

    lock: what is in it already is preferred. Returns its text.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".in") as file:
        file.write("\n".join(requirements) + "\n")
        file.flush()
        command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
        command += ["--no-emit-index-url", "--no-header", *options, "--output-file", str(lock)]
        subprocess.run([*command, str(CONTAINER / "requirements.in"), file.name], check=True)
    return lock.read_text()


def main() -> None:
    """Write the three files."""
    options = sys.argv[1:]
    base, lock = CONTAINER / "requirements.lock", CONTAINER / "features.lock"
    compiled(base, [], "--generate-hashes", *options)
    if not lock.exists():
        lock.write_text(base.read_text())
    every = [word for feature in FEATURES for word in feature.requirements]
    compiled(lock, every, "--generate-hashes", "--no-annotate", *options)
    parts = {"": (), **{feature.name: feature.requirements for feature in FEATURES}}
    names: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, requirements in parts.items():
            part = compiled(
                Path(folder) / "part", [*requirements], "--constraint", str(lock), *options
            )
            of_hermes = set(names.get("", ()))
            names[name] = sorted(set(LINE.findall(part)) - of_hermes)
    (CONTAINER / "features.json").write_text(json.dumps(names, indent=2) + "\n")


if __name__ == "__main__":
    main()

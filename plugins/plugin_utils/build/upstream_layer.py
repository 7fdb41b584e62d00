# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder that the sandbox's layer upon an image of upstream's is built from: our programs and a newer SQLite.

Where things are in such an image is what upstream's own Dockerfile lays out.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from . import build_context

HERMES = "/opt/hermes"
"""Upstream's: its sources, with the virtual environment in them."""

ENVIRONMENT = f"{HERMES}/.venv"
PYTHON = f"{ENVIRONMENT}/bin/python3"
PROGRAM = f"{ENVIRONMENT}/bin/hermes"
SANDBOX = "/opt/sandbox"
"""Ours: nothing of upstream's is there."""

FOLDER = "upstream"
"""Folder of the Dockerfile, in the collection's folder `container`."""

_PYTHON = f'#!/bin/sh\nexec {PYTHON} "$@"\n'
# Not upstream's program: that may be a shell script, and ours starts it on an interpreter that it has prepared.
_PROGRAM = f"#!{PYTHON}\nimport sys\nfrom hermes_cli.main import main\nsys.exit(main())\n"
# Hermes runs commands in a login shell, for which /etc/profile begins with a path of its own.
_PROFILE = f"PATH={SANDBOX}/bin:{ENVIRONMENT}/bin:$PATH\n"
_SQLITE = re.compile(r"^pysqlite3==.*(?:\n    --hash.*)*\n", re.MULTILINE)


def digest(container_dir: Path, image: str) -> str:
    """Return the digest of what `prepare` lays upon an image, and of that image: nothing is built or fetched.

    image: a name with a digest; by whichever name, it is the same.
    Raises BuildContextError when a source is missing.
    """
    of_image = image.rpartition("@")[2]
    text = f"{build_context.FORMAT}\0{build_context.PLATFORM}\0{of_image}\0{_PROGRAM}{_PYTHON}{_PROFILE}"
    total = hashlib.sha256(text.encode() + _lock(container_dir).encode())
    for path in _sources(container_dir):
        content = hashlib.sha256(build_context.unix_text(path)).hexdigest()
        total.update(f"{path.relative_to(container_dir).as_posix()}\0{content}\n".encode())
    return total.hexdigest()[: build_context.DIGITS]


def prepare(
    container_dir: Path, target_dir: Path, python_version: str, uv_command: Sequence[str]
) -> None:
    """Make the build folder `target_dir`.

    container_dir: the collection's `container` folder.
    target_dir: replaced when it exists.
    python_version: of the image's environment, as "3.13".
    uv_command: how to run uv, as ["uv"].

    Raises BuildContextError when a source is missing or the library cannot be had.
    """
    sources = _sources(container_dir)
    if target_dir.exists():
        shutil.rmtree(target_dir)
    tree = target_dir / "tree"
    ours = tree / SANDBOX.strip("/")
    for path in sources:
        inside = path.relative_to(container_dir)
        if inside.parts[0] in ("sandbox", "start-hermes.sh"):
            _write(ours / inside, build_context.unix_text(path))
    launcher = build_context.unix_text(container_dir / "sandbox.sh").decode()
    for name, content in (("sandbox", launcher), ("python3", _PYTHON), ("hermes", _PROGRAM)):
        _write(ours / "bin" / name, content, 0o755)
    _write(tree / "etc" / "profile.d" / "hermes.sh", _PROFILE)
    dockerfile = container_dir / FOLDER / "Dockerfile"
    _write(target_dir / "Dockerfile", build_context.unix_text(dockerfile))
    _lay_sqlite(container_dir, target_dir, python_version, uv_command)
    build_context.settle(target_dir)


def _lay_sqlite(
    container_dir: Path, target_dir: Path, python_version: str, uv_command: Sequence[str]
) -> None:
    """Put the newer SQLite into upstream's environment, and have every Python of it begin with that."""
    (target_dir / build_context.LOCK).write_text(_lock(container_dir), encoding="utf-8")
    build_context.install_packages(target_dir, python_version, uv_command, None)
    packages = target_dir / build_context.PACKAGES
    environment = target_dir / "tree" / ENVIRONMENT.strip("/")
    build_context.lay_sqlite(packages, container_dir, environment / build_context.SQLITE)
    started = environment / "lib" / f"python{python_version}" / "site-packages"
    for file in packages.glob("*.pth"):
        _write(started / file.name, file.read_bytes())
    shutil.rmtree(packages)
    (target_dir / build_context.LOCK).unlink()


def _sources(container_dir: Path) -> list[Path]:
    found = build_context.sources(container_dir)
    kept = [
        path
        for path in found
        if path.parent != container_dir or path.suffix == ".sh"  # not what makes our own image
    ]
    dockerfile = container_dir / FOLDER / "Dockerfile"
    if not dockerfile.is_file():
        raise build_context.BuildContextError(f"{container_dir} is incomplete: {dockerfile.name}.")
    return [*kept, dockerfile]


def _lock(container_dir: Path) -> str:
    """Return the part of our lock that brings the library."""
    text = build_context.unix_text(container_dir / build_context.LOCK).decode()
    return "".join(found[0] for found in _SQLITE.finditer(text))


def _write(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)

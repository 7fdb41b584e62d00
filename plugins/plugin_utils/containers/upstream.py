# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an image is laid out as upstream's, and which Hermes it holds: asked in a container without a network."""

from __future__ import annotations

import json
import re

from ...module_utils.cards import Card
from ...module_utils.docker import DockerEngine, DockerError
from ...module_utils.settings.settings import Settings
from ...module_utils.settings.values import VERSION
from ..build import installer
from ..build.releases import Found
from ..build.upstream_layer import HERMES, PROGRAM, PYTHON
from .image import NO_COMMAND, PYTHONS, pull, speaking

SHELL = "/bin/sh"
_ASK = """
import json, platform, re, sys
from importlib import metadata
try:
    version = metadata.version("hermes-agent")
except metadata.PackageNotFoundError:
    from hermes_cli import __version__ as version
python = "%d.%d" % sys.version_info[:2]
names = {one.name: one.version for one in metadata.distributions() if one.name}
packages = sorted(re.sub("[-_.]+", "-", name).lower() + "==" + names[name] for name in names)
told = {"version": version, "python": python, "libc": platform.libc_ver()[0], "packages": packages}
print(json.dumps(told))
"""
# What is not there is named, and nothing of it ends the look.
_LOOK = f"""
for path in {PYTHON} {PROGRAM}; do
    [ -x "$path" ] || echo "lacks $path"
done
[ ! -x {PYTHON} ] || {PYTHON} -IB -c "$1" || true
"""
_LACKS = re.compile(r"^lacks (\S+)$", re.MULTILINE)


def examine(settings: Settings, image: str, progress: installer.Progress) -> Found:
    """Return which Hermes an image holds; it is pulled unless it is there. Raises a Card for a foreign layout.

    settings: they name the engine; image: by its digest.
    """
    engine = DockerEngine(settings.docker_socket)
    with speaking(settings.docker_socket, settings):
        there = engine.image(image) is not None
        if not there:
            pull(engine, "hermes_source", image, progress)
        try:
            told = engine.run(image, [SHELL, "-c", _LOOK, SHELL, _ASK])
        except DockerError as error:
            if error.status and not NO_COMMAND.search(str(error)):
                raise
            told = f"lacks {SHELL}"
    return _judge(image, told)


def _judge(image: str, told: str) -> Found:
    """Return what a look found. Raises a Card that names what is missing."""
    missing = _LACKS.findall(told)
    last = (told.strip().splitlines() or [""])[-1]
    try:
        found = json.loads(last)
        version, python, libc = (str(found[name]) for name in ("version", "python", "libc"))
        packages = [str(one) for one in found["packages"]]
    except (ValueError, TypeError, KeyError):
        if not missing:
            missing = [f"package hermes-agent that {PYTHON} loads ({' '.join(last.split())[:200]})"]
        version, python, libc, packages = "", "", "", []
    if not missing:
        if not VERSION.fullmatch(version):
            missing.append("version of Hermes")
        if python not in PYTHONS:
            missing.append(f"Python {', '.join(PYTHONS)} (its own is {python})")
        if libc != "glibc":
            missing.append("glibc")
    if missing:
        raise Card.of(
            "hermes_source",
            f"{image} is not laid out as upstream's image is, around {HERMES}: it has no {'; no '.join(missing)}.",
            "name an image that upstream publishes, or one that its own Dockerfile makes.",
            "hermes-source",
        )
    return Found(version, python, packages)

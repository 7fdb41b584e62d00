# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Hermes that is in no registry: a wheel, an archive of its sources or a commit, made into one wheel.

What is fetched is compared with what the inventory says it is before anything of it is read. A wheel that is built here
is built with packages by their hashes, and the same sources make the same one, byte for byte.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

try:
    import tomllib
except (
    ImportError
):  # never: the controller's Python is newer, and only Ansible's own check of imports is not
    tomllib = None  # type: ignore[assignment]


from ...module_utils.cards import Card
from . import installer
from .download import download

WHEEL = re.compile(r"^hermes_agent-([^-]+)(?:-[^-]+){3,4}\.whl$")
LOCAL = ("/", "./", "../", "~/")
BUILD_LOCK = "build.lock"
PATIENCE_SECONDS = 300
SINCE_1980 = "315532800"
"""What a built wheel's files are dated, so that equal sources make equal wheels."""
# Nothing that the repository, or the user's own settings, name is run.
GIT = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.autocrlf=false")

Find = Callable[[str], Path]
"""Returns where a file of the controller is. Raises a Card."""


def words(source: Mapping[str, str]) -> str:
    """Return what a source is, for a plan: how it was named, and by what it is known again."""
    if "git" in source:
        return f"hermes_source: {source['git']} at {source['commit'][:12]}"
    if "image" in source:
        name, _at, digest = source["image"].partition("@sha256:")
        return f"hermes_source: image {name}, sha256 {digest[:12]}"
    return f"hermes_source: {_shown(source['file'])}, sha256 {source['sha256'][:12]}"


def identity(source: Mapping[str, str]) -> str:
    """Return by what a source is the same, wherever it is fetched from."""
    if "image" in source:
        return f"image {source['image'].partition('@')[2]}"
    return f"git {source['commit']}" if "git" in source else f"sha256 {source['sha256']}"


def make_wheel(
    source: Mapping[str, str], folder: Path, find: Find, uv: str, progress: installer.Progress
) -> Path:
    """Put the wheel of a source into a folder and return it. Raises a Card."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        if "git" in source:
            tree = _checked_out(source, Path(temporary) / "tree", find)
            return _built(tree, folder, uv, progress)
        fetched = _fetched(source, Path(temporary), find)
        if fetched.suffix == ".whl":
            return _named(fetched.replace(folder / fetched.name))
        return _built(_unpacked(fetched, Path(temporary) / "tree"), folder, uv, progress)


def _shown(place: str) -> str:
    """Return an address without what may be a key in it, as of a link that is signed."""
    return re.split(r"[?#]", place)[0]


def version_of(wheel: Path) -> str:
    """Return the version of a wheel of Hermes."""
    return wheel.name.split("-")[1]


def _card(sentence: str, remedy: str, detail: list[str] | None = None) -> Card:
    return Card.of("hermes_source", sentence, remedy, "hermes-source", detail=detail)


def _fetched(source: Mapping[str, str], folder: Path, find: Find) -> Path:
    """Return a copy of the file; it is what it was said to be."""
    place, shown = source["file"], _shown(source["file"])
    target = folder / shown.rsplit("/", 1)[-1]
    if place.startswith("https://"):
        try:
            target.write_bytes(download(place, PATIENCE_SECONDS))
        except OSError as error:
            raise _card(
                f"{shown} cannot be had: {error}.",
                "check the address and the network (HTTPS_PROXY, SSL_CERT_FILE), or name a file of this machine.",
            ) from error
    else:
        shutil.copyfile(find(place), target)
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source["sha256"]:
        raise Card.of(
            "hermes_source",
            f"{shown} is not what the inventory says: its sha256 is {found}, not {source['sha256']}.",
            "ask who gave you one of the two; go on only with the one that you trust.",
            "hash",
        )
    return target


def _unpacked(archive: Path, tree: Path) -> Path:
    tree.mkdir()
    try:
        if archive.suffix == ".zip":
            shutil.unpack_archive(archive, tree)
        else:
            shutil.unpack_archive(archive, tree, filter="data")
    except (shutil.ReadError, tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise _card(
            f"{archive.name} cannot be unpacked: {error}.", "name an archive of Hermes' sources."
        ) from error
    inside = [*tree.iterdir()]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else tree


def _checked_out(source: Mapping[str, str], tree: Path, find: Find) -> Path:
    """Return a folder with the files of a commit, as they are in the repository."""
    git = shutil.which("git")
    if git is None:
        raise _card("needs git, which is not on the PATH.", "install it, or name a file.")
    env = installer.clean_environment(GIT_TERMINAL_PROMPT="0", GIT_LFS_SKIP_SMUDGE="1")
    at = [git, *GIT, "-C", str(tree)]
    tree.mkdir()
    wanted = source.get("ref") or source["commit"]
    there = str(find(source["git"])) if source["git"].startswith(LOCAL) else source["git"]
    for command in (
        ["init", "--quiet"],
        ["fetch", "--quiet", "--depth=1", "--", there, wanted],
    ):
        done = installer.captured([*at, *command], env)
        if done.returncode != 0:
            raise _card(
                f"{source['git']} does not give {wanted}.",
                "check the address, the ref and your access to it; git says why.",
                installer.telling_lines(done.stdout),
            )
    found = installer.captured([*at, "rev-parse", "FETCH_HEAD^{commit}"], env).stdout.strip()
    if found != source["commit"]:
        raise Card.of(
            "hermes_source",
            f"{wanted} of {source['git']} is the commit {found}, not {source['commit']}.",
            "see what moved it; go on only with the commit that you trust.",
            "hash",
        )
    installer.run([*at, "checkout", "--quiet", "--detach", found], "Hermes' sources", env=env)
    # A version that is made of the repository's state would not be the same tomorrow.
    shutil.rmtree(tree / ".git")
    return tree


def _built(tree: Path, folder: Path, uv: str, progress: installer.Progress) -> Path:
    """Return the wheel of a folder of sources; what builds it is locked first, by its hashes."""
    try:
        project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))
        requires = [str(one) for one in project["build-system"]["requires"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _card(
            f"what it names are no sources of Hermes: no pyproject.toml says how they are built ({error}).",
            "name the archive or the repository that Hermes is published as.",
        ) from error
    env = installer.installer_environment(SOURCE_DATE_EPOCH=SINCE_1980)
    lock, wanted = folder / BUILD_LOCK, folder / "build.in"
    wanted.write_text("\n".join(requires) + "\n", encoding="utf-8")
    done = installer.timed(progress, "building Hermes of its sources")
    command = [uv, "pip", "compile", "--quiet", "--generate-hashes", "--no-annotate", "--no-header"]
    installer.run(
        [*command, "--python", sys.executable, "--output-file", str(lock), str(wanted)],
        "what builds Hermes",
        env=env,
    )
    command = [uv, "build", "--quiet", "--wheel", "--no-config", "--python", sys.executable]
    command += ["--build-constraints", str(lock), "--require-hashes", "--out-dir", str(folder)]
    installer.run([*command, str(tree)], "Hermes of its sources", env=env)
    done()
    return _named(next(folder.glob("*.whl")))


def _named(wheel: Path) -> Path:
    """Return a wheel that is one of Hermes. Raises a Card for any other."""
    if WHEEL.match(wheel.name) and zipfile.is_zipfile(wheel):
        return wheel
    raise _card(f"{wheel.name} is no wheel of Hermes.", "name one of the package hermes-agent.")

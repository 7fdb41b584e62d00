# SPDX-License-Identifier: Apache-2.0
"""A base image from Debian's packages, for machines that reach no image registry.

It stands in for the slim Python image that container/Dockerfile names: Debian, its own Python 3
with the standard library, CA certificates, /bin/sh and coreutils. Made with debootstrap (so as
root) from wherever this machine's apt installs, and written as an archive for `docker load`
whose bytes depend on the packages alone: no times, no host name, no package caches.

    build.py FOLDER NAME        prints the path of the archive in FOLDER
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

EPOCH = 315532800
PACKAGES = ("ca-certificates", "python3")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Content that a container never reads, or that says when and where this was made.
EMPTIED = (
    "boot", "dev", "proc", "run", "sys", "tmp",
    "usr/share/doc", "usr/share/doc-base", "usr/share/info", "usr/share/lintian",
    "usr/share/locale", "usr/share/man", "usr/lib/x86_64-linux-gnu/gconv",
    "var/cache", "var/lib/apt/lists", "var/log",
)  # fmt: skip
REMOVED = (
    "etc/hostname", "etc/machine-id", "etc/resolv.conf", "etc/.pwd.lock",
    "var/cache/ldconfig/aux-cache", "var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend",
)  # fmt: skip
_LAST_CHANGE = re.compile(r"^([^:]*:[^:]*:)\d+:", re.MULTILINE)


def archive(folder: Path, name: str) -> Path:
    """Return the path of the base image's archive in `folder`; made unless it is there.

    name: what `docker load` calls the image, as "example:debian".
    Raises CalledProcessError when debootstrap fails, OSError when it is not installed.
    """
    suite, mirror = debian_source()
    key = hashlib.sha256(Path(__file__).read_bytes() + f"{name} {suite} {mirror}".encode())
    target = folder / f"base-{suite}-{key.hexdigest()[:16]}.tar"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="base-", dir=folder) as scratch:
            root = Path(scratch) / "root"
            bootstrap(root, suite, mirror)
            partial = Path(scratch) / "image.tar"
            write_image(root, name, partial)
            partial.rename(target)
    return target


def debian_source() -> tuple[str, str]:
    """Return this machine's Debian release and the mirror that its apt uses."""
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE) $(CODENAME) $(COMPONENT)"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    release = Path("/etc/os-release").read_text(encoding="utf-8")
    found = re.search(r"^VERSION_CODENAME=(\w+)", release, re.MULTILINE)
    for site, *rest in (line.split() for line in listing.splitlines() if line):
        if found and rest == [found.group(1), "main"]:
            return found.group(1), site
    raise RuntimeError("apt of this machine knows no Debian mirror for its own release.")


def bootstrap(root: Path, suite: str, mirror: str) -> None:
    """Install the packages into `root`, which debootstrap makes."""
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    subprocess.run(
        [*command, suite, str(root), mirror],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment, check=True,
    )  # fmt: skip


def slim(root: Path) -> None:
    """Remove from `root` what a container never reads and what would differ from run to run."""
    for name in REMOVED:
        (root / name).unlink(missing_ok=True)
    for name in EMPTIED:
        folder = root / name
        if folder.is_dir():
            for entry in folder.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
    # Compiled again, with other settings, in the image that is made from this one.
    for cache in sorted(root.rglob("__pycache__")):
        shutil.rmtree(cache)
    shadow = root / "etc/shadow"
    shadow.write_text(_LAST_CHANGE.sub(r"\g<1>0:", shadow.read_text()))


def write_image(root: Path, name: str, target: Path) -> None:
    """Slim `root` and write it as an image of one layer, as `docker save` would."""
    slim(root)
    layer = target.with_name("layer.tar")
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(root.rglob("*")):
            tar.add(path, path.relative_to(root).as_posix(), recursive=False, filter=_plain)
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = json.dumps({
        "architecture": "amd64",
        "os": "linux",
        "created": "1980-01-01T00:00:00Z",
        "config": {"Env": [f"PATH={PATH}"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created": "1980-01-01T00:00:00Z", "comment": "Debian packages"}],
    }).encode()  # fmt: skip
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as tar:
        _add_bytes(tar, config_name, config)
        _add_bytes(tar, "manifest.json", json.dumps(manifest).encode())
        tar.add(layer, "layer.tar", filter=_plain)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mtime = EPOCH
    entry.uname = entry.gname = ""
    return entry


def _add_bytes(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(_plain(entry), io.BytesIO(content))


if __name__ == "__main__":
    print(archive(Path(sys.argv[1]), sys.argv[2]))

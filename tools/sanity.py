# SPDX-License-Identifier: Apache-2.0
"""Run `ansible-test sanity` on what users install: `make sanity`.

It wants a collection to lie in a folder `ansible_collections/<namespace>/<name>`, makes environments of its own below
the home, and fetches the first pip for these from a host of Ansible's; here it comes from the Python that runs it, and
the rest from the index that pip is set up for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BOOTSTRAP = '''\
"""In place of the script that installs pip: the one that Python brings, then the version that is asked for."""

import subprocess
import sys

wanted = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
sys.exit(subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *wanted]).returncode)
'''
PIP_VERSIONS = ("24_2", "25_2", "25_3", "26_0")
"""Of which Ansible's releases fetch the script; one that is not needed costs nothing."""


def unpack(folder: Path) -> None:
    """Put what users would install into a folder."""
    with tempfile.TemporaryDirectory() as packed:
        build = ["ansible-galaxy", "collection", "build", "--output-path", packed]
        subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        (tarball,) = Path(packed).glob("*.tar.gz")
        with tarfile.open(tarball) as archive:
            archive.extractall(folder, filter="data")


def main() -> int:
    """Run the checks that the command line names, else all; return ansible-test's exit code."""
    home = ROOT / ".cache" / "sanity"
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for version in PIP_VERSIONS:
        (cache / f"get_pip_{version}.py").write_text(BOOTSTRAP, encoding="utf-8")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    tests = [word for name in sys.argv[1:] for word in ("--test", name)]
    # Outside of the checkout: of what lies in one, ansible-test takes what Git knows.
    with tempfile.TemporaryDirectory() as folder:
        collection = Path(folder) / "ansible_collections" / "hermes" / "workers"
        unpack(collection)
        done = subprocess.run(
            ["ansible-test", "sanity", "--python", python, "--color", "no", *tests],
            cwd=collection,
            env={**os.environ, "HOME": str(home)},
            check=False,
        )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())

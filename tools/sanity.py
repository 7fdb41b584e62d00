# SPDX-License-Identifier: Apache-2.0
"""Run `ansible-test sanity` on what users install: `make sanity`.

By the ansible-core that the tools have, and, where there is a Python for it, by the other one that is supported:
2.19 with Python 3.11, 2.21 with a later one.

It wants a collection to lie in a folder `ansible_collections/<namespace>/<name>`, makes environments of its own below
the home, and fetches the first pip for these from a host of Ansible's; here it comes from the Python that runs it, and
the rest from the index that pip is set up for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools import ROOT

HOME = ROOT / ".cache" / "sanity"
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


def other_python() -> str | None:
    """Return a Python of this machine for the other release of ansible-core, or None where there is none."""
    wanted = ("3.11",) if sys.version_info >= (3, 12) else ("3.13", "3.12")
    # What pyenv has need not be on the PATH, and what it puts there need not start.
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for version in wanted:
        for found in (
            shutil.which(f"python{version}"),
            *map(str, pyenv.glob(f"{version}.*/bin/python")),
        ):
            if found and captured(found, "-c", "pass").returncode == 0:
                return found
    return None


def captured(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command whose output is wanted."""
    return subprocess.run(words, capture_output=True, text=True, check=False)


def installed(python: str) -> Path:
    """Install what a deploy needs, ansible-core among it, for a Python; return the folder of its programs."""
    environment = HOME / "with-the-other"
    lock = ROOT / "requirements" / "deploy.lock"
    kept = environment / "installed.lock"
    if not kept.exists() or kept.read_bytes() != lock.read_bytes():
        HOME.mkdir(parents=True, exist_ok=True)
        install = [python, str(ROOT / "requirements" / "bootstrap.py"), str(environment), str(lock)]
        subprocess.run(install, cwd=ROOT, check=True)
    return environment / "bin"


@dataclass
class Run:
    """The checks with one ansible-core, in a folder and a home of its own."""

    programs: Path
    """Folder of ansible-test and its Python."""
    tests: Sequence[str]
    folder: Path
    name: str = ""

    def __post_init__(self) -> None:
        asked = "import ansible, sys; print('%d.%d' % sys.version_info[:2], ansible.__version__)"
        self.python, version = captured(self.programs / "python", "-c", asked).stdout.split()
        self.name = f"ansible-core {version}, Python {self.python}"

    def start(self) -> subprocess.Popen[str]:
        """Start the checks; what they print can be read from the process."""
        home = HOME / self.python
        cache = home / ".ansible" / "test" / "cache"
        cache.mkdir(parents=True, exist_ok=True)
        for version in PIP_VERSIONS:
            (cache / f"get_pip_{version}.py").write_text(BOOTSTRAP, encoding="utf-8")
        # Outside of the checkout: of what lies in one, ansible-test takes what Git knows.
        collection = self.folder / self.python / "ansible_collections" / "hermes" / "workers"
        unpack(collection)
        tests = [word for name in self.tests for word in ("--test", name)]
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        return subprocess.Popen(
            ["ansible-test", "sanity", "--python", self.python, "--color", "no", *tests],
            cwd=collection,
            env={**os.environ, "HOME": str(home), "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def main() -> int:
    """Run the checks that the command line names, else all; return an exit code."""
    programs = [Path(sys.executable).parent]
    other = other_python()
    if other is None:
        print("Checked by one ansible-core only: there is no Python here for the other.")
    else:
        programs.append(installed(other))
    with tempfile.TemporaryDirectory() as folder:
        # At the same time: either leaves a processor without work for half of its time.
        runs = [Run(one, sys.argv[1:], Path(folder)) for one in programs]
        failed = 0
        for run, process in [(run, run.start()) for run in runs]:
            output, _ = process.communicate()
            print(f"{run.name}: {'failed' if process.returncode else 'passed'}")
            if process.returncode:
                print(output)
                failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())

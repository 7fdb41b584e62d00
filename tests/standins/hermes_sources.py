# SPDX-License-Identifier: Apache-2.0
"""Hermes' sources as upstream has them in git, of a version that is in no registry: made of the pinned wheel."""

from __future__ import annotations

import subprocess
from email.parser import HeaderParser
from pathlib import Path

PROJECT = """
[build-system]
requires = ["setuptools>=77,<83"]
build-backend = "setuptools.build_meta"
[project]
name = "hermes-agent"
version = "{version}"
requires-python = ">=3.11,<3.14"
dependencies = {needs}
[project.optional-dependencies]
anthropic = {anthropic}
[project.scripts]
hermes = "hermes_cli.main:main"
[tool.setuptools]
py-modules = {modules}
[tool.setuptools.packages.find]
where = ["."]
[tool.setuptools.package-data]
"*" = ["**/*"]
"""


def make_repository(folder: Path, uv: Path, pinned: str, version: str) -> str:
    """Make a repository with a tag of that version, and return its commit. pinned: what the wheel is of."""
    command = [str(uv), "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    subprocess.run([*command, "--link-mode=copy", f"hermes-agent=={pinned}"], check=True)
    (about,) = folder.glob("hermes_agent-*.dist-info/METADATA")
    needs: dict[str, list[str]] = {"": [], "anthropic": []}
    for need in HeaderParser().parsestr(about.read_text()).get_all("Requires-Dist", []):
        what, _, when = need.partition(";")
        if "extra ==" not in when:
            needs[""].append(need)
        elif '"anthropic"' in when.replace("'", '"'):
            needs["anthropic"].append(what)
    project = PROJECT.format(
        version=version,
        needs=needs[""],
        anthropic=needs["anthropic"],
        modules=sorted(path.stem for path in folder.glob("*.py")),
    )
    (folder / "pyproject.toml").write_text(project)
    (folder / ".gitignore").write_text("*.dist-info\n/bin\n/.lock\n__pycache__\n")
    identity = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.com")

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", version)
    git("tag", f"v{version}")
    return git("rev-parse", "HEAD")

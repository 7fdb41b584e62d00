# SPDX-License-Identifier: Apache-2.0
"""Make a release: `make release VERSION=1.2.3`.

The version stands in galaxy.yml; the changelog is made from the fragments. What comes out is one commit, its tag and
the tarball. Nothing is pushed, and nothing is changed where anything speaks against it.
"""

from __future__ import annotations

import datetime
import re
import subprocess
import sys

from packaging.version import InvalidVersion, Version

from tools import ROOT

TARBALL = re.compile(r"hermes-workers-\d+\.\d+\.\d+\.tar\.gz")


def run(*words: str) -> str:
    """Run a command in the checkout and return what it printed. Raises CalledProcessError."""
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def flaw(version: str) -> str:
    """Return what speaks against a release of this version; an empty text when nothing does."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        return f"VERSION={version} is not a version like 1.2.3."
    if run("git", "status", "--porcelain"):
        return "there are changes that no commit has; commit them, or put them away."
    if run("git", "tag", "--list", f"v{version}"):
        return f"v{version} is released already."
    if not any((ROOT / "changelogs" / "fragments").glob("*.yml")):
        return "nothing has changed since the last release: there is no fragment in changelogs/fragments."
    released = [tag.removeprefix("v") for tag in run("git", "tag", "--list", "v*").split()]
    newest = max((parsed for tag in released if (parsed := _parsed(tag))), default=None)
    if newest and Version(version) < newest:
        return f"VERSION={version} is older than {newest}, which is released."
    return ""


def _parsed(tag: str) -> Version | None:
    try:
        return Version(tag)
    except InvalidVersion:
        return None


def set_version(version: str) -> None:
    """Write the version where it stands, and the name of the tarball where it is said."""
    galaxy = ROOT / "galaxy.yml"
    text = galaxy.read_text(encoding="utf-8")
    galaxy.write_text(re.sub(r"(?m)^version: .*$", f"version: {version}", text), encoding="utf-8")
    named = (ROOT / "README.md", ROOT / "execution-environment.yml", *(ROOT / "docs").glob("*.md"))
    for page in named:
        text = page.read_text(encoding="utf-8")
        changed = TARBALL.sub(f"hermes-workers-{version}.tar.gz", text)
        if changed != text:
            page.write_text(changed, encoding="utf-8")


def main() -> int:
    """Make the release that the command line names; return the exit code."""
    version = sys.argv[1] if len(sys.argv) > 1 else ""
    if wrong := flaw(version):
        print(f"No release was made: {wrong}", file=sys.stderr)
        return 2
    try:
        set_version(version)
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        run("antsibull-changelog", "release", "--version", version, "--date", today)
        run("git", "add", "--all")
        run("git", "commit", "--quiet", "--message", f"Release {version}")
    except subprocess.CalledProcessError as error:
        # Everything was in a commit before: what is not is ours.
        run("git", "add", "--all")
        run("git", "reset", "--quiet", "--hard")
        print(f"No release was made: {error.cmd[0]} failed, see above.", file=sys.stderr)
        return 1
    run("git", "tag", "--annotate", f"v{version}", "--message", f"hermes.workers {version}")
    run("ansible-galaxy", "collection", "build", "--force")
    print(
        f"Released {version}: the commit, the tag v{version}, and hermes-workers-{version}.tar.gz."
    )
    print(f"To publish: git push origin HEAD v{version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

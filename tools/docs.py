# SPDX-License-Identifier: Apache-2.0
"""Build the documentation as a site of pages: `make docs`, into .cache/docs/html.

The pages of docs/ are taken as they are; modules, roles and plugins tell about themselves, through antsibull-docs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

from tools import ROOT

BUILT = ROOT / ".cache" / "docs"
FIRST = ("deploy", "models", "clients", "dashboard", "operations", "variables", "errors")
"""Pages that people look for first; the others follow by their names."""
CONF = """\
project = "hermes.workers"
copyright = "hermes.workers contributors"
extensions = ["myst_parser", "sphinx_antsibull_ext"]
html_theme = "sphinx_ansible_theme"
html_theme_options = {"display_version": False, "vcs_pageview_mode": "", "topbar_links": {}}
html_show_sphinx = False
html_title = "hermes.workers"
highlight_language = "YAML+Jinja"
# Headings get the names that links to them have on a forge.
myst_heading_anchors = 4
# What leads to code, or to Ansible's own pages, leads nowhere here; a test holds the links between pages.
suppress_warnings = ["myst.xref_missing", "myst.header", "ref.ref"]
"""


def contents(title: str, pages: list[str]) -> str:
    """Return a part of the side bar."""
    listed = "\n".join(pages)
    return f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n{listed}\n```\n"


def main() -> int:
    """Build the site; return the exit code."""
    shutil.rmtree(BUILT, ignore_errors=True)
    source = BUILT / "source"
    shutil.copytree(ROOT / "docs", source / "docs")
    for name in ("CONTRIBUTING.md", "SECURITY.md"):
        shutil.copy(ROOT / name, source / name)
    (source / "conf.py").write_text(CONF, encoding="utf-8")
    there = sorted(path.stem for path in (source / "docs").glob("*.md"))
    pages = [*FIRST, *(name for name in there if name not in FIRST)]
    decisions = sorted(path.stem for path in (source / "docs" / "decisions").glob("0*.md"))
    # README is the quick start, and with it the first page.
    (source / "index.md").write_text(
        (ROOT / "README.md").read_text(encoding="utf-8")
        + "\n"
        + contents("Guides", [f"docs/{name}" for name in pages])
        + contents("Modules, roles and plugins", ["collections/index"])
        + contents("Contributing", ["CONTRIBUTING", "SECURITY", "docs/decisions/README"])
        + contents("Decisions", [f"docs/decisions/{name}" for name in decisions]),
        encoding="utf-8",
    )
    for page in source.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        page.write_text(re.sub(r"\((\.\./)?README\.md\b", r"(\1index.md", text), encoding="utf-8")
    (source / "collections").mkdir()
    env = os.environ | {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections")}
    of_ansible = ["antsibull-docs", "collection", "--use-current", "--squash-hierarchy"]
    told = [*of_ansible, "--dest-dir", str(source / "collections"), "hermes.workers"]
    html = ["sphinx-build", "-q", "-j", "auto", "-b", "html", str(source), str(BUILT / "html")]
    for command in (told, html):
        done = subprocess.run(command, cwd=ROOT, env=env, check=False)
        if done.returncode:
            return done.returncode
    print(f"Built: {(BUILT / 'html' / 'index.html').relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

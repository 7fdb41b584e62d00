# SPDX-License-Identifier: Apache-2.0
"""The documentation names what the code has: a reader who follows an error's link arrives."""

from __future__ import annotations

import ast
import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.hermes.workers.plugins.module_utils.settings import catalogue

ROOT = Path(__file__).resolve().parents[3]
ERRORS = (ROOT / "docs/errors.md").read_text()
CARD_MAKERS = {"Problem", "of", "problem", "_folder_problem"}


def card_codes() -> Iterator[str]:
    """The code of every card that a plugin can show: the last text of the call that makes it."""
    for path in (ROOT / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or len(node.args) < 4:
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            code = node.args[3]
            if name in CARD_MAKERS and isinstance(code, ast.Constant):
                yield str(code.value)


def worker_codes() -> set[str]:
    """The code of every error that the Worker answers its clients with."""
    source = "".join(path.read_text() for path in (ROOT / "worker/src").rglob("*.ts"))
    return set(re.findall(r'code: "([a-z_]+)"', source))


def test_every_card_has_a_section() -> None:
    codes = set(card_codes())
    assert len(codes) > 15, "the codes of the cards were not found"
    sections = set(re.findall(r"^### (\S+)$", ERRORS, re.MULTILINE))
    assert codes - sections == set()
    assert sections - codes == set(), "sections about errors that no longer exist"


def test_every_error_of_the_worker_is_explained() -> None:
    codes = worker_codes()
    assert "engine_unavailable" in codes
    assert {code for code in codes if f"`{code}`" not in ERRORS} - {"custom"} == set()


@pytest.mark.parametrize("page", ["docs/variables.md"])
def test_every_variable_of_this_release_is_described(page: str) -> None:
    text = (ROOT / page).read_text()
    described = set(re.findall(r"`(hermes_[a-z_]+)`", text))
    assert described <= catalogue.KNOWN_VARIABLES
    keys = set(catalogue.KEY_VARIABLES.values())
    assert {key for key in keys if f"`{key}`" not in text} == set()


def anchors(page: Path) -> set[str]:
    """What a link may lead to on a page: its headings, as GitHub makes names of them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
            there = page.parent / target if target else page
            assert there.exists(), f"{page.name} links to {target}"
            if anchor:
                assert anchor in anchors(there), f"{page.name} links to {target}#{anchor}"


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 76
    commands = re.findall(r"```sh\n(.+?)\n```", "\n".join(lines), re.DOTALL)
    assert commands[:2] == ["make deploy", "make test"], "the two commands come first"


def test_the_recording_is_of_the_readme_and_of_no_machine() -> None:
    """`make record` draws it anew; what README has one type is in it, and nothing that a picture must not load."""
    drawn = (ROOT / "docs/first-five-minutes.svg").read_text()
    text = html.unescape("".join(re.findall(r">([^<>]+)<", drawn))).replace("\xa0", " ")
    for said in (
        "$ make deploy",
        "deployed and verified",
        "No changes. 0 calls written.",
        "$ curl -s",
    ):
        assert said in text, said
    assert "hermes: running" in text, "and what it does now"
    assert not re.search(r"hw_[\w-]{20}|/tmp/|/root|/home/(?!hermes)|Traceback", text)
    addresses = set(re.findall(r"https?://[\w.]+", drawn))
    assert addresses <= {"http://127.0.0.1", "http://www.w3.org"}, "it loads nothing from elsewhere"


def test_each_wish_leads_to_one_page_that_begins_with_the_command() -> None:
    readme = (ROOT / "README.md").read_text()
    table = readme.partition("## I want to...\n")[2].partition("\n\n")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ") and row != "| | |"]
    assert len(rows) > 10
    for row in rows:
        (page,) = re.findall(r"\]\(([^)]+)\)", row)
        begins = re.match(r"# .+\n\n```sh\n", (ROOT / page).read_text())
        assert begins, f"{page} does not begin with a command"


Described = dict[tuple[str, str], dict[str, Any]]
"""Kind and name of each part of the collection -> what ansible-doc says of it."""


@pytest.fixture(scope="module")
def described() -> Described:
    program = Path(sys.executable).with_name("ansible-doc")
    where = {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible/collections")}
    done = subprocess.run(
        [program, "--metadata-dump", "--no-fail-on-errors", "hermes.workers"],
        env=os.environ | where,
        capture_output=True,
        text=True,
        check=True,
    )
    return {
        (kind, name.removeprefix("hermes.workers.")): entry
        for kind, found in json.loads(done.stdout)["all"].items()
        for name, entry in found.items()
        if name.startswith("hermes.workers.")
    }


def test_ansible_doc_reads_every_module_plugin_and_role(described: Described) -> None:
    assert {key: entry["error"] for key, entry in described.items() if "error" in entry} == {}
    files = {
        (kind.removesuffix("s"), path.stem)
        for kind in ("callback", "inventory", "lookup", "modules")
        for path in (ROOT / "plugins" / kind).glob("*.py")
    }
    assert files <= described.keys()


def test_every_module_is_in_the_group_that_it_says(described: Described) -> None:
    groups = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["action_groups"]
    listed = {(group, name) for group, names in groups.items() for name in names}
    said = {
        (group.removeprefix("hermes.workers."), name)
        for (kind, name), entry in described.items()
        if kind == "module"
        for group in entry["doc"]["attributes"]["action_group"]["membership"]
    }
    assert listed == said
    modules = {name for kind, name in described if kind == "module"}
    assert {name for _group, name in said} == modules


def test_what_the_documentation_names_of_the_collection_is_there(described: Described) -> None:
    groups = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["action_groups"]
    fragments = {path.stem for path in (ROOT / "plugins/doc_fragments").glob("*.py")}
    there = {name for _kind, name in described} | {*groups} | fragments | {"plugins"}
    there |= {path.stem for path in (ROOT / "playbooks").glob("*.yml")}
    folders = ("docs", "inventories", "playbooks", "roles", "plugins", "extensions")
    pages = [
        *ROOT.glob("*.md"),
        *(page for folder in folders for page in (ROOT / folder).rglob("*.*")),
    ]
    named = {
        (name, page.name)
        for page in pages
        if page.suffix in (".md", ".yml", ".py") and page.is_file()
        for name in re.findall(r"hermes\.workers\.(\w+)", page.read_text())
    }
    assert len(named) > 100
    assert {(name, page) for name, page in named if name not in there} == set()
    rows = re.findall(r"^\| (`.+`) \|", (ROOT / "docs/modules.md").read_text(), re.MULTILINE)
    modules = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert modules == {name for (kind, name) in described if kind == "module"} & {
        *groups["cloudflare"]
    }

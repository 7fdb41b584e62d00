# SPDX-License-Identifier: Apache-2.0
"""The checkout can be copied, searched and packed by whoever follows its links, and its map leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_no_link_contains_itself() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    links = [
        line.split("\t")[1] for line in listed.stdout.splitlines() if line.startswith("120000")
    ]
    assert links
    for link in links:
        target = (ROOT / link).resolve(strict=True)
        assert target.is_relative_to(ROOT), f"{link} leads out of the checkout"
        assert not (ROOT / os.path.dirname(link)).is_relative_to(target), f"{link} contains itself"


def test_lines_end_as_programs_read_them_whatever_a_users_git_does(tmp_path: Path) -> None:
    """As where it is told to write them as Windows does, on a disk that WSL and containers share."""
    words = ["git", "-c", "core.autocrlf=true", "checkout-index", "--all", f"--prefix={tmp_path}/"]
    subprocess.run(words, cwd=ROOT, check=True)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".png"]
    assert len(written) > 1000
    assert [path for path in written if b"\r\n" in path.read_bytes()] == []


def test_no_two_files_of_tests_have_one_name() -> None:
    """pytest takes the second for the first, and only where both are collected."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(names) > 50
    assert [name for name, times in names.items() if times > 1] == []


def test_the_walk_leads_to_what_it_says() -> None:
    walk = (ROOT / "CONTRIBUTING.md").read_text().partition("### A walk\n")[2].partition("\n## ")[0]
    steps = re.findall(r"^\| [^|]+ \| `([^`]+)` \| `([^`]+)` \|$", walk, re.MULTILINE)
    assert len(steps) > 5
    for path, words in steps:
        assert words in (ROOT / path).read_text(), f"{path} has no {words}"


def test_every_room_on_the_map_is_there() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text().partition("## Where things live\n")[2]
    rows = re.findall(r"^\| (`[^|]+) \|", page.partition("### A walk")[0], re.MULTILINE)
    assert len(rows) > 10
    for name in re.findall(r"`([^`]+)`", "".join(rows)):
        assert (ROOT / name).exists(), name


def test_the_map_has_every_room() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text().partition("## Where things live\n")[2]
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", page.partition("### A walk")[0], re.MULTILINE))
    for wing in ("worker/src", "container/sandbox", "plugins/plugin_utils", "plugins/module_utils"):
        for room in filter(Path.is_dir, (ROOT / wing).iterdir()):
            if not room.name.startswith("__"):
                assert re.search(rf"`{room.name}/?`", rows[f"`{wing}`"]), f"{wing} has {room.name}"


def places_of(*words: str) -> list[str]:
    """Files that git finds."""
    command = ["git", "grep", "--name-only", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_provider_is_a_row_here_and_a_row_there() -> None:
    """In code, between quotes or as a name: comments may speak of it."""
    code = ("plugins", "worker/src", "container", "host", "tools", "roles", "playbooks")
    found = places_of("-E", r"^[^/*#]*(\"openrouter\"|\bopenrouter:|OPENROUTER)", "--", *code)
    assert found == ["plugins/module_utils/settings/catalogue.py", "worker/src/config/providers.ts"]


def test_a_setting_is_named_in_few_places() -> None:
    """What is generated and the tests aside: one more place is one more to forget."""
    found = places_of("hermes_sleep_after")
    generated = {"docs/variables.md"}
    other = ("tests/", "worker/test/", "changelogs/")
    places = [name for name in found if not name.startswith(other) and name not in generated]
    assert len(places) <= 8, places

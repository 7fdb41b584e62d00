# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which packages Debian has, by its indexes, and what each of them needs besides.

The indexes are those of the day on which the collection's own packages of Debian were locked, by their hashes: what a
name and a version stand for is the same for everybody, wherever the index is fetched from.
"""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from . import debian

ARCHITECTURES = ("amd64", "all")
INDEX = "main/binary-amd64"
BASE_HAS = frozenset(("passwd", "adduser", "debconf"))
"""What packages ask for to set themselves up, which none does here."""
FIELD = re.compile(r"^([A-Za-z0-9-]+): (.*)$", re.MULTILINE)
PART = re.compile(r"(\D*)(\d*)")

Package = dict[str, str]


class NotInDebian(Exception):
    """A package is not there, or not in that version; in a sentence."""


def resolve(
    container_dir: Path, wanted: Sequence[str], fetch: debian.Fetch | None = None
) -> debian.Lock:
    """Return these packages and all that they need beyond the base, as a lock. wanted: each as `jq=1.6-2.1`.

    Raises NotInDebian, and DebianError when an index cannot be had.
    """
    lock = debian.read_lock(container_dir)
    known: dict[str, Package] = {}
    for one in lock["indexes"]:
        at = f"dists/{one['suite']}/{INDEX}"
        content = debian.fetched(
            one["archive"],
            one["sha256"],
            lock["snapshot"],
            f"{at}/by-hash/SHA256/{one['sha256']}",
            f"{at}/Packages.xz",
            fetch,
        )
        merge(known, packages(lzma.decompress(content).decode("utf-8"), one["archive"]))
    names = []
    for name, version in (one.split("=", 1) for one in wanted):
        there = known.get(name, {}).get("Version")
        if there != version:
            has = f"{name} is {there}" if there else f"there is no {name}"
            raise NotInDebian(f"{name}={version} is not to be had: in Debian {lock['suite']} {has}")
        names.append(name)
    found = needed(known, names, leave_out=base(known) | BASE_HAS)
    return {"snapshot": lock["snapshot"], "packages": locked(known, found)}


def identity(container_dir: Path) -> list[str]:
    """Return by what the indexes are the same."""
    indexes = debian.read_lock(container_dir)["indexes"]
    return [json.dumps(one, sort_keys=True) for one in indexes]


def packages(text: str, archive: str) -> Iterator[Package]:
    """Return what an index lists for this architecture. archive: what it is an index of."""
    for block in text.split("\n\n"):
        package = dict(FIELD.findall(block))
        if package.get("Architecture") in ARCHITECTURES:
            yield package | {"Archive": archive}


def merge(known: dict[str, Package], more: Iterable[Package]) -> None:
    """Add packages to those that are known, by name; of two the newer one counts."""
    for package in more:
        old = known.get(package["Package"])
        if old is None or order(package["Version"], old["Version"]) > 0:
            known[package["Package"]] = package


def base(known: dict[str, Package]) -> set[str]:
    """Return what every Debian has."""
    every = [name for name, one in known.items() if one.get("Essential") == "yes" or name == "apt"]
    return needed(known, sorted(every))


def needed(
    known: dict[str, Package], names: Collection[str], leave_out: Collection[str] = ()
) -> set[str]:
    """Return all that these need but what is left out, and they themselves."""
    found: set[str] = set()
    left = [*names]
    while left:
        name = left.pop()
        if name in found or name not in known or (name in leave_out and name not in names):
            continue
        found.add(name)
        for alternatives in _asked(known[name]):
            if not any(one in found or one in leave_out for one in alternatives):
                left += _first(known, alternatives)
    return found


def _asked(package: Package) -> list[list[str]]:
    """Return the names that a package asks for: of each list one."""
    told = ", ".join(filter(None, (package.get("Depends"), package.get("Pre-Depends"))))
    return [
        [re.split(r"[ :(\[]", one.strip(), maxsplit=1)[0] for one in group.split("|")]
        for group in told.split(", ")
        if group
    ]


def _first(known: dict[str, Package], alternatives: list[str]) -> list[str]:
    """Return the first of these that there is, or else the first package that stands for one of them."""
    for one in alternatives:
        if one in known:
            return [one]
    for one in alternatives:
        stands = re.compile(rf"(?:^|, ){re.escape(one)}(?:[ ,]|$)")
        for name in sorted(known):
            if stands.search(known[name].get("Provides", "")):
                return [name]
    return []


def locked(known: dict[str, Package], names: Iterable[str]) -> dict[str, debian.Locked]:
    """Return where each package is, and its hash."""
    return {
        name: {
            "archive": known[name]["Archive"],
            "path": known[name]["Filename"],
            "sha256": known[name]["SHA256"],
            "size": int(known[name]["Size"]),
            "version": known[name]["Version"],
        }
        for name in sorted(names)
    }


def order(one: str, other: str) -> int:
    """Return a number below, of or above zero, as a version is older than, as old as or newer than another.

    As deb-version(7) has it: by epoch, upstream's version and Debian's revision.
    """
    for left, right in zip(_parts(one), _parts(other), strict=True):
        if found := _compared(left, right):
            return found
    return 0


def _parts(version: str) -> tuple[str, str, str]:
    epoch, colon, rest = version.partition(":")
    upstream, dash, revision = (rest if colon else version).rpartition("-")
    return epoch if colon else "0", upstream if dash else revision, revision if dash else ""


def _compared(one: str, other: str) -> int:
    left, right = PART.findall(one), PART.findall(other)
    for number in range(max(len(left), len(right))):
        a = left[number] if number < len(left) else ("", "")
        b = right[number] if number < len(right) else ("", "")
        # The end of a text is before a letter and after a tilde.
        words = [[_weight(letter) for letter in text] + [0] for text in (a[0], b[0])]
        keys = [(word, int(digits or 0)) for word, digits in zip(words, (a[1], b[1]), strict=True)]
        if keys[0] != keys[1]:
            return -1 if keys[0] < keys[1] else 1
    return 0


def _weight(letter: str) -> int:
    if letter == "~":
        return -1
    return ord(letter) if letter.isalpha() else ord(letter) + 256

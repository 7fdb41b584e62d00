# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Hermes a deployment gets, when it is not the one that the collection pins.

What was found once is kept beside the deployments and taken again ever after: a deploy that follows
installs the same packages, byte for byte, and a plan has shown exactly those.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ...module_utils.cards import Card
from ...module_utils.digests import LENGTH
from ...module_utils.settings.features import FEATURES
from ...module_utils.settings.settings import Settings
from ..state.disk import disk_card, write_private
from ..state.folder import StateFolder
from . import advisories, build_context, installer, origins

FORMAT = "1"
"""Raised when the same words would find something else than before."""

PACKAGE = "hermes-agent"
OUR_REQUIREMENT = re.compile(rf"^({PACKAGE}(?:\[[^\]]*\])?)==\S+$", re.MULTILINE)
LOCKED = re.compile(r"^[A-Za-z0-9._-]+==", re.MULTILINE)
LOCKED_HERMES = re.compile(
    rf"^({PACKAGE}(?:\[[^\]]*\])?==[^\s\\]+[^\n\\]*?) \\\n(?:    --hash.*\n)+", re.MULTILINE
)
LACKS = "lacks.json"
OLDEST_PYTHON = "3.11"
# What uv says of a version that no registry has, and of one whose parts cannot be had together.
NO_VERSION = re.compile(rf"no version of {PACKAGE}|{PACKAGE}(?:\[[^\]]*\])? was not found")
NO_SOLUTION = re.compile(r"No solution found")


@dataclass(frozen=True)
class Release:
    """A Hermes that the collection does not pin."""

    version: str
    lock: str
    """Its packages with their hashes, those of the features among them."""
    found: str
    """The day on which they were resolved."""
    folder: Path
    """Where this is kept."""
    origin: str = ""
    """How its source was named; empty for one of the registry."""

    @property
    def wheels(self) -> Path | None:
        """The folder with its own wheel, where it is in no registry."""
        return self.folder if self.origin else None

    def lacks(self) -> list[str]:
        """Return what it was found to lack, and does without."""
        try:
            told: list[str] = json.loads((self.folder / LACKS).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return []
        return told

    def keep_lacks(self, lacks: list[str]) -> None:
        """Keep what it lacks."""
        write_private(self.folder / LACKS, json.dumps(lacks))

    @property
    def words(self) -> str:
        """How it was come by, for the plan."""
        count = len(LOCKED.findall(self.lock))
        return f"{self.origin or 'hermes_version'}: resolved {self.found}, {count} packages"


class Releases:
    """The releases that a state folder's deployments were given."""

    def __init__(
        self, deployment: StateFolder, container: Path, progress: installer.Progress
    ) -> None:
        """container: the collection's folder of that name; progress: shows one line about a step that takes seconds."""
        self.deployment = deployment
        self.container = container
        self.progress = progress
        self.pinned = build_context.hermes_version(container)

    def kept(self, settings: Settings) -> Release | None:
        """Return the release that these settings ask for; None for the pinned one.

        Raises a Card when it was never found, or is gone.
        """
        if not self._asks(settings):
            return None
        found = self._read(self._folder(settings))
        if found is None:
            raise Card.of(
                "hermes_version",
                f"what {self._label(settings)} is made of is not kept in the state folder any more.",
                "run it again: it is resolved anew.",
                "hermes-version",
            )
        return found

    def find(self, settings: Settings, find: origins.Find) -> None:
        """Have it kept: resolve what was never asked for before. Raises a Card, also for a known advisory.

        find: looks up a file of the controller that the inventory names.
        """
        folder = self._folder(settings)
        kept = self._read(folder) if self._asks(settings) else None
        if kept or not settings.source:
            self._judge(kept.version if kept else settings.version or self.pinned, settings)
        if kept or not self._asks(settings):
            return
        label = self._label(settings)
        try:
            self.deployment.create_shared()
            with installer.installing(folder, label, self.progress) as needed:
                if needed:
                    version = settings.version
                    if settings.source:
                        version = self._version_of_source(settings, folder, find)
                    done = installer.timed(self.progress, f"resolving Hermes {version}")
                    self._resolve(settings, version, folder)
                    done()
        except OSError as error:
            raise disk_card(error, folder) from error

    def _version_of_source(self, settings: Settings, folder: Path, find: origins.Find) -> str:
        """Put the wheel of what hermes_source names into the folder; return its version. Raises a Card."""
        uv = self._uv("hermes_source")
        wheel = origins.make_wheel(settings.source, folder, find, uv, self.progress)
        version = origins.version_of(wheel)
        self._judge(version, settings)
        return version

    def _judge(self, version: str, settings: Settings) -> None:
        """Refuse a version that is not the one asked for, or has an advisory that nobody accepted. Raises a Card."""
        if settings.source and settings.version not in ("", version):
            raise Card.of(
                "hermes_version",
                f"{settings.version} is not what hermes_source names: that is {version}.",
                "leave hermes_version out, or name the source of that version.",
                "hermes-source",
            )
        found = advisories.problems(
            self.container, version, settings.accept_advisories, pinned=not self._asks(settings)
        )
        if found:
            raise Card(found)

    @staticmethod
    def _label(settings: Settings) -> str:
        return "the Hermes of hermes_source" if settings.source else f"Hermes {settings.version}"

    def _asks(self, settings: Settings) -> bool:
        return bool(settings.source) or settings.version not in ("", self.pinned)

    def _folder(self, settings: Settings) -> Path:
        version = origins.identity(settings.source) if settings.source else settings.version
        words = [FORMAT, *self._requirements(version, settings.features)]
        key = hashlib.sha256("\0".join(words).encode()).hexdigest()[:LENGTH]
        return self.deployment.runtime / f"release-{key}"

    def _requirements(self, version: str, features: Sequence[str]) -> list[str]:
        """Return what is asked of the resolver: what our own lock is made of, with another version."""
        text = (self.container / build_context.REQUIREMENTS).read_text(encoding="utf-8")
        words = OUR_REQUIREMENT.sub(rf"\1=={version}", text)
        further = (word for one in FEATURES if one.name in features for word in one.requirements)
        return [words, *further]

    @staticmethod
    def _read(folder: Path) -> Release | None:
        if not installer.is_complete(folder):
            return None
        record = json.loads((folder / installer.COMPLETE).read_text(encoding="utf-8"))
        lock = (folder / build_context.LOCK).read_text(encoding="utf-8")
        return Release(record["version"], lock, record["found"], folder, record.get("origin", ""))

    @staticmethod
    def _uv(what: str) -> str:
        uv = installer.find_uv()
        if uv is None:
            raise Card.of(
                "uv",
                f"not found; it finds out what {what} is made of.",
                "install it (pip install uv) beside Ansible or on the PATH, then run it again.",
                "tools",
            )
        return uv

    def _resolve(self, settings: Settings, version: str, folder: Path) -> None:
        """Write the lock. What we pin is preferred, so that as little as possible differs from what was tested."""
        uv = self._uv(f"Hermes {version}")
        lock, wanted = folder / build_context.LOCK, folder / "requirements.in"
        ours = build_context.FEATURES_LOCK if settings.features else build_context.LOCK
        lock.write_bytes((self.container / ours).read_bytes())
        requirements = self._requirements(version, settings.features)
        wanted.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        command = [uv, "pip", "compile", "--quiet", "--universal", "--generate-hashes"]
        command += ["--python-version", OLDEST_PYTHON, "--no-annotate", "--no-header"]
        command += ["--no-emit-index-url"]
        if settings.source:
            command += ["--find-links", str(folder)]
        command += ["--output-file", str(lock), str(wanted)]
        env = installer.installer_environment()
        done = installer.captured(command, env)
        if done.returncode != 0:
            raise self._cannot(version, done.returncode, done.stdout, env)
        record = {"version": version}
        if settings.source:
            self._hold_to_the_wheel(lock, folder)
            record["origin"] = origins.words(settings.source)
        today = datetime.now(tz=UTC).date().isoformat()
        installer.finish(folder, record | {"found": today})

    @staticmethod
    def _hold_to_the_wheel(lock: Path, folder: Path) -> None:
        """Have the lock take Hermes from its own wheel alone: a registry may have another one of that version."""
        wheel = next(folder.glob("*.whl"))
        mine = f"    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
        text = lock.read_text(encoding="utf-8")
        lock.write_text(
            LOCKED_HERMES.sub(lambda found: f"{found[1]} \\\n{mine}", text), encoding="utf-8"
        )

    def _cannot(self, version: str, code: int, output: str, env: dict[str, str]) -> Card:
        """Return the card for a release that cannot be resolved."""
        words = " ".join(output.split())
        if installer.REFUSED.search(output) or installer.NETWORK.search(output):
            return installer.installer_card(f"Hermes {version}", "uv", code, output, None, env)
        if NO_VERSION.search(words):
            sentence = f"no registry that is asked here has Hermes {version}."
        elif NO_SOLUTION.search(words):
            sentence = f"the parts of Hermes {version} cannot be had together."
        else:
            return installer.installer_card(f"Hermes {version}", "uv", code, output, None, env)
        return Card.of(
            "hermes_version",
            sentence,
            f"name a version that there is, or leave hermes_version out for the pinned {self.pinned}.",
            "hermes-version",
            detail=installer.telling_lines(output),
        )

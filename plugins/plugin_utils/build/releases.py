# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Hermes a deployment gets, when it is not the one that the collection pins, or has further packages.

What was found once is kept beside the deployments and taken again ever after: a deploy that follows
installs the same packages, byte for byte, and a plan has shown exactly those.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ...module_utils.cards import Card
from ...module_utils.digests import LENGTH
from ...module_utils.settings.features import FEATURES
from ...module_utils.settings.settings import Settings
from ..state.disk import disk_card, write_private
from ..state.folder import StateFolder
from . import advisories, build_context, debian, debian_index, installer, origins

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
NO_PACKAGE = re.compile(r"no version of (\S+==\S+)|Because (\S+) was not found in")
NO_WHEEL = re.compile(r"Because (\S+==\S+) has no (?:usable )?wheels")
NO_SOLUTION = re.compile(r"No solution found")


@dataclass(frozen=True)
class Found:
    """What an image of upstream's holds."""

    version: str
    python: str
    """Of its environment, as "3.13"."""
    packages: list[str]
    """Of Python's, as a lock names them."""


Look = Callable[[str], Found]
"""Returns which Hermes an image holds, by the image's name with its digest. Raises a Card."""


@dataclass(frozen=True)
class Release:
    """A Hermes that the collection does not pin, or one with further packages."""

    version: str
    lock: str
    """Its packages with their hashes, those of the features among them."""
    found: str
    """The day on which they were resolved."""
    folder: Path
    """Where this is kept."""
    origin: str = ""
    """How its source was named; empty for one of the registry."""
    asked_by: str = "hermes_version"
    """The variable that asked for it, where no source was named."""
    debian: debian.Lock | None = None
    """Further packages of Debian."""
    image: str = ""
    """The image of upstream's that holds it, by its digest; nothing is installed then, and the lock has no hashes."""
    python: str = ""
    """Of that image."""

    @property
    def wheels(self) -> Path | None:
        """The folder with its own wheel, where it is in no registry."""
        return self.folder if self.origin and not self.image else None

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
        if self.image:
            return (
                f"{self.origin}: looked at {self.found}, {len(LOCKED.findall(self.lock))} packages"
            )
        count = f"{len(LOCKED.findall(self.lock))} packages"
        if self.debian:
            count += f" and {len(self.debian['packages'])} of Debian"
        return f"{self.origin or self.asked_by}: resolved {self.found}, {count}"


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
                self._asked_by(settings),
                f"what {self._label(settings)} is made of is not kept in the state folder any more.",
                "run it again: it is resolved anew.",
                "hermes-version",
            )
        return found

    def find(self, settings: Settings, find: origins.Find, look: Look | None = None) -> None:
        """Have it kept: resolve what was never asked for before. Raises a Card, also for a known advisory.

        find: looks up a file of the controller that the inventory names; look: into an image.
        """
        folder = self._folder(settings)
        kept = self._read(folder) if self._asks(settings) else None
        if kept or not settings.source:
            self._judge(kept.version if kept else self._version(settings), settings)
        if kept or not self._asks(settings):
            return
        label = self._label(settings)
        try:
            self.deployment.create_shared()
            with installer.installing(folder, label, self.progress) as needed:
                if needed and look and "image" in settings.source:
                    self._keep_image(settings, folder, look)
                elif needed:
                    version = self._version(settings)
                    if settings.source:
                        version = self._version_of_source(settings, folder, find)
                    what = "its further packages" if settings.packages else f"Hermes {version}"
                    if settings.packages and self._another(settings):
                        what = f"Hermes {version} and {what}"
                    done = installer.timed(self.progress, f"resolving {what}")
                    self._resolve(settings, version, folder)
                    done()
        except OSError as error:
            raise disk_card(error, folder) from error

    def _keep_image(self, settings: Settings, folder: Path, look: Look) -> None:
        """Write down which Hermes the image of hermes_source holds. Raises a Card."""
        found = look(settings.source["image"])
        self._judge(found.version, settings)
        packages = "".join(f"{one}\n" for one in found.packages)
        (folder / build_context.LOCK).write_text(packages, encoding="utf-8")
        record = {"version": found.version, "asked_by": self._asked_by(settings)}
        record |= {"image": settings.source["image"], "python": found.python}
        record |= {"origin": origins.words(settings.source), "found": _today()}
        installer.finish(folder, record)

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
            self.container, version, settings.accept_advisories, pinned=not self._another(settings)
        )
        if found:
            raise Card(found)

    def _label(self, settings: Settings) -> str:
        if settings.source:
            return "the Hermes of hermes_source"
        return f"Hermes {self._version(settings)}"

    def _version(self, settings: Settings) -> str:
        return settings.version or self.pinned

    def _another(self, settings: Settings) -> bool:
        """Tell whether it is another Hermes than the pinned one."""
        return bool(settings.source) or settings.version not in ("", self.pinned)

    def _asks(self, settings: Settings) -> bool:
        return self._another(settings) or any(further(settings).values())

    def _asked_by(self, settings: Settings) -> str:
        return "hermes_version" if self._another(settings) else "hermes_packages"

    def _folder(self, settings: Settings) -> Path:
        version = origins.identity(settings.source) if settings.source else self._version(settings)
        words = [FORMAT, *self._requirements(version, settings.features)]
        besides = further(settings)
        words += besides["python"]
        if besides["debian"]:
            words += [*besides["debian"], *debian_index.identity(self.container)]
        if not self._another(settings):
            # What the collection pins may be mended by its next release, and then is so here, too.
            words.append(build_context.lock_text(self.container, settings.features))
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
        besides = folder / debian.LOCK
        return Release(
            record["version"],
            lock,
            record["found"],
            folder,
            record.get("origin", ""),
            record.get("asked_by", "hermes_version"),
            json.loads(besides.read_text(encoding="utf-8")) if besides.exists() else None,
            record.get("image", ""),
            record.get("python", ""),
        )

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
        """Write what was asked for into the folder, with all hashes. Raises a Card."""
        besides = further(settings)
        if besides["debian"]:
            self._lock_programs(besides["debian"], folder)
        lock = folder / build_context.LOCK
        record = {"version": version, "asked_by": self._asked_by(settings)}
        if self._another(settings) or besides["python"]:
            self._lock(settings, version, folder)
        else:
            text = build_context.lock_text(self.container, settings.features)
            lock.write_text(text, encoding="utf-8")
        if settings.source:
            self._hold_to_the_wheel(lock, folder)
            record["origin"] = origins.words(settings.source)
        installer.finish(folder, record | {"found": _today()})

    def _lock_programs(self, wanted: Sequence[str], folder: Path) -> None:
        """Write the lock of further packages of Debian."""
        label = "hermes_packages.debian"
        try:
            found = debian_index.resolve(self.container, wanted)
        except debian_index.NotInDebian as error:
            remedy = "name what there is."
            raise Card.of(label, f"{error}.", remedy, "packages") from error
        except debian.DebianError as error:
            raise installer.installer_card(label, "Debian's mirror", 1, str(error)) from error
        (folder / debian.LOCK).write_text(json.dumps(found), encoding="utf-8")

    def _lock(self, settings: Settings, version: str, folder: Path) -> None:
        """Write the lock of Hermes with what it has besides.

        What we pin is preferred, so that as little as possible differs from what was tested.
        """
        uv = self._uv(self._label(settings))
        lock, wanted = folder / build_context.LOCK, folder / "requirements.in"
        ours = build_context.FEATURES_LOCK if settings.features else build_context.LOCK
        lock.write_bytes((self.container / ours).read_bytes())
        python = further(settings)["python"]
        requirements = [*self._requirements(version, settings.features), *python]
        wanted.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        command = [uv, "pip", "compile", "--quiet", "--universal", "--generate-hashes"]
        command += ["--python-version", OLDEST_PYTHON, "--no-annotate", "--no-header"]
        command += ["--no-emit-index-url"]
        if settings.source:
            command += ["--find-links", str(folder)]
        if python:
            # Nothing of them is built or run before it is in the sandbox.
            command += ["--only-binary", ":all:"]
        command += ["--output-file", str(lock), str(wanted)]
        env = installer.installer_environment()
        done = installer.captured(command, env)
        if done.returncode != 0:
            raise self._cannot(settings, version, done.returncode, done.stdout, env)

    @staticmethod
    def _hold_to_the_wheel(lock: Path, folder: Path) -> None:
        """Have the lock take Hermes from its own wheel alone: a registry may have another one of that version."""
        wheel = next(folder.glob("*.whl"))
        mine = f"    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
        text = lock.read_text(encoding="utf-8")
        lock.write_text(
            LOCKED_HERMES.sub(lambda found: f"{found[1]} \\\n{mine}", text), encoding="utf-8"
        )

    def _cannot(
        self, settings: Settings, version: str, code: int, output: str, env: dict[str, str]
    ) -> Card:
        """Return the card for what cannot be resolved."""
        words = " ".join(output.split())
        unreached = installer.REFUSED.search(output) or installer.NETWORK.search(output)
        if unreached or not NO_SOLUTION.search(words):
            return installer.installer_card(f"Hermes {version}", "uv", code, output, None, env)
        detail = installer.telling_lines(output)
        python = further(settings)["python"]
        if not python or NO_VERSION.search(words):
            sentence = f"the parts of Hermes {version} cannot be had together."
            if NO_VERSION.search(words):
                sentence = f"no registry that is asked here has Hermes {version}."
            remedy = f"name a version that there is, or leave hermes_version out for the pinned {self.pinned}."
            return Card.of("hermes_version", sentence, remedy, "hermes-version", detail=detail)
        sentence = f"Hermes {version} and {', '.join(python)} cannot be had together."
        if found := NO_WHEEL.search(words):
            sentence = f"{found[1]} has no wheel, and nothing is built here."
        elif found := NO_PACKAGE.search(words):
            sentence = f"no registry that is asked here has {found[1] or found[2]}."
        remedy = "name a version that there is and that Hermes can be with."
        return Card.of("hermes_packages.python", sentence, remedy, "packages", detail=detail)


def _today() -> str:
    return datetime.now(tz=UTC).date().isoformat()


def further(settings: Settings) -> dict[str, list[str]]:
    """Return the packages that a deployment has besides, by where they come from.

    Debian's are for an image: a process of this machine has what the machine has.
    """
    found = settings.packages
    programs = [] if settings.engine == "process" else found.get("debian", [])
    return {"python": found.get("python", []), "debian": programs}

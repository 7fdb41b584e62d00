# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a deployment keeps its files, and what runs from them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import time
from pathlib import Path
from typing import Any

from ...module_utils.cards import Card, Problem
from ...module_utils.settings.settings import Settings
from .disk import disk_card, write_private
from .lock import alive, end_with_play, other_holder, play_process, started_at

SUPERVISOR_RECORD = "run/supervisor.json"
PROCESSES_RECORD = "run/processes.json"
LOCK = "lock.json"
PROOF = "verified"
ROTATION = "rotation.json"
CONTAINERS = "containers.json"
UNASKED = " unasked"
"""Marks the proof of a version whose content came to a sleeping Hermes, which has not been asked for it since."""
TOKEN_PREFIX = "hw_"  # noqa: S105 - a prefix, not a token


class StateFolder:
    """The state folder of one deployment: <state_dir>/<name>, 0700, and the runtime that all of them share."""

    def __init__(self, state_dir: str, name: str) -> None:
        """state_dir: path, relative to the folder in which the play was started; name: checked Worker name."""
        # What is installed there finds itself by its path, also in a sandbox that has no symbolic link on the way.
        self.state_dir = Path(os.path.realpath(os.path.expanduser(state_dir)))
        self.name = name
        self.folder = self.state_dir / name
        self.runtime = self.state_dir / ".runtime"
        self.build = self.folder / "build"
        self.token_file = self.folder / "api_token"

    def create(self) -> None:
        """Create the folders, readable by their owner only. Raises a Card when that fails."""
        try:
            for path in (self.state_dir, self.folder, self.runtime):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in ("build", "run", "logs", "storage", "engine"):
                (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise disk_card(error, self.folder) from error

    def create_shared(self) -> None:
        """Create what all deployments share, readable by its owner only. Raises OSError."""
        for path in (self.state_dir, self.runtime):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def has_storage(self) -> bool:
        """Tell whether a Durable Object on this machine has kept anything here."""
        storage = self.folder / "storage"
        return storage.is_dir() and any(storage.iterdir())

    def shown(self, path: Path) -> str:
        """Return a path the way a person would type it: relative when that is shorter."""
        relative = os.path.relpath(path)
        return relative if not relative.startswith("..") else str(path)

    def token(self) -> str | None:
        """Return the API token kept in the state folder, or None."""
        return _text(self.token_file).strip() or None

    def keep_token(self, token: str) -> None:
        """Write the API token, readable by its owner only, in one step."""
        write_private(self.token_file, token + "\n", durable=True)

    def drop_token(self) -> None:
        """Forget the API token: the deployment takes none any more, and an old one would only be shown to it."""
        self.token_file.unlink(missing_ok=True)

    def rotation(self) -> dict[str, Any] | None:
        """Return what a rotation of keys noted that has not come to its end, or None."""
        text = _text(self.folder / ROTATION)
        return dict(json.loads(text)) if text else None

    def keep_rotation(self, record: dict[str, Any]) -> None:
        """Note a rotation, the new API token among it, before the Worker learns of it: whoever holds this gets in."""
        write_private(self.folder / ROTATION, json.dumps(record) + "\n", durable=True)

    def end_rotation(self) -> None:
        """Drop the note: the rotation is through, or was taken back."""
        (self.folder / ROTATION).unlink(missing_ok=True)

    def is_proved(self, version: str) -> bool:
        """Tell whether a chat has proved this version, apart from content that a sleeping Hermes was not woken for."""
        return _text(self.build / PROOF).strip().removesuffix(UNASKED) == version

    def is_unasked(self) -> bool:
        """Tell whether there is such content in what is proved."""
        return _text(self.build / PROOF).strip().endswith(UNASKED)

    def note_proof(self, version: str | None, *, asked: bool = True) -> None:
        """Keep that a chat proved this version; None drops the proof, before anything is changed.

        asked: whether Hermes was asked, too, if it has the content that is declared.
        """
        if version is None:
            (self.build / PROOF).unlink(missing_ok=True)
        else:
            write_private(self.build / PROOF, f"{version}{'' if asked else UNASKED}\n")

    def note(self, name: str) -> str:
        """Return what was noted under a name when this deployment was last changed, or an empty text."""
        return _text(self.folder / f"{name}.note").strip()

    def keep_note(self, name: str, text: str) -> None:
        """Note something that the next run compares with."""
        write_private(self.folder / f"{name}.note", text + "\n")

    def drop_note(self, name: str) -> None:
        """Forget what was noted under a name."""
        (self.folder / f"{name}.note").unlink(missing_ok=True)

    def containers(self) -> dict[str, str] | None:
        """Return where this deployment has containers: {"socket", "session"}; None when it has none."""
        try:
            record = json.loads(_text(self.folder / CONTAINERS))
        except ValueError:
            return None
        if self._of_another(record):
            return None
        return {name: record[name] for name in ("socket", "session")}

    def note_containers(self, socket: str, session: str) -> None:
        """Keep where containers are made, before the first one is: what removes them may know no inventory."""
        record = {"socket": socket, "session": session, "folder": str(self.folder)}
        write_private(self.folder / CONTAINERS, json.dumps(record) + "\n")

    def forget_containers(self) -> None:
        """Drop the note, once they are removed."""
        (self.folder / CONTAINERS).unlink(missing_ok=True)

    def supervisor(self) -> dict[str, Any] | None:
        """Return the running supervisor's record, or None.

        A running supervisor holds a lock on its record, so a stale record or a reused process id cannot mislead.
        """
        try:
            with (self.folder / SUPERVISOR_RECORD).open(encoding="utf-8") as record:
                try:
                    fcntl.flock(record, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    running: dict[str, Any] = json.load(record)
                    return running
        except (FileNotFoundError, NotADirectoryError, ValueError):
            pass
        return None

    def moved_from(self) -> str | None:
        """Return the folder that its processes were started in, when it was moved here while they ran; else None."""
        folder = (self.supervisor() or {}).get("folder", str(self.folder))
        return folder if folder != str(self.folder) else None

    def orphans(self) -> list[dict[str, Any]]:
        """Return the records of processes that outlived a killed supervisor, as far as their ids still exist."""
        return [
            record
            for record in self._processes().values()
            if alive(record.get("pid")) and not self._of_another(record)
        ]

    def running_build(self) -> str:
        """Return the digest of the build that workerd was last started from; an empty text when nobody noted it."""
        return str(self._processes().get("workerd", {}).get("build", ""))

    def _processes(self) -> dict[str, dict[str, Any]]:
        """Return what the supervisor noted of its processes, by name."""
        try:
            noted: dict[str, dict[str, Any]] = json.loads(_text(self.folder / PROCESSES_RECORD))
            return noted
        except ValueError:
            return {}

    def _of_another(self, record: dict[str, Any]) -> bool:
        """Tell whether a record came here by a copy of the folder that it names, which is still there.

        What a copied record names is the other deployment's. A folder that was moved took along what it names.
        """
        folder = record.get("folder", str(self.folder))
        return folder != str(self.folder) and os.path.isdir(folder)

    def holder(self) -> dict[str, Any] | None:
        """Return the record of another play that is changing this deployment now, or None."""
        return other_holder(_text(self.folder / LOCK))

    def take(self, purpose: str) -> None:
        """Take the deployment for this play; raises a Card that names the other holder.

        The holder is the play's own process: the lock ends with it, however it ends, and needs no release. So does
        this process, which Ansible keeps in a session of its own: a play that was killed changes nothing any more.
        """
        end_with_play()
        descriptor = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            handle.seek(0)
            other = other_holder(handle.read())
            if other:
                raise Card([self.locked(other)])
            pid = play_process()
            record = {
                "pid": pid,
                "started": started_at(pid),
                "purpose": purpose,
                "user": os.environ.get("USER") or str(os.getuid()),
                "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            }
            # Over what is there, and only then cut: that needs no room on a disk that is full.
            handle.seek(0)
            json.dump(record, handle)
            handle.truncate()

    def locked(self, other: dict[str, Any]) -> Problem:
        """Return the problem of a deployment that another play holds."""
        return Problem(
            self.name,
            f"another run ({other.get('purpose', 'a play')} by {other.get('user', '?')}, process {other['pid']},"
            f" since {other.get('since', '?')}) is changing it.",
            f"wait for process {other['pid']} to end, or stop it; the lock ends with it.",
            "locked",
        )


def _text(path: Path) -> str:
    """Return a file's text; an empty one where there is none, also because a folder above it is a file."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def new_token() -> str:
    """Return a fresh API token of 256 random bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def session_of(settings: Settings) -> str:
    """Return the id by which workerd and we recognise a deployment's containers in their engine.

    It depends on the folder: two deployments of one name, of two users say, may share an engine.
    """
    folder = StateFolder(settings.state_dir, settings.name).folder
    return f"{settings.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of Hermes' state as files on the controller."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, cast

from ...module_utils.worker_client import CHANGE_SECONDS, Answer, Unreachable, WorkerClient
from .disk import disk_card
from .folder import StateFolder

SUFFIX = ".hermes"
SECONDS = 300.0
"""Longest silence while a backup travels; the largest is 256 MB."""
PATH = "/api/instance/backups"
PART = 16 * 1024 * 1024
"""Bytes that are uploaded at once: the Worker takes 64 MB of them, and what is cut off is sent again."""
PAUSES = (1.0, 3.0, 9.0)
"""Seconds between the attempts to send a part."""
PASSING = frozenset({408, 429, 500, 502, 503, 504, 520, 522, 524})
"""Statuses of trouble that may be over at the next attempt."""
ONE_BODY = 100_000_000
"""Cloudflare's edge lets no larger body in."""


def folder_of(deployment: StateFolder) -> Path:
    """Return where a deployment's backups are kept by default; it outlives the deployment."""
    return deployment.state_dir / "backups"


def kept(folder: Path, deployment: StateFolder, forget: bool) -> str:
    """Return what a plan to destroy says of the memory. forget: it goes without a backup, as far as is known yet."""
    if forget:
        return "keep    nothing of Hermes' memory (hermes_forget)"
    return f"keep    a last backup in {deployment.shown(folder)}, unless you say otherwise"


def newest(client: WorkerClient) -> dict[str, Any] | None:
    """Return the newest whole backup that the Worker keeps, as it describes it; None when it has none.

    Raises Unreachable.
    """
    answer = client.request("GET", PATH, timeout=60)
    kept = answer.json().get("backups") if answer.status == 200 else None
    if kept is None:
        raise Unreachable(answer.complaint())
    return next((one for one in kept if one["state"] == "good"), None)


def path_for(name: str, backup: dict[str, Any], folder: Path) -> Path:
    """Return the file that a backup is kept in: the same one for the same state. name: of the deployment."""
    moment = re.sub(r"[^0-9]", "", str(backup["created"]))[:14]
    return folder / f"{name}-{moment[:8]}-{moment[8:]}-{str(backup['sha256'])[:8]}{SUFFIX}"


def download(client: WorkerClient, backup: dict[str, Any], path: Path) -> None:
    """Download a backup into a file of mode 0600, whole or not at all. Raises Unreachable, or a Card.

    What is in the file is compared with what the Worker announces: its own copy may be deleted next.
    """

    def write(file: IO[bytes]) -> None:
        answer = client.download(f"{PATH}/{backup['id']}", file.write, SECONDS)
        if answer.status != 200:
            raise Unreachable(answer.complaint())

    try:
        keep(path, backup, write)
    except ValueError as error:
        raise Unreachable(f"what arrived is not the backup: {error}") from error
    except OSError as error:
        raise disk_card(error, path.parent) from error


def keep(path: Path, backup: dict[str, Any], write: Callable[[IO[bytes]], None]) -> None:
    """Have a backup written into a file of mode 0600, whole or not at all; it is read again.

    Raises ValueError when what was written is not the backup, OSError when it cannot be, and what `write` raises.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        flaw = difference(partial, backup)
        if flaw:
            raise ValueError(flaw)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def difference(path: Path, backup: dict[str, Any]) -> str:
    """Return how a file differs from a backup as the Worker describes it; an empty text when it does not.

    The file is a line of JSON, the manifest, and the archive, whose size and SHA-256 the Worker tells.
    """
    with path.open("rb") as file:
        manifest = file.readline()
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell() - len(manifest)
    if size != backup["bytes"]:
        return f"it has {size} bytes, not {backup['bytes']}"
    if digest != backup["sha256"]:
        return "its SHA-256 is another"
    try:
        announced = json.loads(manifest)["sha256"]
    except (ValueError, KeyError, TypeError):
        return "its first line is no manifest"
    return "" if announced == digest else "its manifest is of another backup"


def upload(client: WorkerClient, path: Path, progress: Callable[[str], None]) -> Answer:
    """Upload a backup in parts, and have it put back; where an earlier upload was cut, only what is missing.

    Returns the last answer, which may be a refusal. Raises Unreachable.
    """
    count = max(1, math.ceil(path.stat().st_size / PART))
    place = f"{PATH}/uploads/{digest_of(path.open('rb'))}"
    answer = client.request("GET", f"{place}?parts={count}", timeout=60)
    if answer.status != 200:
        return answer
    missing = answer.json()["missing"]
    if len(missing) < count:
        progress(f"{count - len(missing)} of {count} parts are there already")
    with path.open("rb") as file:
        for n in missing:
            file.seek(n * PART)
            answer = _send(client, f"{place}/{n}?parts={count}", file.read(PART))
            if answer.status != 200:
                return answer
            if count > 1:
                progress(f"uploaded part {n + 1} of {count}")
    return client.request("POST", place, timeout=CHANGE_SECONDS)


def _send(client: WorkerClient, path: str, content: bytes) -> Answer:
    """Send a part, some times if need be: twice is as good as once."""
    path = f"{path}&sha256={hashlib.sha256(content).hexdigest()}"
    for pause in PAUSES:
        with contextlib.suppress(Unreachable):
            answer = client.upload(path, content, SECONDS)
            if answer.status not in PASSING:
                return answer
        time.sleep(pause)
    return client.upload(path, content, SECONDS)


def size_words(size: int) -> str:
    """Return what it means that a backup is as large as it is; an empty text when it means nothing."""
    if size <= ONE_BODY:
        return ""
    return (
        f"{size / 1e6:.0f} MB: Cloudflare lets in no more than 100 MB at once, so that only `restore` brings it back,"
        " in parts; beyond 256 MB nothing is saved any more. Old sessions and large files in Hermes' home can go."
    )


def digest_of(file: IO[bytes]) -> str:
    """Return the SHA-256 of a file, and close it."""
    with file:
        return hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()


def on_disk(deployment: StateFolder) -> list[Path]:
    """Return a deployment's backups in the default folder, newest first."""
    mine = re.compile(rf"{re.escape(deployment.name)}-\d{{8}}-\d{{6}}-[0-9a-f]{{8}}{SUFFIX}")
    folder = folder_of(deployment)
    names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    return [folder / name for name in sorted(filter(mine.fullmatch, names), reverse=True)]

# SPDX-License-Identifier: Apache-2.0
"""Snapshots: copies of a disk, tied to an image, that expire."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import stat
import sys
import threading
import time
from typing import Any

from engine.disks import remove_tree
from engine.errors import EngineError

KEEP_SECONDS = 30 * 24 * 3600
KEEP_COUNT = 3  # a laptop's disk is not a cloud's
_ID = re.compile(r"[0-9a-f]{32}\Z")
_FICLONE = 0x40049409


class Snapshots:
    """The folder of snapshots: `<id>/disk` and, written last, `<id>/snapshot.json`."""

    def __init__(self, folder: str) -> None:
        self._folder = os.path.realpath(folder)

    def take(self, disk: str, image: str, name: str, stop: threading.Event) -> dict[str, Any]:
        """Copy a disk and return {"id", "size" in bytes, "name"}. Blocks; `stop` ends it early."""
        identity = secrets.token_hex(16)
        folder = os.path.join(self._folder, identity)
        try:
            os.mkdir(folder, 0o700)
            size = copy_tree(disk, os.path.join(folder, "disk"), stop)
            description = {"id": identity, "size": size, "name": name, "image": image}
            self._describe(folder, description)
        except BaseException:
            remove_tree(folder)
            raise
        self.prune()
        return {key: description[key] for key in ("id", "size", "name")}

    def image_of(self, identity: object) -> str:
        """Return the digest of a snapshot's image. Raises EngineError 404 when it is gone."""
        return str(self._read(identity)["image"])

    def restore(self, identity: object, target: str, stop: threading.Event) -> None:
        """Copy a snapshot's disk to `target` and renew the snapshot's time. Blocks."""
        self._read(identity)
        folder = os.path.join(self._folder, str(identity))
        copy_tree(os.path.join(folder, "disk"), target, stop)
        os.utime(os.path.join(folder, "snapshot.json"))

    def prune(self) -> None:
        """Remove what is unfinished, expired, or older than the newest KEEP_COUNT."""
        ages = {}
        for entry in list(os.scandir(self._folder)):
            try:
                at = os.stat(os.path.join(entry.path, "snapshot.json")).st_mtime
                ages[entry.path] = time.time() - at
            except FileNotFoundError:
                ages[entry.path] = float("inf")
        for position, path in enumerate(sorted(ages, key=ages.__getitem__)):
            if position >= KEEP_COUNT or ages[path] > KEEP_SECONDS:
                remove_tree(path)

    def _read(self, identity: object) -> dict[str, Any]:
        if isinstance(identity, str) and _ID.match(identity):
            path = os.path.join(self._folder, identity, "snapshot.json")
            with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
                if time.time() - os.fstat(file.fileno()).st_mtime <= KEEP_SECONDS:
                    described: dict[str, Any] = json.load(file)
                    return described
        raise EngineError(404, "snapshot_not_found", f"There is no snapshot {identity!r} here.")

    @staticmethod
    def _describe(folder: str, description: dict[str, Any]) -> None:
        partial = os.path.join(folder, "snapshot.json.new")
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(description, file)
        os.rename(partial, os.path.join(folder, "snapshot.json"))


class Stopped(Exception):
    """The copy was told to stop."""


def copy_tree(source: str, target: str, stop: threading.Event) -> int:
    """Copy folders, files and links with permissions and times; return the bytes of the files.

    Copies share blocks with the original where the file system can, never the file itself.
    Sockets, FIFOs and devices mean nothing without their process and are left out.
    """
    if stop.is_set():
        raise Stopped
    status = os.lstat(source)
    os.mkdir(target, 0o700)
    size = 0
    for entry in os.scandir(source):
        copy = os.path.join(target, entry.name)
        with contextlib.suppress(FileNotFoundError):  # vanished while we looked
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), copy)
            elif entry.is_dir():
                size += copy_tree(entry.path, copy, stop)
            elif entry.is_file():
                _copy_file(entry.path, copy)
                size += os.lstat(copy).st_size
    os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    return size


def _copy_file(source: str, target: str) -> None:
    if not (sys.platform.startswith("linux") and _clone(source, target)):
        shutil.copyfile(source, target)
    shutil.copystat(source, target)


def _clone(source: str, target: str) -> bool:
    import fcntl

    with open(source, "rb") as original, open(target, "wb") as copy:
        try:
            fcntl.ioctl(copy, _FICLONE, original.fileno())
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            return False
    return True

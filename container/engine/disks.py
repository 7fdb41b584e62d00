# SPDX-License-Identifier: Apache-2.0
"""Disks of sandboxes: a folder that lives exactly as long as its sandbox.

<disks>/<id>/disk   what a snapshot holds: home/ and tmp/
<disks>/<id>/run    in memory where the system offers that: a link into it; else a folder
"""

import contextlib
import os
import secrets
import shutil
import stat

from engine import processes

_MEMORY = "/dev/shm"  # noqa: S108 - checked for being memory and used with a private folder
_PREFIX = "hermes-run-"


class Disk:
    """One disk, made empty. `id` is also the mark that its processes carry."""

    def __init__(self, folder: str, name: str) -> None:
        self.id = name
        self.folder = os.path.join(folder, name)
        self.root = os.path.join(self.folder, "disk")

    @property
    def run(self) -> str:
        """Return the folder for what must not reach the disk."""
        return os.path.realpath(os.path.join(self.folder, "run"))

    def create(self, with_root: bool, in_memory: bool) -> None:
        """Make the folders; `with_root` false leaves `root` to be copied from a snapshot."""
        os.mkdir(self.folder, 0o700)
        if with_root:
            for name in ("home", "tmp"):
                os.makedirs(os.path.join(self.root, name), 0o700)
        run = os.path.join(self.folder, "run")
        memory = os.path.join(_MEMORY, _PREFIX + self.id)
        if in_memory and os.access(_MEMORY, os.W_OK):
            os.symlink(memory, run)  # first, so that a leftover can be found
            os.mkdir(memory, 0o700)
        else:
            os.mkdir(run, 0o700)

    def remove(self) -> None:
        """Remove everything of this disk, also what its processes made hard to remove."""
        run = self.run
        if os.path.dirname(run) == _MEMORY and os.path.basename(run) == _PREFIX + self.id:
            remove_tree(run)
        remove_tree(self.folder)


class Disks:
    """The folder of disks. Only one engine uses it at a time."""

    def __init__(self, folder: str) -> None:
        self._folder = os.path.realpath(folder)

    def free(self) -> int:
        """Return how many bytes may still be written there."""
        return shutil.disk_usage(self._folder).free

    def new(self) -> Disk:
        """Return a disk that does not exist yet."""
        return Disk(self._folder, secrets.token_hex(8))

    def remove_leftovers(self) -> None:
        """Kill what is left of sandboxes of a dead engine and remove their disks."""
        for entry in list(os.scandir(self._folder)):
            if entry.is_dir(follow_symlinks=False):
                disk = Disk(self._folder, entry.name)
                processes.kill_marked(disk.id)
                disk.remove()


def remove_tree(path: str) -> None:
    """Remove a folder and all in it; folders without permissions get them first."""
    for parent, folders, _files in os.walk(path):
        for name in folders:
            child = os.path.join(parent, name)
            status = os.lstat(child)
            if stat.S_ISDIR(status.st_mode) and status.st_mode & 0o700 != 0o700:
                with contextlib.suppress(OSError):
                    os.chmod(child, 0o700)
    shutil.rmtree(path, ignore_errors=True)

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose the files are: a run as somebody else would lock their owner out, or is locked out itself."""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ...module_utils.cards import Problem
from .folder import StateFolder

NOBODY = 65534
"""Stands for everybody of outside in a user namespace, as a rootless container has one."""


def problems(deployment: StateFolder) -> list[Problem]:
    """Return the problem of a run whose files would be another's than what is there, or that may not touch it."""
    me = os.geteuid()
    if me == 0:
        return _as_root(deployment)
    for path in _files(deployment):
        owner = path.lstat().st_uid
        if owner != me:
            return [foreign(path, deployment.state_dir)]
    return []


def _as_root(deployment: StateFolder) -> list[Problem]:
    """Root may write anywhere; what it makes among the files of a person is not theirs any more."""
    for path in (existing(deployment.folder), existing(deployment.state_dir)):
        owner = path.stat().st_uid
        if owner in (0, NOBODY) or not is_known(owner):
            continue
        name = name_of(owner)
        return [
            Problem(
                deployment.shown(path),
                f"belongs to {name}, and this run is root's: {name} could not use what it makes there.",
                f"run it as {name}, without sudo; or set hermes_state_dir to a folder of root's.",
                "owner",
            )
        ]
    return []


def _files(deployment: StateFolder) -> Iterator[Path]:
    """Yield the deployment's folder with what is around it and in it, as far as it can be read."""
    if os.path.lexists(deployment.state_dir):
        yield deployment.state_dir
    for path in filter(os.path.lexists, (deployment.runtime, deployment.folder)):
        yield path
        with suppress(PermissionError):  # then the folder itself is somebody else's
            yield from path.iterdir()


def foreign(path: Path, root: Path | None = None) -> Problem:
    """Return the problem of a file that belongs to somebody else. root: the folder that has to change hands."""
    owner, me = name_of(path.lstat().st_uid), name_of(os.geteuid())
    return Problem(
        str(path),
        f"belongs to {owner}, and this run is {me}'s; an earlier one was {owner}'s.",
        f"run `sudo chown -R {me} {shlex.quote(str(root or path))}`; or run it as {owner}.",
        "owner",
    )


def existing(path: Path) -> Path:
    """Return a path, or the nearest folder above it that is there."""
    return next(each for each in (path, *path.parents) if os.path.lexists(each))


def is_known(uid: int) -> bool:
    """Tell whether this machine knows a user; a container sees its host's users by their numbers only."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def name_of(uid: int) -> str:
    """Return a user's name, or the number."""
    return pwd.getpwuid(uid).pw_name if is_known(uid) else str(uid)

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which parts of the shared runtime are in use, and the removal of those that are not."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

from ..state.disk import write_private
from ..state.folder import StateFolder
from .runtime import Runtime

USES = "uses.json"


def note_use(deployment: StateFolder, runtime: Runtime, *, proved: bool = False) -> None:
    """Write down which parts of the shared runtime this deployment uses.

    Until the new parts are proved, the old ones count too: they may still run.
    """
    old = set() if proved else _uses(deployment.build) or set()
    used = sorted(runtime.parts() | old)
    write_private(deployment.build / USES, json.dumps(used) + "\n")


def _uses(build: Path) -> set[str] | None:
    """Return what a deployment wrote down that it uses, or None."""
    try:
        return set(json.loads((build / USES).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None


def prune(deployment: StateFolder, runtime: Runtime) -> list[str]:
    """Remove what no deployment of this state folder uses any more; return what was removed.

    Called after a proof. A deployment that has not written down what it uses keeps everything.
    """
    used: set[str] = set()
    note_use(deployment, runtime, proved=True)
    for build in deployment.state_dir.glob("*/build"):
        theirs = _uses(build)
        if theirs is None:
            return []
        used |= theirs
    removed = []
    for pattern in ("images/*", "host-*", "worker-*", "wrangler-*", "bundle-*"):
        for folder in deployment.runtime.glob(pattern):
            name = folder.relative_to(deployment.runtime).as_posix()
            if name not in used and folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(name)
    return removed


def others(deployment: StateFolder) -> list[Path]:
    """Return the folders of other deployments beside this one."""
    try:
        entries = list(deployment.state_dir.iterdir())
    except FileNotFoundError:
        return []
    return [entry for entry in entries if entry != deployment.folder and (entry / "build").is_dir()]


def remove_runtime(deployment: StateFolder) -> None:
    """Remove the shared runtime and the folder around it, when no other deployment is there."""
    if others(deployment):
        return
    shutil.rmtree(deployment.runtime, ignore_errors=True)
    # Not when backups, or something of the owner's own, are in it.
    with contextlib.suppress(OSError):
        deployment.state_dir.rmdir()

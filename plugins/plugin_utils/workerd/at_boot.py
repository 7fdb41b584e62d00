# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What starts a deployment after a reboot: a user's own means, a unit of systemd or an agent of launchd."""

from __future__ import annotations

import json
import os
import plistlib
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ...module_utils.cards import Problem
from ..build.installer import captured, clean_environment
from ..state.folder import StateFolder

KEPT = "boot.json"
"""The supervisor's file with what a start after a reboot is given."""
STAY_DOWN, START_WITH_KEYS = "stay_down", "start_with_keys"
SECONDS = 60
UNIT = """# Made by hermes.workers for the deployment {name}; goes with it, or when hermes_after_reboot says so.
[Unit]
Description=Hermes {name}
ConditionPathExists={condition}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={start}
ExecStop={stop}
TimeoutStartSec=180
TimeoutStopSec=180

[Install]
WantedBy=default.target
"""


class AtBoot:
    """The unit or agent of one deployment on this machine."""

    def __init__(self, deployment: StateFolder, session: str) -> None:
        """session: names the deployment among all of this machine's."""
        self.deployment = deployment
        self.name = f"hermes-{session}"

    def problems(self, wanted: str) -> list[Problem]:
        """Return why what is wanted after a reboot cannot be had here."""
        if wanted == STAY_DOWN or sys.platform == "darwin" or has_user_manager():
            return []
        return [
            Problem(
                "hermes_after_reboot",
                f"{wanted} needs systemd to run for {user()} here, and it does not.",
                "leave hermes_after_reboot out, and deploy again after a reboot; or sign in without sudo or su.",
                "after-reboot",
            )
        ]

    @property
    def path(self) -> Path:
        """Where the unit or agent stands."""
        if sys.platform == "darwin":
            return Path.home() / "Library" / "LaunchAgents" / f"workers.{self.name}.plist"
        config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        return config / "systemd" / "user" / f"{self.name}.service"

    def kept(self) -> dict[str, Any]:
        """Return what the supervisor keeps for a start after a reboot; nothing where it is to stay down."""
        try:
            kept: dict[str, Any] = json.loads(
                (self.deployment.folder / KEPT).read_text(encoding="utf-8")
            )
            return kept
        except (FileNotFoundError, ValueError):
            return {}

    def chosen(self) -> str:
        """Return what becomes of the deployment after a reboot, as things stand."""
        return str(self.kept().get("after_reboot", STAY_DOWN))

    def differs(self, wanted: str, host: Path) -> str:
        """Return the words for a change, or an empty text. host: the runtime to start."""
        if self.chosen() != wanted:
            return f"after a reboot: {self.chosen()} -> {wanted}"
        if wanted != STAY_DOWN and self._is() != self._content(host):
            return "after a reboot: nothing starts it"
        return ""

    def settle(self, wanted: str, host: Path) -> str:
        """Make it so, after the processes were started. Returns what is left to be done, or an empty text."""
        if wanted == STAY_DOWN:
            self.remove()
            return ""
        content = self._content(host)
        if self._is() != content:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(content)
        if sys.platform == "darwin":
            return ""
        for words in (["daemon-reload"], ["enable", "--quiet", self.path.name]):
            code, said = systemctl(*words)
            if code:
                return f"systemctl --user {words[0]} failed: {said}"
        return lingering()

    def remove(self) -> None:
        """Take the unit or agent away; what runs goes on."""
        if not self.path.exists():
            return
        if sys.platform != "darwin" and has_user_manager():
            systemctl("disable", "--quiet", self.path.name)
        self.path.unlink(missing_ok=True)
        if sys.platform != "darwin" and has_user_manager():
            systemctl("daemon-reload")

    def words(self, command: str) -> str:
        """Return what becomes of it after a reboot, for its status. command: that deploys it."""
        chosen, kept = self.chosen(), self.kept()
        if chosen == STAY_DOWN:
            return f"stays down; `{command}` starts it"
        if not self.path.exists():
            return f"stays down, for {self.path} is gone; `{command}` makes it"
        if chosen == START_WITH_KEYS:
            return f"starts again; its keys are kept in {self.deployment.shown(self.deployment.folder / KEPT)}"
        lacks = kept.get("lacks") or []
        return "starts again" + (
            f", without {', '.join(lacks)}; then run `{command}`" if lacks else ""
        )

    def lacking(self, command: str) -> str | None:
        """Return what the processes run without since a reboot, for the status; None when they have all."""
        names = self.kept().get("lacking") or []
        return f"{', '.join(names)}, not kept for a reboot; run `{command}`" if names else None

    def _is(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError:
            return b""

    def _content(self, host: Path) -> bytes:
        program = [str(host / "venv" / "bin" / "python"), str(host / "supervisor.py")]
        folder = ["--folder", str(self.deployment.folder)]
        if sys.platform == "darwin":
            agent = {
                "Label": f"workers.{self.name}",
                "ProgramArguments": [*program, "boot", *folder],
                "RunAtLoad": True,
                # What it has started outlives it.
                "AbandonProcessGroup": True,
            }
            return plistlib.dumps(agent)
        text = UNIT.format(
            name=self.deployment.name,
            condition=str(self.deployment.folder / KEPT).replace("%", "%%"),
            start=command_line([*program, "boot", *folder]),
            stop=command_line([*program, "ctl", "stop", *folder]),
        )
        return text.encode()


def command_line(words: list[str]) -> str:
    """Return a command as systemd reads it: in quotes, with its own signs for specifiers and variables doubled.

    By way of a shell, for systemd takes no program whose path has a quote in it.
    """
    signs = str.maketrans({"\\": "\\\\", '"': '\\"', "%": "%%", "$": "$$"})
    words = ["-c", 'exec "$@"', "sh", *words]
    return " ".join(["/bin/sh", *(f'"{word.translate(signs)}"' for word in words)])


def has_user_manager() -> bool:
    """Tell whether systemd runs for this user."""
    folder = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return bool(shutil.which("systemctl")) and os.path.isdir(os.path.join(folder, "systemd"))


def systemctl(*words: str) -> tuple[int, str]:
    """Ask the user's systemd; returns its exit code and last words."""
    return _run(["systemctl", "--user", *words])


def lingering() -> str:
    """Have systemd run for this user from the machine's start on; return what is left to do, or an empty text."""
    _code, said = _run(["loginctl", "show-user", user(), "--property=Linger"])
    if said == "Linger=yes" or _run(["loginctl", "enable-linger"])[0] == 0:
        return ""
    return f"it starts when you sign in; at the start of the machine after: sudo loginctl enable-linger {user()}"


def user() -> str:
    """Return this user's name, or the number."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _run(command: list[str]) -> tuple[int, str]:
    folder = f"/run/user/{os.getuid()}"
    env = {"XDG_RUNTIME_DIR": folder} | clean_environment()
    try:
        done = captured(command, env, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout.strip().split("\n")[-1]

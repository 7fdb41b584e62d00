# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs wrangler: uploads a Worker with its secrets as one version, and sees to its container application."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ...module_utils.cards import Card
from ...module_utils.settings.catalogue import API_BASE_URL
from ...module_utils.settings.settings import Settings
from ..build.installer import captured, clean_environment
from ..state.folder import StateFolder
from .wrangler_config import BUILD_FILE

CALLS = 16
"""What one deploy takes of the account's limit of calls."""
SECONDS = 1200
"""Longer than its own patience, 900 s for an image, so that it can say itself what is wrong."""
COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
HIDDEN = "********"
MOST_LINES = 8


class Wrangler:
    """wrangler, for one deployment. Its files, caches and logs stay in the state folder."""

    def __init__(self, command: list[str], settings: Settings, deployment: StateFolder) -> None:
        """command: what starts it, node included."""
        self.command = command
        self.settings = settings
        self.deployment = deployment

    def deploy(self, token: str, secrets: Mapping[str, str]) -> str:
        """Upload the build folder with the secrets as one version; return its id.

        The API token is in the environment of this one process, and the secrets are on its standard input: neither is
        in a file or an argument. Raises a Card.
        """
        output = self._home() / "output.ndjson"
        output.unlink(missing_ok=True)
        words = ["deploy", "--config", BUILD_FILE, "--secrets-file", "/dev/stdin"]
        try:
            done = captured(
                [*self.command, *words],
                self._environment(token, output),
                cwd=self.deployment.build,
                words=json.dumps(secrets),
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise self._failed(f"it did not end within {SECONDS} s", []) from error
        version = _version(output)
        if done.returncode != 0 or not version:
            lines = telling_lines(done.stdout, [token, *secrets.values()])
            raise self._failed(lines[0] if lines else f"exit code {done.returncode}", lines[1:])
        return version

    def _environment(self, token: str, output: Path) -> dict[str, str]:
        home = self._home()
        settings = self.settings
        env = clean_environment(
            CI="1",
            NO_COLOR="1",
            CLOUDFLARE_API_TOKEN=token,
            CLOUDFLARE_ACCOUNT_ID=settings.account_id,
            WRANGLER_SEND_METRICS="false",
            WRANGLER_SEND_ERROR_REPORTS="false",
            WRANGLER_HIDE_BANNER="true",
            WRANGLER_OUTPUT_FILE_PATH=str(output),
            WRANGLER_LOG_PATH=str(home / "logs"),
            WRANGLER_HOME=str(home),
            WRANGLER_CACHE_DIR=str(home / "cache"),
            # Its settings of the user's, a login among them, are none of a deployment's business.
            HOME=str(home),
            XDG_CONFIG_HOME=str(home),
        )
        if settings.api_base_url != API_BASE_URL:
            env["CLOUDFLARE_API_BASE_URL"] = settings.api_base_url
        return env

    def _home(self) -> Path:
        home = self.deployment.folder / "wrangler"
        home.mkdir(mode=0o700, exist_ok=True)
        return home

    def _failed(self, sentence: str, detail: list[str]) -> Card:
        return Card.of(
            self.settings.name,
            f"wrangler could not deploy the Worker: {sentence}",
            "mend what wrangler names and run it again; it goes on where it stopped.",
            "wrangler",
            detail=detail,
        )


def _version(output: Path) -> str:
    """Return the id of the version that wrangler wrote to its machine-readable output, or an empty string."""
    try:
        lines = output.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ""
    entries = [json.loads(line) for line in lines if line.strip()]
    ids = [entry.get("version_id") for entry in entries if entry.get("type") == "deploy"]
    return next((one for one in ids if one), "")


def telling(line: str) -> bool:
    """Tell whether a line says something of this failure: not the advice that ends every one."""
    return bool(line) and not line.startswith(("If you think this is a bug", "🪵"))


def telling_lines(output: str, secrets: list[str]) -> list[str]:
    """Return the lines in which wrangler says what is wrong, without a secret, the cause first."""
    # Colours come even where none are wanted, in the middle of the mark.
    raw = [COLOURS.sub("", line).strip() for line in output.splitlines()]
    marked = [number for number, line in enumerate(raw) if "[ERROR]" in line]
    lines = [
        line.removeprefix("✘").removeprefix("X").replace("[ERROR]", "").strip() for line in raw
    ]
    kept = [line for line in lines[marked[0] if marked else 0 :] if telling(line)]
    for value in sorted(filter(None, secrets), key=len, reverse=True):
        kept = [line.replace(value, HIDDEN) for line in kept]
    return [line[:300] for line in (kept[:MOST_LINES] if marked else kept[-MOST_LINES:])]

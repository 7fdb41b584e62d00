# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan is made of, wherever a deployment runs: its changes, what is there now, and what restarts Hermes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..module_utils.cards import Card
from ..module_utils.settings.settings import Settings
from ..module_utils.worker_client import WorkerClient
from .proof import channels
from .proof.in_force import (
    CONTENT,
    UNTOLD,
    Restart,
    outstanding,
    preview,
    with_confinement,
)


@dataclass
class Change:
    """One line of a plan.

    action: create or update; what: image, worker, processes, secrets, hermes, channels; detail: words; restarts: what
    starts again for it, in words, or an empty text.
    """

    action: str
    what: str
    detail: str
    restarts: str = ""


@dataclass
class Actual:
    """What is there now."""

    supervisor: dict[str, Any] | None = None
    client: WorkerClient | None = None
    """A client whose token the Worker accepts; None when the Worker does not answer or knows none of our tokens."""
    health: dict[str, Any] = field(default_factory=dict)
    """The answer of /api/health, or empty."""
    refuses: bool = False
    """Whether it answers, and takes none of our tokens."""
    build: str = ""
    """Digest of the build that the running workerd was started from."""

    @property
    def version(self) -> str | None:
        """The version of the Worker that answers."""
        version: str | None = self.health.get("worker", {}).get("version")
        return version


def hermes_change(
    variables: Mapping[str, str],
    actual: Actual,
    *,
    changed: bool,
    secrets: list[str],
    confines: bool | None = None,
) -> Change | None:
    """Return the restart of a running Hermes that a deploy brings; None when there is none.

    variables: of the Worker, as it should be; changed: whether it is to be given them; secrets: names of those that
    differ; confines: whether bubblewrap confines a Hermes that starts now.
    """
    restart = outstanding(actual.health)
    if changed or secrets:
        told = preview(actual.client, variables, secrets)
        restart = _guessed(variables, actual) if told is None else told
    restart = with_confinement(restart, actual.health, confines)
    if not restart:
        return None
    restarts = "" if restart.what == CONTENT else restart.words
    return Change("update", "hermes", restart.words, restarts)


def channels_change(settings: Settings, actual: Actual, url: str) -> Change | None:
    """Return that platforms are told where to send messages; None when they send them there.

    url: where others reach the deployment, empty when they do not. One that does not answer its own token, or a
    platform that does not answer, is told of by the deploy.
    """
    if actual.client is None:
        return None
    try:
        told = channels.register(actual.client, settings, url, look=True)
    except Card:
        return None
    wrong = [name for name, one in told.items() if one["changed"]]
    words = ", ".join(f"{name}: {told[name]['address'] or 'asked for'} was found" for name in wrong)
    return Change("update", "channels", words) if wrong else None


def _guessed(variables: Mapping[str, str], actual: Actual) -> Restart:
    """Return what can be told of a Worker that does not tell: which image its Hermes runs from, if any runs."""
    running = actual.health.get("instance", {})
    if running.get("state", "asleep") == "asleep":
        return Restart()
    if running.get("image") in (None, variables["HERMES_IMAGE"]):
        return Restart("hermes", provided=UNTOLD)
    return Restart("sandbox", ["a new image"])

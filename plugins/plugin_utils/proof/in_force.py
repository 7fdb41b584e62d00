# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a running Hermes has the deployed settings, what brings them, and what other settings would restart."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...module_utils.cards import Card
from ...module_utils.worker_client import CHANGE_SECONDS, Unreachable, WorkerClient
from .health import health
from .starting import starting_in

KNOWN_SECONDS = 60.0
"""How long a Worker that was just started may take until it has looked at its sandbox."""
IN_STEP_SECONDS = 360.0
"""How long the Worker's object may run with what was there before: Cloudflare defers its update for up to 300 s."""
UNTOUCHED_SECONDS = 5.0
"""The same where nobody is changing anything: somebody else's change may be about to arrive."""
POLL_SECONDS = 0.1
BEHIND = "its Durable Object still runs with the code, settings or secrets of before."
BUBBLEWRAP = "bubblewrap"
CONTENT = "content"
"""What Hermes reads when it needs it, and is laid beside the one that runs."""
STARTING = "unless the start under way still takes it"
UNTOLD = "where it has other settings: it did not tell"
WORDS = {
    CONTENT: "content, laid beside the running Hermes",
    "hermes": "Hermes",
    "sandbox": "Hermes in a new sandbox",
}


@dataclass(frozen=True)
class Restart:
    """What has to be restarted.

    what: nothing, content, hermes or sandbox; because: the variables behind it; provided: on what it depends, in
    words, empty where it is certain.
    """

    what: str = "nothing"
    because: list[str] = field(default_factory=list)
    provided: str = ""

    def __bool__(self) -> bool:
        return self.what != "nothing"

    @property
    def words(self) -> str:
        """What restarts and why, as a person reads it."""
        cause = f"because of {', '.join(self.because)}" if self.because else ""
        return ", ".join(filter(None, (WORDS[self.what], cause, self.provided)))

    @property
    def deed(self) -> str:
        """What a deploy does about it, as a person reads it."""
        return f"{'brings' if self.what == CONTENT else 'restarts'} {self.words}"


def preview(
    client: WorkerClient | None, variables: Mapping[str, str], secrets: list[str]
) -> Restart | None:
    """Return what these variables, and other values of these secrets, would restart besides the Worker.

    None when the Worker does not tell: it does not answer, or is of an earlier release. Of a Hermes that is starting
    nobody knows whether it gets them yet; another sandbox it takes in any case.
    """
    if client is None:
        return None
    body = {"variables": dict(variables), "secrets": secrets}
    try:
        answer = client.request("POST", "/api/instance/preview", body, timeout=20)
    except Unreachable:
        return None
    content = answer.json()
    if answer.status != 200 or "restart" not in content:
        return None
    certain = not content.get("starting") or content["restart"] in ("nothing", "sandbox")
    return Restart(content["restart"], content["because"], "" if certain else STARTING)


def outstanding(told: dict[str, Any], confines: bool | None = None) -> Restart:
    """Return what a running Hermes has to be restarted for.

    told: the answer of /api/health; confines: whether bubblewrap confines a Hermes that starts now, None where that is
    no question.
    """
    configuration = told.get("instance", {}).get("configuration")
    found = (
        Restart(configuration["restart"], configuration["differs"]) if configuration else Restart()
    )
    if found.what != "sandbox" and runs_another_image(told):
        found = Restart("sandbox", [*found.because, "a new image"])
    return with_confinement(found, told, confines)


def runs_another_image(told: dict[str, Any]) -> bool:
    """Tell whether Hermes runs from another image than its Worker names. told: the answer of /api/health."""
    instance, wanted = told.get("instance", {}), told.get("image")
    # One that boots has the image of now.
    is_up = instance.get("state") in ("awake", "saving") and instance.get("bootId")
    return bool(is_up and wanted and instance.get("image") not in (None, wanted))


def with_confinement(restart: Restart, told: dict[str, Any], confines: bool | None) -> Restart:
    """Return the restart that also brings a Hermes under bubblewrap, or out of it, as the machine is now."""
    confined = told.get("confined")
    if confines is None or confined is None or confined == confines:
        return restart
    return Restart("sandbox", [*restart.because, BUBBLEWRAP])


def is_known(told: dict[str, Any]) -> bool:
    """Tell whether the Worker has looked at what it runs: a sleeping Hermes takes its settings when it wakes.

    What an object says that has the settings of before itself is no answer.
    """
    if is_late(told):
        return False
    instance = told.get("instance", {})
    return instance.get("state") == "asleep" or instance.get("configuration") is not None


def is_late(told: dict[str, Any]) -> bool:
    """Tell whether the Worker's object says that it runs with what was there before. told: as is_known() takes it."""
    return told.get("instance", {}).get("inStep") is False


def stays_late(client: WorkerClient, told: dict[str, Any]) -> bool:
    """Tell whether an object that nobody brings up to date still is late in a moment. told: as is_known() takes it."""
    deadline = time.monotonic() + UNTOUCHED_SECONDS
    while is_late(told):
        if time.monotonic() > deadline:
            return True
        time.sleep(POLL_SECONDS)
        answer = health(client, timeout=10.0)
        told = answer.json() if answer is not None and answer.status == 200 else told
    return False


def wait_until_known(client: WorkerClient, name: str) -> dict[str, Any]:
    """Return /api/health once it tells whether the settings are in force. Raises a Card when it does not."""
    began = time.monotonic()
    while True:
        answer = health(client, timeout=10.0)
        told = answer.json() if answer is not None and answer.status == 200 else {}
        if is_known(told):
            return told
        late = is_late(told)
        if starting_in(told):
            # It is the platform's turn, for which the Worker has a patience of its own.
            began = time.monotonic()
        elif time.monotonic() > began + (IN_STEP_SECONDS if late else KNOWN_SECONDS):
            words = BEHIND if late else "the Worker does not tell which settings Hermes runs with."
            raise not_in_force(name, words)
        time.sleep(POLL_SECONDS)


def refresh(
    client: WorkerClient, name: str, restart: Restart, confines: bool | None = None
) -> None:
    """Bring a running Hermes to the deployed settings by the lightest restart. Raises a Card, also when it is busy.

    restart, confines: as outstanding() returned and takes it.
    """
    # Of what is installed on the machine the Worker knows nothing.
    what = "restart" if BUBBLEWRAP in restart.because else "refresh"
    try:
        answer = client.request("POST", f"/api/instance/{what}", timeout=CHANGE_SECONDS)
        complaint = "" if answer.status < 400 else answer.complaint()
    except Unreachable as error:
        complaint = str(error)
    left = outstanding(wait_until_known(client, name), confines)
    if left or complaint:
        names = ", ".join(left.because) or "the deployed settings"
        raise not_in_force(
            name, f"{names}: not in force in the running Hermes. {complaint}".strip()
        )


def not_in_force(
    name: str,
    sentence: str,
    remedy: str = "see its logs, then run the deploy again; it goes on where this one stopped.",
) -> Card:
    """Return the card for a Hermes that does not run with its settings."""
    return Card.of(
        name,
        sentence,
        remedy,
        "not-in-force",
        changed="Deployed, not verified.",
    )

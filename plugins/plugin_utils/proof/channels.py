# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the platforms by which people write send their messages to a deployment; the Worker asks them."""

from __future__ import annotations

from typing import Any

from ...module_utils.cards import Card, Problem
from ...module_utils.settings.platforms import PLATFORMS, Part
from ...module_utils.settings.settings import Settings
from ...module_utils.worker_client import Answer, Unreachable, WorkerClient

REGISTER_SECONDS = 60.0
"""Two or three calls of a platform's API."""


def register(
    client: WorkerClient, settings: Settings, url: str, *, look: bool
) -> dict[str, dict[str, Any]]:
    """Have the platforms send messages to where they should; returns what each says, and whether that was a change.

    url: where the deployment is reached from outside, empty when it is not; look: change nothing. Raises a Card.
    """
    if not settings.bots:
        return {}
    body = {"address": url, "look": look}
    try:
        answer = client.request("POST", "/api/instance/channels/register", body, REGISTER_SECONDS)
        told = answer.json() if answer.status == 200 else {}
        refused = told.get("refused", {}) if told else _refused(answer, settings)
    except Unreachable as error:
        told, refused = {}, {next(iter(settings.bots)): str(error)}
    if refused:
        problems = [_problem(name, why) for name, why in sorted(refused.items())]
        raise Card(problems, changed="Deployed, not verified.")
    return dict(told["registered"])


def _refused(answer: Answer, settings: Settings) -> dict[str, str]:
    """Return which platform a Worker complains of that names one only, as those of earlier releases do."""
    error = answer.json().get("error")
    param = error.get("param") if isinstance(error, dict) else None
    return {str(param or next(iter(settings.bots))): answer.complaint()}


def _problem(name: str, why: str) -> Problem:
    if name == "email":
        sentence = f"the Worker cannot use it: {why}"
        return Problem(f"hermes_channels.{name}", sentence, "run the deploy again.", "channels")
    return Problem(
        f"hermes_channels.{name}",
        f"{label(name)} was asked for the bot, and it does not work: {why}",
        f"mend hermes_channels.{name}.{_secret(name)}{_whence(name)}, or see whether this machine reaches"
        f" {label(name)}; then run the deploy again.",
        "channels",
    )


def label(name: str) -> str:
    """Return what people call a platform."""
    return PLATFORMS[name].label if name in PLATFORMS else name


def _secret(name: str) -> str:
    """Return what a platform most likely refuses: by what it is called."""
    return next((part.name for part in _parts(name) if part.secret), "token")


def _whence(name: str) -> str:
    return next((f" ({part.remedy})" for part in _parts(name) if part.secret), "")


def _parts(name: str) -> tuple[Part, ...]:
    return PLATFORMS[name].parts if name in PLATFORMS else ()


def withdraw(client: WorkerClient | None, kept: dict[str, str]) -> None:
    """Have platforms send no messages to a Worker that is about to know nothing of them.

    kept: the channels that stay. Where that does not work, they are told "no such channel" from then on.
    """
    if client is None:
        return
    try:
        answer = client.request("GET", "/api/instance/channels")
        told = answer.json().get("channels", {}) if answer.status == 200 else {}
        # Of a webhook no platform knows.
        gone = sorted({name for name in told if not name.startswith("hooks/")} - set(kept))
        if gone:
            names = "&".join(f"name={name}" for name in gone)
            path = f"/api/instance/channels/unregister?{names}"
            client.request("POST", path, timeout=REGISTER_SECONDS)
    except Unreachable:
        return


def row(name: str, told: dict[str, Any], url: str) -> tuple[str, str]:
    """Return how a channel works, for the card. told: as register() returned it; url: of the deployment."""
    if name.startswith("hooks/"):
        address = told["address"]
        return "webhook", address if "://" in address else f"{url}{address}"
    if name == "email":
        return name, f"write to {told['bot']}"
    how = f"messages come to {told['address']}" if told["address"] else "messages are asked for"
    if by_hand := name in PLATFORMS and PLATFORMS[name].by_hand:
        how = f"{how} (to be said at {by_hand})"
    return name, f"@{told['bot']}, {how}"

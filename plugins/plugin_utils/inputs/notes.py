# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody said that does nothing or is risky, told by the plan: no mistake for sure, so it is not refused."""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any

from ...module_utils.settings.catalogue import BATCHES, INPUTS, KNOWN_VARIABLES, SETTINGS
from ...module_utils.settings.checks import Checker
from ...module_utils.settings.settings import Settings
from ...module_utils.settings.values import NEAR, canonical


def _only(*where: str) -> tuple[str, ...]:
    """Return the variables that mean something in these places alone."""
    return tuple(setting.variable for setting in SETTINGS if setting.where in where)


WITHOUT_EFFECT: tuple[tuple[str, Callable[[Settings], bool], tuple[str, ...]], ...] = (
    ("on workerd", lambda chosen: chosen.platform == "workerd", _only("cloudflare")),
    (
        "on Cloudflare",
        lambda chosen: chosen.platform == "cloudflare",
        _only("workerd", "process", "docker"),
    ),
    (
        "with the process engine",
        lambda chosen: chosen.engine == "process",
        _only("containers", "docker"),
    ),
    (
        "with the docker engine",
        lambda chosen: chosen.engine == "docker",
        ("hermes_providers_port", "hermes_host_tools"),
    ),
    (
        "without hermes_dashboard",
        lambda chosen: not chosen.dashboard,
        ("hermes_dashboard_port", "hermes_dashboard_idle", "hermes_dashboard_origin"),
    ),
    (
        "without hermes_dashboard_hostname",
        lambda chosen: chosen.platform == "cloudflare" and not chosen.dashboard_hostname,
        ("hermes_route_mode", "hermes_take_over_hostname"),
    ),
    (
        "without hermes_provider_base_url",
        lambda chosen: not chosen.provider_base_url,
        ("hermes_context_length",),
    ),
    (
        "without hermes_ai_gateway",
        lambda chosen: not chosen.ai_gateway,
        ("hermes_ai_gateway_token",),
    ),
)
"""Where, when that is, and the variables that mean nothing there."""

CHANNELS = {
    "TELEGRAM_": ("Telegram", "python-telegram-bot"),
    "DISCORD_": ("Discord", "discord-py"),
    "SLACK_": ("Slack", "slack-bolt"),
    "MATRIX_": ("Matrix", "mautrix"),
    "DINGTALK_": ("DingTalk", "dingtalk-stream"),
    "FEISHU_": ("Feishu", "lark-oapi"),
    "TEAMS_": ("Teams", "microsoft-teams-apps"),
}
"""How the names of a channel's settings begin -> the channel, and the package that Hermes' adapter for it needs."""
OURS = frozenset({"Telegram", "Slack"})
"""The channels that hermes_channels knows, which wake Hermes."""
REMEDIES = {
    "Telegram": " hermes_channels reaches it, asleep too.",
    "Discord": " hermes_features: [messaging] brings it, for while Hermes is awake.",
    "Slack": " hermes_channels reaches it, asleep too.",
}
"""What else there is for a channel."""
RELAY = "GATEWAY_RELAY_URL"
"""A connector outside takes the channels' messages in, and needs no package in the image."""

SIZES = {
    "lite": (
        "lite has 256 MiB and a sixteenth of a processor. Hermes takes half of that memory, and its dashboard over a"
        " quarter; a tool that takes more than the rest has Hermes killed in the middle of its turn. The first answer"
        " after a wake takes over a minute."
    ),
    "basic": (
        "basic may not be started: Cloudflare's documentation says so, and its types say otherwise. Where it is not,"
        " Hermes does not start, and standard-1 is the next size that does."
    ),
}
"""What there is to know of a size of the container."""


def notes(checker: Checker, names: Iterable[str], lock: str) -> list[str]:
    """Return a line for each input that does nothing or is risky.

    names: of all variables of the host; lock: the text of the lock of what Hermes is installed with.
    """
    return [
        *_without_effect(checker),
        *_size(checker.settings),
        *_silent_channels(checker, installed(lock)),
        *_near_misses(names),
    ]


def _without_effect(checker: Checker) -> list[str]:
    found = []
    told: set[str] = set()
    for where, applies, variables in WITHOUT_EFFECT:
        given = [name for name in variables if _is_given(checker, name) and name not in told]
        if given and applies(checker.settings):
            found.append(f"{', '.join(given)}: without effect {where}.")
            told |= set(given)
    if checker.settings.platform == "workerd" and checker.settings.dashboard_hostname:
        found.append(
            "hermes_dashboard_hostname: on workerd nothing leads it here; the dashboard answers to it on hermes_port"
            " behind a proxy of your own."
        )
    # A play deals its hosts before it reads what is said of one.
    found += [
        f"{name}: without effect in an inventory; say -e {_argument(name, checker.raw[name])}."
        for name in BATCHES
        if checker.sources.get(name) == "inventory"
    ]
    return found


def _argument(name: str, value: Any) -> str:
    """Return a value as a command says it."""
    if isinstance(value, list):
        return shlex.quote(canonical({name: value}))
    return f"{name}={str(value).strip()}"


def _size(settings: Settings) -> list[str]:
    """Return what is said of a container in which Hermes has hardly room, and of one that may not be started."""
    if settings.platform != "cloudflare" or settings.instance_type not in SIZES:
        return []
    return [f"hermes_instance_type: {SIZES[settings.instance_type]}"]


def _is_given(checker: Checker, name: str) -> bool:
    """Tell whether somebody said something here; what is exported for other hosts or other tools does not count."""
    return checker.sources.get(name, "environment") != "environment" and bool(checker.raw.get(name))


def _silent_channels(checker: Checker, packages: set[str]) -> list[str]:
    secret = json.loads(checker.secrets.get("HERMES_SECRETS", "{}"))
    names = sorted({*checker.settings.env, *secret})
    if RELAY in names:
        return []
    found = []
    for prefix, (channel, package) in CHANNELS.items():
        given = [name for name in names if name.startswith(prefix)]
        if not given:
            continue
        shown = ", ".join(given)
        if package not in packages:
            found.append(
                f"{shown}: Hermes is installed without {package}, so its channel {channel} stays off."
                f"{REMEDIES.get(channel, '')}"
            )
        else:
            found.append(
                f"{shown}: Hermes' own channel {channel} hears nothing while Hermes sleeps."
                f"{' hermes_channels does.' if channel in OURS else ''}"
            )
    return found


def _near_misses(names: Iterable[str]) -> list[str]:
    """Return a line for each name without our prefix that is nearly one of ours, which nobody set."""
    names = set(names)
    missing = INPUTS - names
    bare = {
        name.removeprefix("hermes_"): name for name in missing & KNOWN_VARIABLES if _is_long(name)
    }
    found = []
    for name in sorted(names - INPUTS):
        if name.startswith(("hermes_", "preflight_", "ansible_")):
            continue  # judged elsewhere, or not ours
        close = difflib.get_close_matches(name, missing, 1, NEAR)
        meant = bare.get(name) or (close[0] if close and close[0] not in name else None)
        if meant:
            found.append(f"{name}: nothing here reads it; did you mean {meant}?")
    return found


def _is_long(name: str) -> bool:
    """Tell whether a name of ours is telling without its prefix, as `port` or `env` are not."""
    return "_" in name.removeprefix("hermes_")


def installed(lock: str) -> set[str]:
    """Return the names of the packages that a lock's text names."""
    return set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))

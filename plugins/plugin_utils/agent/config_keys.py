# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names in Hermes' config.yaml: which there are, and which a deployment has to have for itself."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from ...module_utils.settings.settings import Settings
from ...module_utils.settings.values import NEAR
from .config_names import ELSEWHERE, NAMES, VERSION

OWN_NAMES = ("moa.presets.",)
"""Settings in which people choose the names themselves, beside one that Hermes has there."""


def _read(lines: str) -> dict[str, list[str]]:
    """Return by what is in something the names in it."""
    found: dict[str, list[str]] = {}
    for line in lines.strip("\n").splitlines():
        parent, sign, names = line.rpartition("=")
        inner = found.setdefault(parent.strip(), []) if sign else found[[*found][-1]]
        inner += names.split()
    return found


_KNOWN = _read(NAMES)
ROOTS = frozenset(_KNOWN[""])
"""What Hermes reads at the top."""
_SOMEWHERE = frozenset(ELSEWHERE.split()).union(*_KNOWN.values())
OURS = {
    "model": "hermes_default_model decides it",
    **dict.fromkeys(
        ("providers", "custom_providers"),
        "calls would leave past the Worker; hermes_models and hermes_provider_base_url decide it",
    ),
    "mcp_servers": "hermes_mcp_servers has them",
    **dict.fromkeys(
        ("platforms.api_server", "gateway.platforms.api_server", "gateway.api_server"),
        "the Worker reaches Hermes by it",
    ),
    "gateway.scale_to_zero": "the Worker puts Hermes to sleep",
    **dict.fromkeys(
        ("gateway.restart_loop_guard", "gateway.respawn_storm"), "the sandbox limits restarts"
    ),
    **dict.fromkeys(
        ("security.tirith_enabled", "security.tirith_path"),
        "programs would be loaded while it runs",
    ),
    "security.allow_lazy_installs": "hermes_lazy_installs decides it",
    "agent.restart_drain_timeout": "hermes_drain_timeout decides it",
    "hooks_auto_accept": "nobody would be asked before a program runs",
    **dict.fromkeys(
        ("dashboard.basic_auth", "dashboard.oauth", "dashboard.drain_auth", "dashboard.public_url"),
        "the Worker signs people in",
    ),
    "cron.provider": "a sleeping Hermes is woken by what stands in its own jobs' file",
}
"""Dotted key -> why it is not for the inventory."""
OURS_WITHOUT_TOOLS = {
    "kanban.dispatch_in_gateway": "hermes_host_tools decides it in a process",
}
"""The same where Hermes has no tools that touch the machine."""
OF_ITS_OWN_FILE = (
    "approvals.discord_prompt_timeout",
    "browser",
    "code_execution",
    "discord.dm_role_auth_guild",
    "discord.voice_fx",
    "fallback_model",
    "fallback_providers",
    "plugins.hermes-memory-store",
    "security.allow_private_urls",
    "security.website_blocklist",
    "skills.config",
    "skills.disabled",
    "skills.external_dirs",
    "skills.platform_disabled",
    "terminal.credential_files",
    "terminal.daemon_term_grace_seconds",
    "terminal.env_passthrough",
)
"""Settings that Hermes reads past the pinned ones, from the file which the agent may change; a test finds new ones."""


def flat(config: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Return the dotted keys of a configuration with their values; an empty mapping is a value too."""
    for name, value in config.items():
        key = f"{before}{name}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{key}.")
        else:
            yield key, value


def unknown(
    config: Mapping[str, Any], settings: Settings, before: str = ""
) -> Iterator[tuple[str, str]]:
    """Return the dotted keys with names that Hermes does not have, each with what is meant by it, or an empty text.

    Further in than the top it is only known of names that are nearly Hermes' own, and no words of its code: it reads
    more than its defaults have. Of another version than the pinned one nothing is known there.
    """
    siblings = _KNOWN.get(before.rstrip("."), [])
    is_known = settings.version in ("", VERSION) and not settings.source
    for name, value in config.items():
        key = f"{before}{name}"
        if not before and name not in ROOTS:
            yield key, next(iter(difflib.get_close_matches(name, ROOTS, 1)), "")
            continue
        is_odd = before and is_known and before not in OWN_NAMES and name not in _SOMEWHERE
        close = difflib.get_close_matches(name, siblings, 1, NEAR) if is_odd else []
        if close:
            yield key, f"{before}{close[0]}"
        elif isinstance(value, Mapping):
            yield from unknown(value, settings, f"{key}.")


def key_flaw(key: str, strength: str, settings: Settings) -> tuple[str, str]:
    """Return what is wrong with a dotted key of Hermes', and what to do; two empty texts when nothing is."""
    bare = not settings.has_host_tools
    if bare and key == "agent.disabled_toolsets" and strength == "initial":
        return "is replaced by the deployment's own list in a process.", "write it under pinned."
    for one, why in (OURS | (OURS_WITHOUT_TOOLS if bare else {})).items():
        if _sets(key, one):
            return f"is not for the inventory: {why}.", f"remove {key}."
    if strength == "pinned" and any(_sets(key, one) for one in OF_ITS_OWN_FILE):
        return (
            "cannot be pinned: Hermes reads it from its own file alone.",
            "write it under initial.",
        )
    return "", ""


def _sets(key: str, one: str) -> bool:
    """Tell whether who sets a key sets another: what it is in, or something in it."""
    return f"{key}.".startswith(f"{one}.") or f"{one}.".startswith(f"{key}.")

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names in Hermes' config.yaml: which there are, and which a deployment has to have for itself."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from ...module_utils.settings.settings import Settings

_ROOTS = """
    agent always_log_local approvals auxiliary bedrock browser checkpoints code_execution command_allowlist compression
    computer_use context context_file_max_chars credential_pool_strategies cron curator custom_providers dashboard
    delegation desktop discord display fallback_model fallback_providers file_read_max_chars filter_silence_narration
    gateway goals group_sessions_per_user honcho hooks hooks_auto_accept human_delay image_gen kanban
    known_plugin_toolsets logging lsp matrix mattermost max_concurrent_sessions max_live_sessions mcp
    mcp_discovery_timeout mcp_servers memory moa model model_catalog multiplex_profiles network onboarding openrouter
    paste_collapse_char_threshold paste_collapse_threshold paste_collapse_threshold_fallback personalities
    platform_hints platform_toolsets platforms plugins prefill_messages_file privacy profile_routes prompt_caching
    providers quick_commands require_mention reset_triggers secrets security session_reset sessions signal skills slack
    smart_model_routing streaming stt stt_echo_transcripts telegram terminal thread_sessions_per_user timezone
    tool_loop_guardrails tool_output tools toolsets tts unauthorized_dm_behavior updates vertex video_gen voice web
    whatsapp x_search
    """
ROOTS = frozenset(_ROOTS.split())
"""What Hermes 0.19 reads at the top, but for the version of the file; a test holds it against Hermes' own list."""
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


def key_flaw(key: str, strength: str, settings: Settings) -> tuple[str, str]:
    """Return what is wrong with a dotted key, and what to do; two empty texts when nothing is."""
    root = key.partition(".")[0]
    if root not in ROOTS:
        close = difflib.get_close_matches(root, ROOTS, 1)
        hint = f"; did you mean {close[0]}?" if close else "."
        return f"Hermes has no such setting{hint}", f"rename or remove {key}."
    bare = settings.engine == "process" and not settings.host_tools
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

# SPDX-License-Identifier: Apache-2.0
"""What an inventory may say of Hermes' settings is as Hermes itself has it: their names, and which can be pinned."""

import ast
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.hermes.workers.plugins.plugin_utils.agent.config_keys import (
    OF_ITS_OWN_FILE,
    OURS,
    ROOTS,
)

from tools.config_names import FILE, ask, written

RUNNING = ("agent", "cron", "gateway", "plugins", "tools", "tui_gateway")
"""Folders of what runs for people; the rest of Hermes sets it up."""
READERS = {"read_raw_config", "_load_raw_config"}
"""Functions of Hermes that return its own file without what is pinned."""
MEMORY_STORE = "plugins.hermes-memory-store"
SKILLS_OFF = "skills.disabled skills.platform_disabled"
FALLBACK = "fallback_model fallback_providers"
READ: dict[str, str] = {
    **dict.fromkeys(
        (
            "tools/browser_camofox.py _config_cdp_url",
            "tools/browser_camofox.py _get_command_timeout",
            "tools/browser_tool.py _allow_private_urls",
            "tools/browser_tool.py _allow_unsafe_browser_evaluate",
            "tools/browser_tool.py _auto_local_for_private_urls",
            "tools/browser_tool.py _get_browser_engine",
            "tools/browser_tool.py _get_cdp_override",
            "tools/browser_tool.py _get_cloud_provider",
            "tools/browser_tool.py _get_command_timeout",
            "tools/browser_tool.py _get_dialog_policy_config",
            "tools/browser_tool.py _get_session_inactivity_timeout",
            "tools/browser_tool.py _is_headed_mode",
            "tools/browser_tool.py _maybe_start_recording",
            "tools/browser_tool.py _restrict_browser_evaluate",
            "tui_gateway/server.py _resolve_browser_cdp_url",
        ),
        "browser",
    ),
    "agent/coding_context.py _enabled_mcp_servers": "mcp_servers",
    "agent/skill_utils.py get_disabled_skill_names": SKILLS_OFF,
    "agent/skill_utils.py get_external_skills_dirs": "skills.external_dirs",
    "agent/skill_utils.py resolve_skill_config_values": "skills.config",
    "gateway/run.py _load_fallback_model": FALLBACK,
    "gateway/run.py _refresh_fallback_model": FALLBACK,
    "gateway/run.py _try_resolve_fallback_provider": f"{FALLBACK} model",
    "plugins/memory/holographic/__init__.py _load_plugin_config": MEMORY_STORE,
    "plugins/memory/holographic/__init__.py save_config": MEMORY_STORE,
    "plugins/platforms/discord/adapter.py _load_voice_fx_config": "discord.voice_fx",
    "plugins/platforms/discord/adapter.py _read_discord_prompt_timeout": "approvals.discord_prompt_timeout",
    "plugins/platforms/discord/adapter.py _read_dm_role_auth_guild": "discord.dm_role_auth_guild",
    "tools/code_execution_tool.py _load_config": "code_execution",
    "tools/credential_files.py _load_config_files": "terminal.credential_files",
    "tools/env_passthrough.py _load_config_passthrough": "terminal.env_passthrough",
    "tools/process_registry.py _daemon_term_grace_seconds": "terminal.daemon_term_grace_seconds",
    "tools/url_safety.py _global_allow_private_urls": "security.allow_private_urls browser",
    "tools/website_policy.py _load_policy_config": "security.website_blocklist",
    "tui_gateway/entry.py main": "mcp_servers",
    "tui_gateway/server.py _load_enabled_toolsets": "mcp_servers",
}
"""Function -> the settings that it reads past the pinned ones."""
WRITES_OR_LAYS = {
    "agent/onboarding.py mark_seen": "writes",
    "agent/skill_utils.py _load_raw_config": "is a reader",
    "cron/jobs.py _resolve_default_model_snapshot": "lays the pinned ones over it",
    "cron/scheduler.py run_job": "lays the pinned ones over it",
    "gateway/config.py load_gateway_config": "lays the pinned ones over it",
    "gateway/platforms/yuanbao.py handle": "writes",
    "gateway/readiness.py _probe_config": "looks whether it can be read",
    "gateway/run.py _bridge_max_turns_from_config": "lays the pinned ones over it",
    "gateway/run.py _load_gateway_config": "lays the pinned ones over it",
    "gateway/run.py _load_provider_routing": "reads no setting that an inventory may name",
    "gateway/run.py start_gateway": "tells in a log what in it is pinned",
    "gateway/slash_commands.py _finish_switch": "writes",
    "gateway/slash_commands.py _handle_rollback_command": "a command of the owner's",
    "gateway/slash_commands.py _on_model_selected_scoped": "writes",
    "gateway/slash_commands.py _save_gateway_config_key": "writes",
    "gateway/slash_commands.py _set_approval": "writes",
    "plugins/platforms/telegram/adapter.py _persist_dm_topic_thread_id": "writes",
    "plugins/platforms/telegram/adapter.py _reload_dm_topics_from_config": "topics that it made itself",
    "tui_gateway/server.py _load_cfg": "lays the pinned ones over it",
    "tui_gateway/server.py _profile_configured_cwd": "another profile's",
}
"""Function -> why it may read the file as it stands."""


def test_they_are_those_of_hermes(image: Path) -> None:
    python = image / "venv" / "bin" / "python"
    same = written(ask(python)) == FILE.read_text(encoding="utf-8")
    assert same, f"run .venv-test/bin/python -m tools.config_names {python}"


def test_what_hermes_reads_past_the_pinned_settings_cannot_be_pinned(image: Path) -> None:
    """Looked for in its source: a function that reads its own file anew is told by its name."""
    (packages,) = image.glob("venv/lib/python3*/site-packages")
    found = {}
    for folder in RUNNING:
        for path in sorted((packages / folder).rglob("*.py")):
            for name, roots in reading(path):
                found[f"{path.relative_to(packages)} {name}"] = roots
    assert found.keys() - WRITES_OR_LAYS.keys() == READ.keys()
    assert WRITES_OR_LAYS.keys() <= found.keys()
    settings = {name: set(said.split()) for name, said in READ.items()}
    unsaid = {
        name: roots - {one.partition(".")[0] for one in settings[name]}
        for name, roots in found.items()
        if name in READ
    }
    assert {name: roots for name, roots in unsaid.items() if roots} == {}
    read = {one for said in settings.values() for one in said}
    assert {one for one in read if one not in OURS} == set(OF_ITS_OWN_FILE)


def reading(path: Path) -> Iterator[tuple[str, set[str]]]:
    """Return each function of a module that reads Hermes' own file: its name, and the roots that it names."""
    source = path.read_text(encoding="utf-8")
    if "config" not in source:
        return
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        nodes = list(own_nodes(function))
        calls = {called(node): node for node in nodes if isinstance(node, ast.Call)}
        # The file's path and a reader of YAML in one function: it reads the file by itself.
        by_itself = calls.keys() & {"safe_load", "yaml_load"} and any(
            (isinstance(node, ast.Constant) and node.value == "config.yaml")
            or (isinstance(node, ast.Name) and "config_path" in node.id)
            for node in nodes
        )
        if by_itself or calls.keys() & READERS:
            yield function.name, {text for node in nodes for text in key_of(node)} & ROOTS


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """Return what is in a function, without the functions in it."""
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node
            yield from own_nodes(node)


def called(call: ast.Call) -> str:
    """Return the last name of what is called."""
    return getattr(call.func, "id", "") or getattr(call.func, "attr", "")


def key_of(node: ast.AST) -> Iterator[str]:
    """Return the texts by which something is looked up: `x.get("a")`, `cfg_get(x, "a", "b")`, `x["a"]`."""
    looked: list[ast.expr] = []
    if isinstance(node, ast.Call) and called(node) in ("get", "cfg_get"):
        looked = node.args
    elif isinstance(node, ast.Subscript):
        looked = [node.slice]
    for one in looked:
        if isinstance(one, ast.Constant) and isinstance(one.value, str):
            yield one.value

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings there are: their names, defaults, choices and limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .values import percentage_flaw, serial_flaw

DEFAULT_MODEL = "anthropic/claude-sonnet-4-5"
REHEARSAL_MODEL = "rehearsal/rehearsal"
DEFAULT_PORT = 8787
PROVIDERS_PORT_OFFSET = 10000
DASHBOARD_PORT_OFFSET = 1000
SIDECAR_IMAGE = "cloudflare/proxy-everything"
"""What workerd puts in front of a container's network, unless hermes_sidecar_image names another."""
API_BASE_URL = "https://api.cloudflare.com/client/v4"
INSTANCE_TYPES = ("standard-1", "lite", "basic", "standard-2", "standard-3", "standard-4")
"""Sizes of Cloudflare's containers; the first is the default."""
LOCATIONS = (
    "",
    "wnam",
    "enam",
    "sam",
    "weur",
    "eeur",
    "apac",
    "apac-ne",
    "apac-se",
    "oc",
    "afr",
    "me",
)
"""Where Cloudflare may make a Durable Object, in its own words; the first, nowhere in particular, is the default."""
UPLOADERS = ("auto", "wrangler", "plain")
PATH_BYTES = 1024
"""What every system takes; a component has its own limit of 255."""
CONTEXT_LENGTHS = (64_000, 10_000_000)
"""Tokens of a model's context; with fewer Hermes does not start a turn."""
NAME_LENGTH = 54
"""A Worker's name may have 63 characters; 54 leave room for the suffixes that preview addresses add."""
SUGGESTED_MODELS = {
    "anthropic": DEFAULT_MODEL,
    "openrouter": "openrouter/anthropic/claude-sonnet-4.5",
    "openai": "openai/gpt-5-mini",
}
KEY_VARIABLES = {
    "anthropic": "anthropic_api_key",
    "openrouter": "openrouter_api_key",
    "openai": "openai_api_key",
    "custom": "custom_api_key",
}
PROVIDERS = (*KEY_VARIABLES, "rehearsal")
KEY_NAMES = {variable: variable.upper() for variable in KEY_VARIABLES.values()}
"""Inventory variable of a provider's key -> name of the Worker's secret and of the environment variable."""
ENVIRONMENT = KEY_NAMES | {
    "cloudflare_api_token": "CLOUDFLARE_API_TOKEN",
    "cloudflare_api_base_url": "CLOUDFLARE_API_BASE_URL",
    "hermes_account_id": "CLOUDFLARE_ACCOUNT_ID",
    "hermes_docker_socket": "DOCKER_HOST",
}
"""Inventory variable -> the environment variable that is asked where the inventory does not mention it."""
SECRET_INPUTS = frozenset(KEY_NAMES) | {
    "cloudflare_api_token",
    "hermes_api_token",
    "hermes_ai_gateway_token",
    "hermes_secrets",
}
"""Inventory variables whose values are never shown, and stand in no task's arguments."""
VALUE_BYTES = 5120
"""Cloudflare's limit for a variable or a secret of a Worker."""
SECRET_VARIABLES = {name: variable for variable, name in KEY_NAMES.items()} | {
    "API_TOKEN": "hermes_api_token",
    "AI_GATEWAY_TOKEN": "hermes_ai_gateway_token",
    "HERMES_SECRETS": "hermes_secrets",
    "API_TOKEN_PREVIOUS": "hermes_api_token (the one before)",
}
"""Name of a Worker's secret -> the inventory variable that people know it by."""
AFTER_REBOOT = ("stay_down", "start", "start_with_keys")
PORT_VARIABLES = {
    "http": "hermes_port",
    "providers": "hermes_providers_port",
    "dashboard": "hermes_dashboard_port",
}
"""Name of a socket -> the inventory variable with its port."""
KNOWN_VARIABLES = frozenset(
    f"hermes_{name}"
    for name in (
        "access_audiences",
        "access_team_domain",
        "account_id",
        "action",
        "after_reboot",
        "ai_gateway",
        "ai_gateway_token",
        "allow_unauthenticated",
        "api_token",
        "backup",
        "backup_dir",
        "base_image",
        "cors_origins",
        "dashboard",
        "check_provider_key",
        "context_length",
        "dashboard_hostname",
        "dashboard_idle",
        "dashboard_origin",
        "dashboard_port",
        "default_model",
        "docker_socket",
        "drain_timeout",
        "egress",
        "engine",
        "env",
        "forget",
        "gateway_token",
        "host_tools",
        "instance_type",
        "location",
        "log_level",
        "log_lines",
        "log_raw",
        "log_since",
        "max_fail_percentage",
        "models",
        "name",
        "on_disconnect",
        "platform",
        "port",
        "provider",
        "provider_base_url",
        "provider_keys",
        "providers_port",
        "prune_images",
        "route_mode",
        "secrets",
        "serial",
        "sidecar_image",
        "sleep_after",
        "state_dir",
        "take_over_hostname",
        "token_command",
        "token_overlap",
        "token_vault_file",
        "uploader",
        "verify",
        "version",
    )
)
INPUTS = KNOWN_VARIABLES | frozenset(ENVIRONMENT)
"""Every inventory variable that this collection reads."""


def role_argument(variable: str) -> str | None:
    """Return the argument of the role preflight that stands in for an inventory variable; none for a secret."""
    if variable in SECRET_INPUTS:
        return None
    return f"preflight_{variable.removeprefix('hermes_').removeprefix('cloudflare_')}"


ROLE_VARIABLES = frozenset(filter(None, map(role_argument, INPUTS))) | {
    "preflight_inventory",
    "preflight_purpose",
    "preflight_result",
    "preflight_rotate",
}
"""What the role preflight reads and sets."""
OF_ONE_PLAY = ("hermes_action", "hermes_backup", "hermes_backup_dir")
"""What a playbook for an existing deployment hands on to its task."""
LATER_VARIABLES = (
    "hermes_gateway_token",
    "hermes_version",
)
"""Known, but without effect in this release: refused, because silence would promise what is not done."""
RESERVED_NAMES = ("backups",)
"""What lies beside the deployments in their state folder and could be a name; the rest begins with a dot."""
AI_GATEWAY = "https://gateway.ai.cloudflare.com/v1"
BATCHES: dict[str, tuple[Any, Callable[[Any], str], Any]] = {
    "hermes_serial": ("100%", serial_flaw, 10),
    "hermes_max_fail_percentage": (100, percentage_flaw, 25),
}
"""How a play goes through its hosts: variable -> what is without a word, what is wrong with a value, and an example."""

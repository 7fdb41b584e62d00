# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a provider whether it takes the key of the default model: one call that costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.hermes.workers.plugins.module_utils.errors import Problem
from ansible_collections.hermes.workers.plugins.module_utils.settings import (
    KEY_NAMES,
    KEY_VARIABLES,
    Settings,
)

try:
    import requests
except ImportError:
    requests = None

# Where each provider answers only to whoever has a valid key.
ADDRESSES = {
    "anthropic": ("https://api.anthropic.com", "/v1/models?limit=1"),
    "openai": ("https://api.openai.com/v1", "/models"),
    "openrouter": ("https://openrouter.ai/api/v1", "/key"),
    "custom": ("", "/models"),
}
TIMEOUT = (10.0, 20.0)


def refused_keys(settings: Settings, secrets: dict[str, str]) -> list[Problem]:
    """Return a problem when hermes_check_provider_key is set and the provider refuses the key.

    A provider that does not answer, or answers otherwise, proves nothing against the key.
    """
    provider = settings.provider
    key = secrets.get(KEY_NAMES.get(KEY_VARIABLES.get(provider, ""), ""))
    if not settings.check_provider_key or not key:
        return []
    base, path = ADDRESSES[provider]
    try:
        answer = requests.get(
            (settings.provider_base_url or base) + path,
            # As a callable, because requests would let a ~/.netrc win over a plain header.
            auth=_signed(provider, key),
            timeout=TIMEOUT,
            allow_redirects=False,
        )
    except requests.exceptions.RequestException:
        return []
    if answer.status_code not in (401, 403):
        return []
    variable = KEY_VARIABLES[provider]
    return [
        Problem(
            variable,
            f"{provider} refuses it with {answer.status_code} (the value is not shown).",
            f"set {variable} (or export {KEY_NAMES[variable]}) to a key that is valid for"
            f" {settings.default_model}.",
            "provider-refused",
        )
    ]


def _signed(provider: str, key: str) -> Callable[[Any], Any]:
    """Return what gives a request the key, and this key only."""

    def sign(request: Any) -> Any:
        request.headers.update(_headers(provider, key))
        return request

    return sign


def _headers(provider: str, key: str) -> dict[str, str]:
    if provider == "anthropic":
        return {"x-api-key": key, "anthropic-version": "2023-06-01"}
    return {"Authorization": f"Bearer {key}"}

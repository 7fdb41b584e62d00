# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which models answer, of which providers, and where these are reached."""

from __future__ import annotations

import difflib
import re
from typing import Any

from .catalogue import (
    AI_GATEWAY,
    CONTEXT_LENGTHS,
    DEFAULT_MODEL,
    KEY_NAMES,
    KEY_VARIABLES,
    PROVIDERS,
    REHEARSAL_MODEL,
    SUGGESTED_MODELS,
)
from .inputs import Inputs
from .values import GATEWAY, MODEL, show, url_flaw


def read_models(inputs: Inputs) -> None:
    """Read which model answers, and which others may be asked for."""
    provider = inputs.given("hermes_provider")
    if provider not in (None, "rehearsal"):
        inputs.problem(
            "hermes_provider",
            f"{show(provider)} is not rehearsal, its only value.",
            "name the provider in hermes_default_model, as provider/model.",
            "model",
        )
    further = _further_models(inputs)
    chosen = inputs.given("hermes_default_model")
    if provider == "rehearsal":
        _set_model(inputs, REHEARSAL_MODEL, "hermes_provider")
    elif chosen is not None:
        _chosen_model(inputs, chosen)
    else:
        _model_by_keys(inputs)
    if _names_custom(further) and inputs.settings.provider not in ("custom", "rehearsal"):
        inputs.problem(
            "hermes_models",
            f"a custom/ model cannot stand beside {inputs.settings.default_model}: both would go to"
            " hermes_provider_base_url.",
            "set hermes_default_model to a custom/ model too.",
            "model",
        )
    inputs.settings.models = [model for model in further if model != inputs.settings.default_model]


def _names_custom(models: list[str]) -> bool:
    return any(model.startswith("custom/") for model in models)


def _further_models(inputs: Inputs) -> list[str]:
    models = inputs.entries("hermes_models", "provider/model each", "model")
    good = [model for model in models if _model(inputs, "hermes_models", model)]
    for model in good:
        _need_key(inputs, "hermes_models", model)
    return list(dict.fromkeys(good))


def _model(inputs: Inputs, variable: str, model: Any) -> bool:
    """Tell whether a model is provider/model with a known provider; note the problem otherwise."""
    provider, _slash, name = str(model).partition("/")
    if not isinstance(model, str) or provider not in PROVIDERS:
        close = difflib.get_close_matches(provider, PROVIDERS, 1)
        example = f"{close[0]}/{name}" if close and name else DEFAULT_MODEL
        inputs.problem(
            variable,
            f"{show(model)} does not begin with a known provider ({', '.join(PROVIDERS)}).",
            f"write provider/model, for example {example}.",
            "model",
        )
        return False
    if not MODEL.fullmatch(name) or (provider == "rehearsal" and model != REHEARSAL_MODEL):
        example = SUGGESTED_MODELS.get(provider, f"{provider}/my-model")
        inputs.problem(
            variable,
            f"{show(model)} names no model of {provider}.",
            f"write provider/model, for example {REHEARSAL_MODEL if provider == 'rehearsal' else example}.",
            "model",
        )
        return False
    return True


def _chosen_model(inputs: Inputs, chosen: Any) -> None:
    if _model(inputs, "hermes_default_model", chosen):
        _need_key(inputs, "hermes_default_model", chosen)
        _set_model(inputs, chosen, inputs.sources.get("hermes_default_model", "inventory"))


def _need_key(inputs: Inputs, variable: str, model: str) -> None:
    provider = model.split("/", 1)[0]
    key = KEY_VARIABLES.get(provider)
    # A local endpoint often takes no key, so custom alone may go without one.
    if (
        key is None
        or provider == "custom"
        or KEY_NAMES[key] in inputs.secrets
        or inputs.raw.get(key)
        # The gateway may hold the providers' keys.
        or (inputs.raw.get("hermes_ai_gateway") and "AI_GATEWAY_TOKEN" in inputs.secrets)
    ):
        return
    inputs.problem(
        key,
        f"not set, but {variable} names {model}.",
        f"export {KEY_NAMES[key]}=..., or set {key} in the inventory (vaulted);"
        f" or set {variable} to a provider whose key you have.",
        "provider-key",
    )


def _model_by_keys(inputs: Inputs) -> None:
    """Choose the model when nobody named one: the default, if its key is there; rehearsal, if no key is."""
    present = [provider for provider, key in KEY_VARIABLES.items() if inputs.raw.get(key)]
    if "anthropic" in present:
        _set_model(inputs, DEFAULT_MODEL, "default")
    elif not present and not inputs.raw.get("hermes_provider_base_url"):
        _set_model(inputs, REHEARSAL_MODEL, "no provider key is set")
    elif present:
        provider = present[0]
        suggestion = SUGGESTED_MODELS.get(provider, "custom/my-model")
        inputs.problem(
            "hermes_default_model",
            f"not set; its default {DEFAULT_MODEL} needs {KEY_NAMES['anthropic_api_key']},"
            f" but only {', '.join(KEY_NAMES[KEY_VARIABLES[name]] for name in present)} is there.",
            f"set hermes_default_model, for example to {suggestion}.",
            "provider-key",
        )
    else:
        inputs.problem(
            "hermes_default_model",
            "not set, but hermes_provider_base_url is.",
            "set hermes_default_model, for example to custom/my-model.",
            "model",
        )


def _set_model(inputs: Inputs, model: str, source: str) -> None:
    inputs.settings.default_model = model
    inputs.sources["hermes_default_model"] = source


def read_base_url(inputs: Inputs) -> None:
    """Read where the provider is reached instead of at its own address."""
    url = inputs.text("hermes_provider_base_url", "provider-url")
    if not url:
        if _names_custom([inputs.settings.default_model, *inputs.settings.models]):
            inputs.problem(
                "hermes_provider_base_url",
                "not set, but a custom/ model is named.",
                "set hermes_provider_base_url to the endpoint, for example http://127.0.0.1:11434/v1.",
                "provider-url",
            )
        return
    flaw = url_flaw(url, by_name=True)
    if flaw:
        inputs.problem(
            "hermes_provider_base_url",
            flaw,
            "set hermes_provider_base_url to an address like https://api.example.com/v1"
            " or http://127.0.0.1:11434/v1.",
            "provider-url",
        )
        return
    inputs.settings.provider_base_url = url.rstrip("/")


def read_context_length(inputs: Inputs) -> None:
    """Read how much a model takes in that says nothing of that itself."""
    value = inputs.raw.get("hermes_context_length")
    if value in (None, ""):
        return
    text = str(value).strip()
    least, most = CONTEXT_LENGTHS
    if (
        not isinstance(value, (bool, float))
        and re.fullmatch(r"[0-9]{1,8}", text)
        and least <= int(text) <= most
    ):
        inputs.settings.context_length = int(text)
        return
    inputs.problem(
        "hermes_context_length",
        f"{show(value)} is not a number of tokens from {least} to {most}; Hermes works with no fewer.",
        "set hermes_context_length to what the model's server was started with, for example 131072"
        " (Ollama: OLLAMA_CONTEXT_LENGTH).",
        "model",
    )


def read_ai_gateway(inputs: Inputs) -> None:
    """Read Cloudflare's AI Gateway: account/gateway, or the address of one."""
    value = inputs.text("hermes_ai_gateway", "ai-gateway").rstrip("/")
    if not value:
        return
    url = f"{AI_GATEWAY}/{value}" if GATEWAY.fullmatch(value) else value
    if url_flaw(url):
        inputs.problem(
            "hermes_ai_gateway",
            f"{show(value)} is no gateway." if "@" not in value else "is no gateway.",
            "set hermes_ai_gateway to account-id/gateway-name.",
            "ai-gateway",
        )
    elif inputs.settings.provider_base_url or inputs.settings.provider_keys != "sealed":
        other = (
            "hermes_provider_base_url"
            if inputs.settings.provider_base_url
            else "hermes_provider_keys"
        )
        inputs.problem(
            "hermes_ai_gateway",
            f"cannot stand beside {other}: the Worker speaks to the gateway, with the keys that it holds.",
            f"remove one of the two: hermes_ai_gateway or {other}.",
            "ai-gateway",
        )
    else:
        inputs.settings.ai_gateway = url

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment is given in confidence, and the environment of Hermes; no value is ever shown."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from ..cards import Problem
from .catalogue import ENVIRONMENT, KEY_NAMES, SECRET_INPUTS
from .channels import read_channels
from .inputs import Inputs
from .values import ENV_NAME, RESERVED_ENV, SHOWN_NAME, canonical, key_flaw, secret_flaw

KNOWN_BY = {
    "telegram": ("bot", "token", True),
    "slack": ("app", "token", True),
    "discord": ("bot", "token", True),
    "whatsapp_cloud": ("app", "token", False),
    "sms": ("account", "authTokens", False),
    "email": ("address", "address", False),
}
"""Of a channel: as what Hermes' own would be the same one, by which part of it, and whether that takes libraries."""


def read_secrets(inputs: Inputs) -> None:
    """Read the secrets alone."""
    for variable, name in KEY_NAMES.items():
        _secret(inputs, variable, name)
    _secret(inputs, "hermes_api_token", "API_TOKEN")
    if 0 < len(inputs.secrets.get("API_TOKEN", "")) < 16:
        inputs.problem(
            "hermes_api_token",
            "is shorter than 16 characters.",
            "leave it out and one is generated, or set a longer one.",
            "api-token",
        )
    _secret(inputs, "hermes_ai_gateway_token", "AI_GATEWAY_TOKEN")
    _secret(inputs, "hermes_browser_url", "BROWSER_URL")
    _secret(inputs, "hermes_gateway_token", "GATEWAY_TOKEN")
    # What Hermes is given is made of it: a short one could be found out from there, by trying.
    if 0 < len(inputs.secrets.get("GATEWAY_TOKEN", "")) < 32:
        inputs.problem(
            "hermes_gateway_token",
            "is shorter than 32 characters.",
            "leave it out and a random key is taken at each start, or set a longer one.",
            "gateway-token",
        )
    _further_secrets(inputs)
    read = read_channels(inputs, on_cloudflare=inputs.settings.platform == "cloudflare")
    inputs.settings.bots, inputs.settings.channel_apis = read.bots, read.apis
    inputs.settings.mail_address, inputs.settings.mail_people = read.mail
    if read.worker:
        inputs.secrets["HERMES_CHANNELS"] = canonical(read.worker)


def _secret(inputs: Inputs, variable: str, name: str) -> None:
    """Keep a secret, or note what is wrong with it under the name by which it was given."""
    value = inputs.raw.get(variable)
    if value is None or value == "":
        return
    from_environment = inputs.sources.get(variable) == "environment"
    shown = ENVIRONMENT[variable] if from_environment else variable
    flaw = key_flaw(value)
    if flaw:
        inputs.problem(
            shown,
            f"{flaw} (the value is not shown).",
            f"set {shown} again; `tr -d '\\n'` removes a line break that a file ends with.",
            "secret-format",
        )
    else:
        inputs.secrets[name] = value


def _further_secrets(inputs: Inputs) -> None:
    kept = {}
    for name, value in sorted(inputs.mapping("hermes_secrets").items()):
        if not _env_name(inputs, "hermes_secrets", name):
            continue
        shown = f"hermes_secrets.{name}"
        flaw = secret_flaw(value) or ("is a placeholder" if value == "..." else "")
        if flaw:
            inputs.problem(
                shown,
                f"{flaw} (the value is not shown).",
                f"set {shown} again, as one line.",
                "secret-format",
            )
        else:
            kept[name] = value
    if kept:
        inputs.secrets["HERMES_SECRETS"] = canonical(kept)


def read_environment(inputs: Inputs) -> dict[str, str]:
    """Read what is set in Hermes' environment in the open."""
    kept = {}
    secret = inputs.raw.get("hermes_secrets")
    for name, value in sorted(inputs.mapping("hermes_env").items()):
        if not _env_name(inputs, "hermes_env", name):
            continue
        shown = f"hermes_env.{name}"
        if isinstance(secret, Mapping) and name in secret:
            inputs.problem(
                shown,
                "stands in hermes_secrets too, and Hermes has one environment.",
                "remove it from one of the two, hermes_env or hermes_secrets.",
                "inputs",
            )
            continue
        if isinstance(value, bool):
            kept[name] = "true" if value else "false"
        elif isinstance(value, (str, int, float)) and not re.search(r"[\0\r\n]", str(value)):
            kept[name] = str(value)
        else:
            inputs.problem(
                shown,
                "is not one line of text.",
                f"set {shown} to a text or a number.",
                "inputs",
            )
    return kept


def _env_name(inputs: Inputs, variable: str, name: str) -> bool:
    shown = f"{variable}.{name}"
    if not ENV_NAME.fullmatch(name):
        # Whoever mixed up names and values may have a secret for a name.
        is_shown = variable not in SECRET_INPUTS and SHOWN_NAME.fullmatch(name)
        inputs.problem(
            shown if is_shown else variable,
            "is not a name for an environment variable."
            if is_shown
            else "has a name that is none for an environment variable.",
            f"rename {shown if is_shown else 'it'}: letters, digits and underscores.",
            "inputs",
        )
        return False
    if RESERVED_ENV.fullmatch(name) or name in KEY_NAMES.values():
        inputs.problem(shown, "is set by the deployment itself.", f"remove {shown}.", "inputs")
        return False
    return True


def read_token_store(inputs: Inputs) -> None:
    """Read where a rotation writes the API token that the inventory gives."""
    settings = inputs.settings
    settings.token_vault_file = inputs.text("hermes_token_vault_file", "token-store")
    command = inputs.given("hermes_token_command")
    command = [] if command is None else command
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        inputs.problem(
            "hermes_token_command",
            "is not a list of words.",
            "write the program and its arguments as a list; the token comes on its standard input.",
            "token-store",
        )
    elif command and settings.token_vault_file:
        inputs.problem(
            "hermes_token_command",
            "stands beside hermes_token_vault_file: the token has one home.",
            "remove one of the two.",
            "token-store",
        )
    else:
        settings.token_command = list(command)


def note_heard_twice(inputs: Inputs) -> None:
    """Note a bot that Hermes listens as by itself, too: a platform hands each message to one of the two."""
    settings = inputs.settings
    listens = "messaging" in settings.features or settings.lazy_installs
    has_libraries = listens or "image" in settings.source
    channels = json.loads(inputs.secrets.get("HERMES_CHANNELS", "{}"))
    secrets = json.loads(inputs.secrets.get("HERMES_SECRETS", "{}"))
    given = [("hermes_env", settings.env), ("hermes_secrets", secrets)]
    for name, (what, part, by_library) in KNOWN_BY.items():
        if name not in channels or (by_library and not has_libraries):
            continue
        found = channels[name][part]
        its = found if isinstance(found, list) else [found]
        inputs.problems += [
            Problem(
                f"{variable}.{each}",
                f"is the {what} of hermes_channels.{name}, of which Hermes would take the messages by itself.",
                "leave it out: the channel needs nothing in there.",
                "channels",
            )
            for variable, values in given
            for each, value in values.items()
            if (str(value).lower() if name == "email" else value) in its
        ]

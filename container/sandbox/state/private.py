# SPDX-License-Identifier: Apache-2.0
"""Which of Hermes' files hold keys or sign-ins. They travel apart: no backup has them.

Names of Hermes' own lists of what its tools may not read, and of its channels and plugins.
"""

import os
import re

# At any depth: each of Hermes' profiles has a home of its own, and so may a skill.
_FILES = {
    ".anthropic_oauth.json",
    ".credentials.json",
    ".envrc",
    ".git-credentials",
    ".netrc",
    "auth.json",
    "credentials",
    "credentials.json",
    "google_chat_user_client_secret.json",
    "google_chat_user_oauth_pending.json",
    "google_chat_user_token.json",
    "google_client_secret.json",
    "google_oauth.json",
    "google_oauth_pending.json",
    "google_token.json",
    "honcho.json",
    "mem0.json",
    "node_token.json",
    "nodes.json",
    "nous_auth.json",
    "oauth_creds.json",
    "slack_tokens.json",
    "supermemory.json",
    "webhook_subscriptions.json",
}
_FOLDERS = {
    "google_chat_user_oauth_pending",
    "google_chat_user_tokens",
    "mcp-tokens",
    "pairing",
}
# In Hermes' home and in that of a profile: what its channels and their like know it by.
_HOME_FOLDERS = {"matrix", "platforms", "weixin", "whatsapp"}
_HOME_FILES = {"hindsight/config.json"}
# Of variables that say how to name them, there may be examples.
_EXAMPLES = (".example", ".sample", ".template", ".dist")
_CONFIG = "config.yaml"
_CONFIG_LIMIT = 1 << 20
# A name of a key and what stands there as its value, which may begin on the next line.
_KEY = re.compile(
    rb"""([\w.-]*(?:key|token|secret|passw|credential|authorization|cookie|bearer)[\w.-]*)["']?\s*:\s*"""
    rb"""(?:(?:[>|][-+\d]*|-|bearer|basic)\s+)*["']?(\$\{\w+\}|[^\s,}"']+)""",
    re.IGNORECASE,
)
_USER = re.compile(rb"://[^/\s\"']*:[^/\s\"']*@")
# The name of a variable, another key below this one, a number; and nothing so short is a secret.
_HARMLESS = re.compile(rb"\$\{\w+\}|.*:|[0-9._]+|.{0,7}", re.DOTALL)


def private(name: str, path: str) -> bool:
    """Tell whether an entry of Hermes' home holds keys or sign-ins."""
    parts = name.split("/")
    base, home = parts[-1], parts[2:] if parts[0] == "profiles" else parts
    if base in _FILES or not _FOLDERS.isdisjoint(parts):
        return True
    if not _HOME_FOLDERS.isdisjoint(home[:1]) or "/".join(home) in _HOME_FILES:
        return True
    if base == ".env" or (base.startswith(".env.") and not base.endswith(_EXAMPLES)):
        return True
    # Its owner's settings are state; a key that the dashboard wrote among them is none.
    return len(home) == 1 and base.startswith(_CONFIG) and _holds_key(path)


def _holds_key(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        text = file.read(_CONFIG_LIMIT + 1)
    if len(text) > _CONFIG_LIMIT or _USER.search(text):
        return True
    found = (match.groups() for match in _KEY.finditer(text))
    return any(
        not name.lower().endswith(b"_env") and not _HARMLESS.fullmatch(value)
        for name, value in found
    )

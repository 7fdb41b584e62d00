# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of the webhooks by which programs tell Hermes something."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .values import Reader, key_flaw

KINDS = ("github", "gitlab", "stripe", "svix", "hmac")
KEYS = ("kind", "secret", "prompt", "events", "session", "chat", "deliver_only")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", re.ASCII)
SHORTEST_SECRET = 8
MOST_SECRETS = 3
_FOURS = "(?:[A-Za-z0-9+/]{4})"
BASE64 = re.compile(f"{_FOURS}+(?:[A-Za-z0-9+/]{{2}}==|[A-Za-z0-9+/]{{3}}=)?")
ENCODED = "whsec_"
"""How a secret of Svix's begins that is in base64; the Worker decodes it."""


def read_hooks(
    reader: Reader, where: str, said: Mapping[str, Any], chats: Mapping[str, re.Pattern[str]]
) -> dict[str, Any]:
    """Return webhooks as the Worker reads them, by name.

    where: how the inventory calls them; chats: the channels in which Hermes may answer, and how each names a chat.
    """
    hooks = {}
    for name, hook in said.items():
        if not NAME.fullmatch(str(name)):
            reader.problem(
                where,
                "has a name that is no part of an address.",
                "name a webhook by small letters, digits and dashes, at most 40.",
                "channels",
            )
        elif not isinstance(hook, Mapping):
            reader.problem(
                f"{where}.{name}",
                "is not a mapping.",
                f"write {where}.{name} as kind: and secret:.",
                "channels",
            )
        else:
            hooks[str(name)] = _hook(reader, f"{where}.{name}", hook, chats)
    return hooks


def _hook(
    reader: Reader, shown: str, said: Mapping[str, Any], chats: Mapping[str, re.Pattern[str]]
) -> dict[str, Any]:
    def problem(key: str, sentence: str, remedy: str) -> None:
        reader.problem(f"{shown}.{key}", sentence, remedy, "channels")

    reader.known(shown, said, KEYS, "a setting of it")
    if said.get("kind") not in KINDS:
        listed = ", ".join(KINDS)
        problem("kind", "is not how a webhook is signed.", f"set {shown}.kind to one of {listed}.")
    prompt, session, events, chat = (
        nothing if said.get(key) in (None, "") else said[key]
        for key, nothing in (("prompt", ""), ("session", ""), ("events", []), ("chat", ""))
    )
    if not isinstance(prompt, str):
        problem("prompt", "is no text to YAML.", f"write {shown}.prompt in quotes, or with a |.")
    if session != "" and not NAME.fullmatch(str(session)):
        problem(
            "session", "is no name.", "name it by small letters, digits and dashes, at most 40."
        )
    if not isinstance(events, list) or not all(isinstance(one, str) for one in events):
        problem("events", "is no list of texts.", f"list names of events in {shown}.events.")
    chat = _chat(problem, chat, chats)
    deliver_only = said.get("deliver_only")
    if deliver_only is not None and not isinstance(deliver_only, bool):
        problem("deliver_only", "is neither true nor false.", f"set {shown}.deliver_only to true.")
    if chat and session != "":
        problem("session", "is given besides a chat, which is a session.", "leave one of them out.")
    if deliver_only is True and not chat:
        problem("deliver_only", "is true, but there is no chat.", f"set {shown}.chat, too.")
    return {
        "kind": said.get("kind"),
        "secrets": _secrets(problem, said.get("secret"), said.get("kind")),
        "prompt": prompt,
        "events": events,
        "session": str(session),
        "chat": chat,
        "deliverOnly": deliver_only is True,
    }


def _secrets(problem: Any, said: Any, kind: Any) -> list[str]:
    """Return the secrets that are good, of a text or of a list of some: the new and the old one."""
    secrets = said if isinstance(said, list) else [said]
    if any(key_flaw(one) or len(one) < SHORTEST_SECRET for one in secrets) or not secrets:
        problem(
            "secret",
            f"is no secret of at least {SHORTEST_SECRET} characters (the value is not shown).",
            "set it to what its sender signs with, vaulted.",
        )
    elif len(secrets) > MOST_SECRETS:
        problem("secret", f"lists more than {MOST_SECRETS}.", "leave those out that are over.")
    elif kind == "svix" and any(_is_cut(one) for one in secrets):
        problem(
            "secret",
            f"begins with {ENCODED} and is no base64 after it (the value is not shown).",
            "copy the whole of it again.",
        )
    return secrets


def _is_cut(secret: str) -> bool:
    """Tell whether a secret is not what its beginning says."""
    encoded = secret.removeprefix(ENCODED)
    return encoded != secret and not BASE64.fullmatch(encoded)


def _chat(problem: Any, said: Any, chats: Mapping[str, re.Pattern[str]]) -> dict[str, str] | None:
    if said == "":
        return None
    platform, _colon, chat = str(said).partition(":")
    if platform not in chats:
        problem(
            "chat",
            "is in no channel that is declared.",
            "write it as telegram:123456789, and declare that channel in hermes_channels.",
        )
    elif not chats[platform].fullmatch(chat):
        problem(
            "chat", f"is no chat of {platform}.", f"write it as {platform}: and its number or id."
        )
    return {"platform": platform, "id": chat}

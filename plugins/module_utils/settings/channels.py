# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of the channels by which people write to Hermes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .hooks import read_hooks
from .values import Reader, key_flaw

VARIABLE = "hermes_channels"
CHANNELS = ("telegram", "hooks")
RECEIVES = ("webhook", "poll")
TELEGRAM_KEYS = ("token", "allow", "receive")
TELEGRAM_TOKEN = re.compile(r"(\d{1,20}):[\w-]{20,100}", re.ASCII)
"""A bot's number and its secret (core.telegram.org/bots/features#botfather)."""
TELEGRAM_ID = re.compile(r"-?\d{1,20}", re.ASCII)
"""A person's number, or a group's, which is negative."""


def read_channels(reader: Reader, *, on_cloudflare: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the channels as the Worker reads them, and of each the number of its bot.

    on_cloudflare: whether platforms reach the Worker in any case, and one that asks them would be paid for. What is
    wrong is noted by the reader; no value of a token is in its words.
    """
    declared = reader.mapping(VARIABLE)
    channels: dict[str, Any] = {}
    bots: dict[str, str] = {}
    reader.known(VARIABLE, declared, CHANNELS, "a channel")
    telegram = _part(reader, declared, "telegram", "token: and allow:")
    if telegram is not None:
        _way(reader, telegram.get("receive"), on_cloudflare)
        channels["telegram"], bots["telegram"] = _telegram(reader, telegram)
    hooks = _part(reader, declared, "hooks", "a name for each: with kind: and secret:")
    if hooks:
        chats = {"telegram": TELEGRAM_ID} if telegram is not None else {}
        channels["hooks"] = read_hooks(reader, f"{VARIABLE}.hooks", hooks, chats)
        bots["webhook"] = "worker"
    return channels, bots


def _part(
    reader: Reader, declared: Mapping[str, Any], name: str, words: str
) -> Mapping[str, Any] | None:
    value = declared.get(name)
    if value is None or isinstance(value, Mapping):
        return value
    shown = f"{VARIABLE}.{name}"
    reader.problem(shown, "is not a mapping.", f"write {shown} as {words}.", "channels")
    return None


def _telegram(reader: Reader, said: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    shown = f"{VARIABLE}.telegram"
    reader.known(shown, said, TELEGRAM_KEYS, "a setting of it")
    token = said.get("token")
    match = None if key_flaw(token) else TELEGRAM_TOKEN.fullmatch(str(token))
    if match is None:
        reader.problem(
            f"{shown}.token",
            "is no token of a bot: a number, a colon, a secret (the value is not shown).",
            f"ask @BotFather in Telegram for one (/newbot), and set {shown}.token, vaulted.",
            "channels",
        )
    receive = said.get("receive") or ""
    if receive and receive not in RECEIVES:
        reader.problem(
            f"{shown}.receive",
            f"is not one of {', '.join(RECEIVES)}.",
            f"leave {shown}.receive out, or set it to one of {', '.join(RECEIVES)}.",
            "channels",
        )
    allow = _allowed(reader, shown, said.get("allow"))
    return {"token": token, "allow": allow, "receive": receive}, match.group(1) if match else ""


def _way(reader: Reader, receive: Any, on_cloudflare: bool) -> None:
    shown = f"{VARIABLE}.telegram.receive"
    if receive == "poll" and on_cloudflare:
        reader.problem(
            shown,
            "is poll: a Worker on Cloudflare that asks for messages never rests, and is paid for it all day.",
            f"leave {shown} out: Telegram sends them there.",
            "channels",
        )
    elif receive == "webhook" and not on_cloudflare and not reader.given("hermes_public_url"):
        reader.problem(
            shown,
            "is webhook, but Telegram does not reach this machine.",
            f"set hermes_public_url to where a tunnel or proxy leads here from, or leave {shown} out: the messages are"
            " asked for.",
            "channels",
        )


def _allowed(reader: Reader, shown: str, said: Any) -> list[str]:
    """Return who may write, by number. Nobody is refused: a channel for nobody is a mistake."""
    allowed = [str(one) for one in said] if isinstance(said, list) else []
    if not allowed or any(
        isinstance(one, bool) or not TELEGRAM_ID.fullmatch(str(one)) for one in said
    ):
        reader.problem(
            f"{shown}.allow",
            "lists nobody who may write."
            if not allowed
            else "lists something other than numbers: names in Telegram change hands.",
            f"list your own number in {shown}.allow (@userinfobot tells it), and those of others or of groups.",
            "channels",
        )
    return allowed

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of the channels by which people write to Hermes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..cards import Problem
from .hooks import read_hooks
from .platforms import PLATFORMS, TELEGRAM_TOKEN, Platform
from .values import Reader, key_flaw, url_flaw

VARIABLE = "hermes_channels"
CHANNELS = (*PLATFORMS, "hooks")
RECEIVES = ("webhook", "poll")
OWN_API = "api_url"
"""Where a platform's API is served, for who has one of their own; Telegram's is a variable."""
PAIRING = "pairing"
"""Whether strangers are given a code, by which the owner may let them in."""


@dataclass
class Channels:
    """What was declared.

    worker: as the Worker reads it; bots: of each channel whom Hermes speaks as there, which is no secret; apis: servers
    of platforms' APIs that are the owner's; mail: our own mail address, and who may write there.
    """

    worker: dict[str, Any] = field(default_factory=dict)
    bots: dict[str, str] = field(default_factory=dict)
    apis: list[str] = field(default_factory=list)
    mail: tuple[str, list[str]] = ("", [])


def read_channels(reader: Reader, *, on_cloudflare: bool) -> Channels:
    """Return the channels that are declared.

    on_cloudflare: whether platforms reach the Worker in any case, and one that asks them would be paid for. What is
    wrong is noted by the reader; no value of a token is in its words.
    """
    declared = reader.mapping(VARIABLE)
    read = Channels()
    chats = {}
    reader.known(VARIABLE, declared, CHANNELS, "a channel")
    for name, platform in PLATFORMS.items():
        needs = " and ".join(
            f"{key}:" for key in (*(part.name for part in platform.parts), "allow")
        )
        said = _part(reader, declared, name, needs)
        if said is None:
            continue
        chats[name] = platform.who
        found = _platform(reader, name, platform, said)
        if name == "telegram":
            found["receive"] = _receive(reader, said.get("receive"), on_cloudflare)
            match = TELEGRAM_TOKEN.fullmatch(str(found["token"]))
            read.bots[name] = match.group(1) if match else ""
        else:
            read.bots[name] = str(found.get(platform.bot) or "worker")
            _reached(reader, name, platform, on_cloudflare)
            if name == "email":
                read.mail = _mail(reader, found)
                # Nobody else is ever written to.
                chats[name] = re.compile("|".join(map(re.escape, found["allow"])))
            read.apis += [found["apiUrl"]] if "apiUrl" in found else []
        read.worker[name] = found
    hooks = _part(reader, declared, "hooks", "a name for each: with kind: and secret:")
    if hooks:
        read.worker["hooks"] = read_hooks(reader, f"{VARIABLE}.hooks", hooks, chats)
        read.bots["webhook"] = "worker"
    return read


def shared_bots(deployments: Mapping[str, Channels]) -> list[Problem]:
    """Return the problems of bots that several hosts of one inventory have: a platform has one address for each.

    deployments: host -> what was declared of its channels.
    """
    taken: dict[tuple[str, str], str] = {}
    problems = []
    for host, read in deployments.items():
        for name in read.worker.keys() & PLATFORMS.keys():
            # Of Slack's only the token says which bot it is; it is compared, and never told.
            known = name == "telegram" or PLATFORMS[name].bot
            bot = str(read.bots[name] if known else read.worker[name]["token"])
            if bot in ("", "worker", "None"):
                continue  # nothing was said, which the host's own check tells
            other = taken.setdefault((name, bot), host)
            if other != host:
                problems.append(
                    Problem(
                        f"{VARIABLE}.{name}",
                        f"{other} and {host} both have the same one, whose messages reach one of them only.",
                        "give each host one of its own.",
                        "channels",
                    )
                )
    return sorted(problems, key=lambda one: one.subject)


def _part(
    reader: Reader, declared: Mapping[str, Any], name: str, words: str
) -> Mapping[str, Any] | None:
    if name not in declared:
        return None
    value = declared[name]
    if isinstance(value, Mapping):
        return value
    shown = f"{VARIABLE}.{name}"
    # What was to be written below it is missing, or further left than it should be.
    flaw = "says nothing." if value is None else "is not a mapping."
    reader.problem(shown, flaw, f"write {shown} as {words}, or leave it out.", "channels")
    return None


def _platform(
    reader: Reader, name: str, platform: Platform, said: Mapping[str, Any]
) -> dict[str, Any]:
    shown = f"{VARIABLE}.{name}"
    further = () if platform.is_cloudflares else (PAIRING, OWN_API)
    if name == "telegram":
        further = (PAIRING, "receive")
    keys = (*(part.name for part in platform.parts), "allow", "home", *further)
    reader.known(shown, said, keys, "a setting of it")
    found: dict[str, Any] = {}
    for part in platform.parts:
        given = said.get(part.name)
        values = given if part.several and isinstance(given, list) else [given]
        # A number is text to the platforms; True is none.
        texts = [
            str(one)
            if isinstance(one, int) and not isinstance(one, bool) and not part.secret
            else one
            for one in values
        ]
        if not texts or any(key_flaw(one) or not part.pattern.fullmatch(str(one)) for one in texts):
            hidden = " (the value is not shown)" if part.secret else ""
            vaulted = ", vaulted" if part.secret else ""
            reader.problem(
                f"{shown}.{part.name}",
                f"{part.flaw}{hidden}.",
                f"{part.remedy}, and set {shown}.{part.name}{vaulted}.",
                "channels",
            )
        found[part.worker] = texts if part.several else texts[0]
    pairing = _pairing(reader, shown, said.get(PAIRING, False))
    found |= {PAIRING: True} if pairing else {}
    nobody = pairing and said.get("allow") in (None, [])
    found["allow"] = [] if nobody else _allowed(reader, shown, platform, said.get("allow"))
    if home := _home(reader, shown, platform, said.get("home")):
        found["home"] = home
    if name == "email":  # its addresses have no capitals
        found |= {key: value.lower() for key, value in found.items() if isinstance(value, str)}
        found["allow"] = [one.lower() for one in found["allow"]]
    if name == "whatsapp_cloud":  # its numbers have no plus
        found["allow"] = [one.lstrip("+") for one in found["allow"]]
        found |= {"home": home.lstrip("+")} if home else {}
    if OWN_API in keys and said.get(OWN_API) not in (None, ""):
        url = str(said[OWN_API]).rstrip("/")
        if flaw := url_flaw(url):
            remedy = (
                f"leave {shown}.{OWN_API} out, or set it to an address of {platform.label}'s API."
            )
            reader.problem(f"{shown}.{OWN_API}", flaw, remedy, "channels")
        else:
            found["apiUrl"] = url
    return found


def _mail(reader: Reader, found: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return our own mail address, and who may write there; note what does not go together."""
    address, allow = str(found["address"]), list(found["allow"])
    shown = f"{VARIABLE}.email"
    if address in allow:
        reader.problem(
            f"{shown}.allow", "lists Hermes' own address.", "leave that out of it.", "channels"
        )
    if "home" in found and found["home"] not in allow:
        reader.problem(
            f"{shown}.home",
            "is not among those who may write, and mails go to nobody else.",
            f"list it in {shown}.allow, too.",
            "channels",
        )
    return address, sorted(set(allow))


def _pairing(reader: Reader, shown: str, said: Any) -> bool:
    """Return whether strangers are given a code."""
    if not isinstance(said, bool):
        remedy = f"set {shown}.{PAIRING} to true, or leave it out: strangers learn nothing."
        reader.problem(f"{shown}.{PAIRING}", "is not true or false.", remedy, "channels")
    return said is True


def _reached(reader: Reader, name: str, platform: Platform, on_cloudflare: bool) -> None:
    """Note a platform that sends its messages, and does not reach this machine."""
    if platform.is_cloudflares and not on_cloudflare:
        reader.problem(
            f"{VARIABLE}.{name}",
            f"is declared, but {platform.label} hands mails to a Worker at Cloudflare, and to none on this machine.",
            f"leave {VARIABLE}.{name} out, or deploy with hermes_platform: cloudflare.",
            "channels",
        )
    elif not on_cloudflare and not reader.given("hermes_public_url"):
        reader.problem(
            f"{VARIABLE}.{name}",
            f"is declared, but {platform.label} does not reach this machine, and cannot be asked for messages.",
            "set hermes_public_url to where a tunnel or proxy leads here from.",
            "channels",
        )


def _receive(reader: Reader, receive: Any, on_cloudflare: bool) -> str:
    """Return how messages of Telegram's come; empty = as the deployment can be reached."""
    shown = f"{VARIABLE}.telegram.receive"
    if receive in (None, ""):
        return ""
    if receive not in RECEIVES:
        reader.problem(
            shown,
            f"is not one of {', '.join(RECEIVES)}.",
            f"leave {shown} out, or set it to one of {', '.join(RECEIVES)}.",
            "channels",
        )
    elif receive == "poll" and on_cloudflare:
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
    return str(receive)


def _home(reader: Reader, shown: str, platform: Platform, said: Any) -> str:
    """Return the chat for what Hermes sends on its own account; empty = none."""
    if said in (None, ""):
        return ""
    if isinstance(said, bool) or not platform.who.fullmatch(str(said)):
        reader.problem(
            f"{shown}.home",
            f"is no chat of {platform.label}.",
            f"set {shown}.home to one number or ID, as {shown}.allow lists them, or leave it out.",
            "channels",
        )
    return str(said)


def _allowed(reader: Reader, shown: str, platform: Platform, said: Any) -> list[str]:
    """Return who may write. Nobody is refused: a channel for nobody is a mistake."""
    if said not in (None, "") and not isinstance(said, list):
        remedy = f"write it as one, like {shown}: [...], also for one alone: {platform.ask}."
        reader.problem(f"{shown}.allow", "is no list.", remedy, "channels")
        return []
    allowed = [str(one) for one in said or []]
    if not allowed or any(
        isinstance(one, bool) or not platform.who.fullmatch(str(one)) for one in said
    ):
        reader.problem(
            f"{shown}.allow",
            platform.whom if allowed else "lists nobody who may write.",
            f"{platform.ask}, in {shown}.allow.",
            "channels",
        )
    return allowed

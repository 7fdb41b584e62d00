# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The platforms by which people write to Hermes: what each gives its owner, and the Worker needs of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAIL_ADDRESS = re.compile(
    r"[a-z0-9.!#$%'*+/=?^_`{|}~-]{1,64}@[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})+",
    re.ASCII | re.IGNORECASE,
)
LONG_NUMBER = re.compile(r"\d{15,25}", re.ASCII)


@dataclass(frozen=True)
class Part:
    """Something that a platform gives its owner.

    flaw: what is said of a value that is none; remedy: where the right one is; several: whether the new and the old one
    may be listed; secret: whether it is never shown.
    """

    name: str
    pattern: re.Pattern[str]
    flaw: str
    remedy: str
    several: bool = False
    secret: bool = True

    @property
    def worker(self) -> str:
        """Its name in the Worker."""
        first, *others = self.name.split("_")
        return first + "".join(map(str.capitalize, others)) + ("s" if self.several else "")


def digits(name: str, remedy: str, count: int = 32, **more: bool) -> Part:
    """Return a part that is so many hexadecimal digits."""
    pattern = re.compile(rf"[0-9a-f]{{{count}}}", re.ASCII)
    flaw = f"is no {name.replace('_', ' ')}: {count} digits from 0 to f"
    return Part(name, pattern, flaw, remedy, **more)


@dataclass(frozen=True)
class Platform:
    """A platform.

    who: one who may write; whom: what is said of somebody who is none; ask: where people find it; by_hand: where a
    person tells the platform the address, empty where the deploy does; bot: of what the bot is known, which is no
    secret; is_cloudflares: whether it is a service of Cloudflare's, for Workers there.
    """

    label: str
    parts: tuple[Part, ...]
    who: re.Pattern[str]
    whom: str
    ask: str
    by_hand: str = ""
    bot: str = ""
    is_cloudflares: bool = False


TELEGRAM_TOKEN = re.compile(r"(\d{1,20}):[\w-]{20,100}", re.ASCII)
"""A bot's number and its secret (core.telegram.org/bots/features#botfather)."""

PLATFORMS = {
    "telegram": Platform(
        "Telegram",
        (
            Part(
                "token",
                TELEGRAM_TOKEN,
                "is no token of a bot: a number, a colon, a secret",
                "ask @BotFather in Telegram for one (/newbot)",
            ),
        ),
        re.compile(r"-?\d{1,20}", re.ASCII),
        "lists something other than numbers: names in Telegram change hands.",
        "list your own number (@userinfobot tells it), and those of others or of groups",
    ),
    "slack": Platform(
        "Slack",
        (
            Part(
                "token",
                re.compile(r"xoxb-[\w-]{10,250}", re.ASCII),
                "is no token of an app's bot, which begins with xoxb-",
                "copy it at api.slack.com/apps from OAuth & Permissions",
            ),
            digits(
                "signing_secret",
                "copy it at api.slack.com/apps from Basic Information",
                several=True,
            ),
        ),
        re.compile(r"[UWCGD][A-Z0-9]{2,20}"),
        "lists something other than ids: names in Slack change.",
        "list your own member ID (your profile in Slack, Copy member ID), and those of others or of channels",
        by_hand="api.slack.com/apps, Event Subscriptions",
    ),
    "whatsapp_cloud": Platform(
        "WhatsApp",
        (
            Part(
                "token",
                re.compile(r"\S{20,1000}", re.ASCII),
                "is no access token",
                "make a system user for the app in the Meta Business Suite, and a token of it",
            ),
            digits(
                "app_secret", "copy it at developers.facebook.com/apps from App settings, Basic"
            ),
            Part(
                "verify_token",
                re.compile(r"[\w.-]{8,200}", re.ASCII),
                "is no word of at least 8 letters, digits, dots and dashes",
                "make one up",
            ),
            Part(
                "phone_number_id",
                re.compile(r"\d{5,25}", re.ASCII),
                "is no ID of a phone number, which is no phone number",
                "copy it at developers.facebook.com/apps from WhatsApp, API Setup",
                secret=False,
            ),
        ),
        re.compile(r"\+?\d{5,15}", re.ASCII),
        "lists something other than phone numbers.",
        "list your own phone number with its country's code, in quotes ('491701234567')",
        by_hand="developers.facebook.com/apps, WhatsApp, Configuration",
        bot="phoneNumberId",
    ),
    "sms": Platform(
        "Twilio",
        (
            Part(
                "account_sid",
                re.compile(r"AC[0-9a-f]{32}", re.ASCII),
                "is no account SID, which begins with AC",
                "copy it from console.twilio.com",
                secret=False,
            ),
            digits("auth_token", "copy it from console.twilio.com", several=True),
            Part(
                "number",
                re.compile(r"\+\d{5,15}", re.ASCII),
                "is no phone number with a plus",
                "copy it from console.twilio.com, in quotes ('+15005550006')",
                secret=False,
            ),
        ),
        re.compile(r"\+\d{5,15}", re.ASCII),
        "lists something other than phone numbers with a plus.",
        "list your own phone number, in quotes ('+491701234567')",
        bot="number",
    ),
    "discord": Platform(
        "Discord",
        (
            Part(
                "token",
                re.compile(r"[\w.-]{50,200}", re.ASCII),
                "is no token of an application's bot",
                "reset and copy it at discord.com/developers/applications from Bot",
            ),
            Part(
                "application_id",
                LONG_NUMBER,
                "is no application ID",
                "copy it at discord.com/developers/applications, in quotes",
                secret=False,
            ),
            digits(
                "public_key", "copy it at discord.com/developers/applications", 64, secret=False
            ),
        ),
        LONG_NUMBER,
        "lists something other than IDs: names in Discord change.",
        "list your own user ID (Discord's developer mode, Copy User ID), and those of others, channels or servers",
        bot="applicationId",
    ),
    "email": Platform(
        "Email Routing",
        (
            Part(
                "address",
                MAIL_ADDRESS,
                "is no mail address",
                "choose one in a domain of your account at Cloudflare (hermes@example.com)",
                secret=False,
            ),
        ),
        MAIL_ADDRESS,
        "lists something other than mail addresses.",
        "list your own mail address, and those of others",
        bot="address",
        is_cloudflares=True,
    ),
}
"""By the names that inventories call them by."""

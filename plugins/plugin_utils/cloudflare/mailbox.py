# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment's mail address: the rule of Email Routing that hands its mails to the Worker; another's is left alone.

Like a hostname it is written down as a tag of the Worker before its rule is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...module_utils.cards import Problem
from ...module_utils.cloudflare import email_routing, scripts, zones
from ...module_utils.settings.settings import Settings
from .account import Account, domain_of
from .tags import Tagged

MAIL_TAG = f"{scripts.TAG}.mail:"
VARIABLE = "hermes_channels.email"
BROKEN = ("unconfigured", "misconfigured", "misconfigured/locked")
"""What Cloudflare says of a zone to which no mail comes."""
DASHBOARD = "in Cloudflare's dashboard (Compute, Email Service, Email Routing"


@dataclass(frozen=True)
class Step:
    """One thing to do for an address. action, words: for the plan."""

    address: str
    action: str
    words: str


def owned(tags: list[str]) -> list[str]:
    """Return the addresses that were given to a deployment, by its Worker's tags."""
    return [tag.removeprefix(MAIL_TAG) for tag in tags if tag.startswith(MAIL_TAG)]


def named(settings: Settings, tags: list[str]) -> list[str]:
    """Return the addresses that are noted while one moves: those of before, and the wanted one."""
    wanted = settings.mail_address
    return list(dict.fromkeys([*owned(tags), *([wanted] if wanted else [])]))


def steps(settings: Settings, account: Account, tags: list[str]) -> list[Step]:
    """Return what has to be done, the new address first."""
    wanted = settings.mail_address
    found = []
    if wanted and not _served(settings, account):
        action = "update" if _rules(account, wanted) else "create"
        found.append(Step(wanted, action, f"rule that hands mails to {wanted} to the Worker"))
    elif wanted and wanted not in owned(tags):
        found.append(Step(wanted, "update", f"note that {wanted} is its own"))
    found += [
        Step(old, "delete", f"rule for mails to {old}, which the inventory no longer names")
        for old in owned(tags)
        if old != wanted
    ]
    return found


def problems(settings: Settings, account: Account) -> list[Problem]:
    """Return what stands against the address: no zone that takes mails, somebody else's rule, nobody to write to."""
    wanted = settings.mail_address
    if not wanted:
        return []
    zone = account.zone_of(domain_of(wanted))
    if zone is None:
        return [
            _problem(
                f"{wanted} lies in no zone of this account that the token may see.",
                f"add the domain to the account at Cloudflare, give the token Zone: Read on it, or mend"
                f" {VARIABLE}.address.",
            )
        ]
    return [
        *_off(zone, account.mail.get(zone["id"], {}), wanted),
        *_taken(settings, account),
        *_unverified(settings, account),
    ]


def _off(zone: dict[str, Any], mail: dict[str, Any], wanted: str) -> list[Problem]:
    """Return the problem of a zone that takes no mails; what is said of a zone holds for its own name."""
    if domain_of(wanted) != zones.ascii_name(zone["name"]) or (
        mail.get("enabled") and mail.get("status") not in BROKEN
    ):
        return []
    said = f"is {mail['status']}" if mail.get("enabled") else "is not enabled"
    return [
        _problem(
            f"Email Routing {said} for {zone['name']}, so that no mail to {wanted} comes to Cloudflare.",
            f"enable it {DASHBOARD}), which adds its DNS records. Mailboxes of the domain elsewhere get no mail then.",
        )
    ]


def _taken(settings: Settings, account: Account) -> list[Problem]:
    wanted = settings.mail_address
    foreign = [one for one in _rules(account, wanted) if one["worker"] != settings.name]
    if not foreign:
        return []
    rule = foreign[0]
    where = f'Worker "{rule["worker"]}"' if rule["worker"] else rule["action"]
    return [
        _problem(
            f'mails to {wanted} have a rule already, "{rule["name"]}": {where}.',
            f"choose another address, or delete that rule {DASHBOARD}, Routing Rules).",
        )
    ]


def _unverified(settings: Settings, account: Account) -> list[Problem]:
    missing = [one for one in settings.mail_people if one not in account.mail_verified]
    if not missing:
        return []
    return [
        Problem(
            f"{VARIABLE}.allow",
            f"Cloudflare may not send to {', '.join(missing)}: not verified as a destination address of the account.",
            f"add it {DASHBOARD}, Destination Addresses), and follow the link in the mail that comes there.",
            "channels",
        )
    ]


def _problem(sentence: str, remedy: str) -> Problem:
    return Problem(f"{VARIABLE}.address", sentence, remedy, "channels")


def _rules(account: Account, address: str) -> list[dict[str, Any]]:
    """Return the rules for exactly this address."""
    zone = account.zone_of(domain_of(address))
    rules = account.mail.get(zone["id"], {}).get("rules", []) if zone else []
    return [one for one in rules if one["address"] == address]


def _served(settings: Settings, account: Account) -> bool:
    """Tell whether mails to the address come to the deployment already."""
    rules = _rules(account, settings.mail_address)
    return bool(rules) and rules[0]["worker"] == settings.name and rules[0]["enabled"]


class Mailbox(Tagged):
    """Carries out the steps. Every method raises CloudflareError."""

    prefix = MAIL_TAG

    def settle(self) -> list[Step]:
        """Do what has to be done; return it."""
        todo = steps(self.settings, self.account, self.tags)
        if not todo:
            return []
        wanted = self.settings.mail_address
        self.note(named(self.settings, self.tags))
        for step in todo:
            self.progress(f"{step.action} {step.words}")
            if step.action == "delete":
                self.detach(step.address)
            elif not _served(self.settings, self.account):
                self._attach(step.address)
            self.done.append(step.words)
        self.note([wanted] if wanted else [])
        return todo

    def detach(self, address: str) -> None:
        """Have mails to an address come here no longer."""
        for rule in _rules(self.account, address):
            if rule["worker"] == self.settings.name:
                email_routing.delete(self.api, self._zone(address), rule["id"])

    def _attach(self, address: str) -> None:
        name, worker = f"{scripts.TAG}:{self.settings.name}", self.settings.name
        ours = [one for one in _rules(self.account, address) if one["worker"] == worker]
        zone_id = self._zone(address)
        if ours:
            email_routing.update(self.api, zone_id, ours[0]["id"], address, worker, name)
        else:
            email_routing.create(self.api, zone_id, address, worker, name)

    def _zone(self, address: str) -> str:
        zone = self.account.zone_of(domain_of(address)) or {"id": ""}
        return str(zone["id"])

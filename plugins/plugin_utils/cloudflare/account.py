# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked once for a whole account: its token, its Workers, container applications, domains, zones and routes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from ...module_utils.cards import Problem
from ...module_utils.cloudflare import (
    containers,
    domains,
    email_routing,
    permissions,
    routes,
    scripts,
    zones,
)
from ...module_utils.cloudflare.client import Cloudflare, CloudflareError

TOKENS_PAGE = "https://dash.cloudflare.com/profile/api-tokens"
REMEDY_TOKEN = f"make an API token at {TOKENS_PAGE} and export CLOUDFLARE_API_TOKEN, or set cloudflare_api_token."


@dataclass
class Account:
    """One account as one token sees it. Plain data: it travels as the result of a task."""

    problems: list[dict[str, str]] = field(default_factory=list)
    """What stands against every deployment there; the rest may then be empty."""
    zone_problems: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """Zone id -> what stands against a deployment with a hostname there; an empty id: in any zone."""
    subdomain: str = ""
    """The account's name below workers.dev."""
    scripts: dict[str, str] = field(default_factory=dict)
    """Name of each Worker -> digest of its code."""
    ours: list[str] = field(default_factory=list)
    """Names of the Workers that this collection deployed, by their tag."""
    named: list[str] = field(default_factory=list)
    """Names of the deployments that the inventory wants there, where somebody looked at all of it."""
    applications: dict[str, str] = field(default_factory=dict)
    """Name of each container application -> its id."""
    domains: dict[str, dict[str, str]] = field(default_factory=dict)
    """Hostname of each custom domain -> {id, service, zone_id}."""
    zones: list[dict[str, Any]] = field(default_factory=list)
    """{id, name, status, type, paused} of each zone; empty when no deployment has a hostname."""
    routes: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """Zone id -> its routes, for the zones in which a deployment has a hostname."""
    mail_problems: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """The like of zone_problems against a deployment with a mail address there."""
    mail: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Zone id -> {enabled, status, rules}, for the zones in which a deployment has a mail address."""
    mail_verified: list[str] = field(default_factory=list)
    """To whom the account may send mails; empty when no deployment has a mail address."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for a task's result."""
        return asdict(self)

    def deployments(self, name: str) -> int:
        """Return how many deployments share what the plan includes: this one, and all that are or will be there."""
        return len({name, *self.ours, *self.named})

    def problems_of(self, hostname: str) -> list[dict[str, str]]:
        """Return what the token lacks for a hostname; nothing without one."""
        return self._lacking(self.zone_problems, hostname)

    def problems_of_mail(self, address: str) -> list[dict[str, str]]:
        """Return what the token lacks for a mail address; nothing without one."""
        return self._lacking(self.mail_problems, domain_of(address))

    def _lacking(
        self, problems: dict[str, list[dict[str, str]]], hostname: str
    ) -> list[dict[str, str]]:
        zone = self.zone_of(hostname) if hostname else None
        ids = ["", *([zone["id"]] if zone else [])] if hostname else []
        return [problem for one in ids for problem in problems.get(one, [])]

    def zone_of(self, hostname: str) -> dict[str, Any] | None:
        """Return the zone that a hostname lies in, or None."""
        return zones.covering(hostname, self.zones)


def domain_of(address: str) -> str:
    """Return the domain of a mail address; empty for none."""
    return address.rpartition("@")[2]


def key(account_id: str, token: str, base_url: str) -> str:
    """Return the name under which an account's survey is kept; tells nothing about the token."""
    text = "\0".join(("hermes.workers survey", account_id, token, base_url))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def survey(api: Cloudflare, hostnames: Iterable[str], mails: Iterable[str] = ()) -> Account:
    """Ask for everything that is the account's. hostnames, mails: addresses of all deployments there, of both kinds.

    What is wrong with the token or the account is in the result, so that it comes in one message with all else.
    """
    found = Account()
    hostnames, mails = sorted(set(hostnames)), sorted(set(mails))
    try:
        token_id = _check_token(api, found)
        if not found.problems:
            _check_permissions(api, found, hostnames, mails)
            _check_policies(api, found, token_id, hostnames, mails)
        if not found.problems:
            _read(api, found)
    except CloudflareError as error:
        subject = "cloudflare_api_token" if error.denied else "preflight"
        found.problems.append(asdict(error.problem(subject)))
    return found


def of_hostnames(api: Cloudflare, hostnames: Iterable[str], mails: Iterable[str] = ()) -> Account:
    """Ask for nothing but what decides about hostnames and mail addresses: few calls. Raises CloudflareError."""
    hostnames, mail_domains = sorted(set(hostnames)), sorted(set(map(domain_of, mails)))
    found = Account(zones=_zones(api, [*hostnames, *mail_domains]), domains=_domains(api))
    found.routes = {zone["id"]: _routes(api, zone["id"]) for zone in _zones_of(found, hostnames)}
    found.mail = {
        zone["id"]: {"rules": _mail_rules(api, zone["id"])}
        for zone in _zones_of(found, mail_domains)
    }
    return found


def _check_token(api: Cloudflare, found: Account) -> str:
    """Note what is wrong with the token; returns its id."""
    try:
        verified = permissions.verify(api)
    except CloudflareError as error:
        if error.uncertain:
            raise
        _note(found.problems, "cloudflare_api_token", f"not valid: {error.message}", REMEDY_TOKEN)
        return ""
    status = verified.get("status")
    if status != "active":
        _note(
            found.problems,
            "cloudflare_api_token",
            f"the token is {status}, not active.",
            REMEDY_TOKEN,
        )
    return verified.get("id") or ""


def _check_permissions(
    api: Cloudflare, found: Account, hostnames: list[str], mails: list[str]
) -> None:
    """Note each permission that is missing, by the dashboard's name for it."""
    denied = []
    for permission in (permissions.SCRIPTS, permissions.CONTAINERS):
        try:
            api.get(api.account(permission.path))
        except CloudflareError as error:
            if not error.denied:
                raise
            denied.append(permission)
    if permissions.SCRIPTS in denied and permissions.CONTAINERS in denied:
        _note(
            found.problems,
            "hermes_account_id",
            "the token sees nothing of this account: it belongs to another one, or lacks the permissions"
            " Workers Scripts: Edit and Containers: Edit.",
            f"mend hermes_account_id, or give the token these permissions at {TOKENS_PAGE}.",
            "account",
        )
    elif permissions.SCRIPTS in denied:
        _missing(found.problems, permissions.SCRIPTS.label, "to upload the Worker and its secrets")
    elif permissions.CONTAINERS in denied:
        _note(
            found.problems,
            "cloudflare_api_token",
            "Containers are refused: the token lacks the permission Containers: Edit, or the account is not on the"
            " Workers Paid plan.",
            f"give the token Containers: Edit at {TOKENS_PAGE}, and subscribe to Workers Paid in the dashboard"
            " (Workers & Pages, Plans).",
            "account",
        )
    if hostnames or mails:
        _check_zones(api, found, hostnames, sorted(set(map(domain_of, mails))))


def _check_policies(
    api: Cloudflare, found: Account, token_id: str, hostnames: list[str], mails: list[str]
) -> None:
    """Note each permission that is "Read" where "Edit" is needed, if the token may tell."""
    groups = permissions.granted(api, token_id) or set()
    purpose = "of which it has the reading half only"
    for one in permissions.read_only(groups, (permissions.SCRIPTS, permissions.CONTAINERS)):
        _missing(found.problems, one.label, purpose)
    if hostnames:
        in_zones = found.zone_problems.setdefault("", [])
        for one in permissions.read_only(groups, (permissions.ROUTES, permissions.DNS)):
            _missing(in_zones, one.label, purpose)
    if mails:
        in_zones = found.mail_problems.setdefault("", [])
        for one in permissions.read_only(groups, (permissions.MAIL_RULES,)):
            _missing(in_zones, one.label, purpose)


def _check_zones(
    api: Cloudflare, found: Account, hostnames: list[str], mail_domains: list[str]
) -> None:
    """Note each permission that is missing in the zones of these hostnames and domains; keep their routes and rules."""
    in_any: list[dict[str, str]] = []
    found.zones = _asked(
        in_any,
        lambda: _zones(api, [*hostnames, *mail_domains]),
        permissions.ZONES.label,
        "to find the zone of a hostname" if hostnames else "to find the zone of a mail address",
    )
    if hostnames:
        found.zone_problems[""] = list(in_any)
    if mail_domains:
        found.mail_problems[""] = in_any
        _check_mail(api, found, mail_domains)
    for zone in _zones_of(found, hostnames):
        identity, name = zone["id"], zone["name"]
        problems = found.zone_problems.setdefault(identity, [])
        found.routes[identity] = _asked(
            problems,
            partial(_routes, api, identity),
            permissions.ROUTES.label,
            f"to see and set the routes of {name}",
        )
        _asked(
            problems,
            partial(api.get, f"/zones/{identity}/{permissions.DNS.path}"),
            permissions.DNS.label,
            f"to see and make records of {name}",
        )


def _check_mail(api: Cloudflare, found: Account, mail_domains: list[str]) -> None:
    """Note each permission that is missing for mail addresses; keep what decides about them."""
    found.mail_verified = _asked(
        found.mail_problems[""],
        lambda: email_routing.verified(api),
        permissions.MAIL_ADDRESSES.label,
        "to see to whom mails may be sent",
    )
    for zone in _zones_of(found, mail_domains):
        identity, name = zone["id"], zone["name"]
        problems = found.mail_problems.setdefault(identity, [])
        rules = _asked(
            problems,
            partial(_mail_rules, api, identity),
            permissions.MAIL_RULES.label,
            f"to see and set the rules for mails of {name}",
        )
        (told,) = _asked(
            problems,
            partial(_mail_settings, api, identity),
            permissions.ZONE_SETTINGS.label,
            f"to see whether {name} takes mails",
        ) or [{}]
        found.mail[identity] = {
            "enabled": told.get("enabled") is True,
            "status": told.get("status") or "",
            "rules": rules,
        }


def _mail_settings(api: Cloudflare, zone_id: str) -> list[dict[str, Any]]:
    return [email_routing.settings(api, zone_id)]


def _mail_rules(api: Cloudflare, zone_id: str) -> list[dict[str, Any]]:
    return [
        {
            "id": one["id"],
            "name": one.get("name") or "",
            "address": email_routing.address_of(one),
            "worker": email_routing.worker_of(one),
            "action": next((str(each.get("type")) for each in one.get("actions") or []), ""),
            "enabled": one.get("enabled") is not False,
        }
        for one in email_routing.listing(api, zone_id)
    ]


def _asked(
    problems: list[dict[str, str]], ask: Callable[[], list[Any]], label: str, purpose: str
) -> list[Any]:
    """Return what the token may see; nothing, and a note, where it lacks the permission for it."""
    try:
        return ask()
    except CloudflareError as error:
        if not error.denied:
            raise
        _missing(problems, label, purpose)
        return []


def _read(api: Cloudflare, found: Account) -> None:
    found.subdomain = scripts.account_subdomain(api)
    listed = scripts.listing(api)
    found.scripts = {one["id"]: one.get("etag") or "" for one in listed}
    found.ours = [one["id"] for one in listed if scripts.TAG in (one.get("tags") or [])]
    found.applications = {one["name"]: one["id"] for one in containers.applications(api)}
    found.domains = _domains(api)


def _domains(api: Cloudflare) -> dict[str, dict[str, str]]:
    return {
        one["hostname"].lower(): {name: one[name] for name in ("id", "service", "zone_id")}
        for one in domains.listing(api)
    }


def _zones(api: Cloudflare, hostnames: Iterable[str]) -> list[dict[str, Any]]:
    names = ("id", "name", "status", "type", "paused")
    found = zones.of_hostnames(api, hostnames)
    return [{name: zone.get(name) for name in names} for zone in found]


def _zones_of(found: Account, hostnames: Iterable[str]) -> list[dict[str, Any]]:
    """Return the zones in which hostnames lie, each once."""
    zones_ = {zone["id"]: zone for zone in map(found.zone_of, hostnames) if zone}
    return [zones_[one] for one in sorted(zones_)]


def _routes(api: Cloudflare, zone_id: str) -> list[dict[str, str]]:
    return [
        {"id": one["id"], "pattern": one["pattern"], "script": one.get("script") or ""}
        for one in routes.listing(api, zone_id)
    ]


def _missing(problems: list[dict[str, str]], label: str, purpose: str) -> None:
    _note(
        problems,
        "cloudflare_api_token",
        f"lacks the permission {label}, {purpose}.",
        f"add it to the token at {TOKENS_PAGE}.",
    )


def _note(
    problems: list[dict[str, str]],
    subject: str,
    sentence: str,
    remedy: str,
    code: str = "cloudflare-token",
) -> None:
    problems.append(asdict(Problem(subject, sentence, remedy, code)))

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment's hostname: a custom domain, or a route with a proxied DNS record; what is another's is left alone.

What was given to a deployment is written down as a tag of its Worker before it is made, so that what the inventory no
longer names is found and removed, by whichever controller, and nothing else is.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ...module_utils.cards import Card, Problem
from ...module_utils.cloudflare import dns, domains, routes, scripts
from ...module_utils.cloudflare.client import Cloudflare, CloudflareError
from ...module_utils.settings.settings import Settings
from . import mailbox
from .account import Account
from .tags import Tagged

HOST_TAG = f"{scripts.TAG}.host:"
VARIABLE = "hermes_dashboard_hostname"


@dataclass(frozen=True)
class Step:
    """One thing to do. kind: attach, route, detach; hostname: whose; action, words: for the plan."""

    kind: str
    hostname: str
    action: str
    words: str


def owned(tags: list[str]) -> list[str]:
    """Return the hostnames that were given to a deployment, by its Worker's tags."""
    return [tag.removeprefix(HOST_TAG) for tag in tags if tag.startswith(HOST_TAG)]


def steps(settings: Settings, account: Account, tags: list[str]) -> list[Step]:
    """Return what has to be done for the hostname, the new one first."""
    wanted = settings.dashboard_hostname
    found = []
    if wanted and not _served(settings, account):
        if settings.route_mode == "custom_domain":
            found.append(Step("attach", wanted, "create", f"custom domain {wanted}"))
        else:
            words = f"route {_pattern(wanted)} and a proxied record"
            found.append(Step("route", wanted, "create", words))
    elif wanted and wanted not in owned(tags):
        found.append(Step("note", wanted, "update", f"note that {wanted} is its own"))
    found += [
        Step("detach", old, "delete", f"{old}, which the inventory no longer names")
        for old in owned(tags)
        if old != wanted
    ]
    return found


def _served(settings: Settings, account: Account) -> bool:
    """Tell whether the hostname leads to the deployment already, in the wanted way."""
    wanted = settings.dashboard_hostname
    domain = account.domains.get(wanted, {})
    route = _route(account, wanted)
    if settings.route_mode == "custom_domain":
        # A route without a Worker keeps those of others away, and lets the custom domain serve.
        return domain.get("service") == settings.name and not (route and route["script"])
    return not domain and route is not None and route["script"] == settings.name


def _pattern(hostname: str) -> str:
    return f"{hostname}/*"


def _route(account: Account, hostname: str) -> dict[str, str] | None:
    """Return the route of all paths of a hostname."""
    zone = account.zone_of(hostname)
    found = account.routes.get(zone["id"], []) if zone else []
    return next((one for one in found if one["pattern"] == _pattern(hostname)), None)


def tag_problems(settings: Settings, tags: list[str]) -> list[Problem]:
    """Return the problem of a Worker with so many tags of its owner's that ours have no room."""
    wanted = settings.dashboard_hostname
    # While a hostname moves, both are noted.
    ours = {
        *scripts.our_tags(settings.name),
        *(f"{HOST_TAG}{one}" for one in [*owned(tags), *([wanted] if wanted else [])]),
        *(f"{mailbox.MAIL_TAG}{one}" for one in mailbox.named(settings, tags)),
    }
    prefixes = (HOST_TAG, mailbox.MAIL_TAG)
    foreign = [tag for tag in tags if tag not in ours and not tag.startswith(prefixes)]
    if len(ours) + len(foreign) <= scripts.MOST_TAGS:
        return []
    return [
        Problem(
            settings.name,
            f"its Worker has {len(foreign)} tags of others, this deployment needs {len(ours)}, and Cloudflare allows"
            f" {scripts.MOST_TAGS}.",
            f"remove tags of the Worker that nobody needs: {', '.join(foreign)}.",
            "tags",
        )
    ]


def problems(api: Cloudflare, settings: Settings, account: Account) -> list[Problem]:
    """Return what stands against the hostname: no zone, or it is somebody else's."""
    wanted = settings.dashboard_hostname
    if not wanted:
        return []
    zone = account.zone_of(wanted)
    if zone is None:
        return [
            _problem(
                f"{wanted} lies in no zone of this account that the token may see.",
                f"add the domain to the account at Cloudflare, give the token Zone: Read on it, or mend {VARIABLE}.",
            )
        ]
    if zone["status"] != "active":
        return [
            _problem(
                f"its zone {zone['name']} is {zone['status']}, not active.",
                "point the domain's name servers to Cloudflare, and wait until the dashboard says active.",
            )
        ]
    if zone.get("paused"):
        return [
            _problem(
                f"its zone {zone['name']} is paused: Cloudflare leads no request to a Worker there.",
                "enable Cloudflare on the zone in the dashboard (Overview, Advanced Actions).",
            )
        ]
    if zone.get("type") == "partial" and not _served(settings, account):
        return [
            _problem(
                f"the DNS of its zone {zone['name']} is not at Cloudflare (a partial setup), so that no record can be"
                " made there.",
                "choose a hostname in a zone whose name servers are Cloudflare's.",
            )
        ]
    others = in_the_way(settings, account.routes.get(zone["id"], []))
    return others or _conflicts(api, settings, account, zone["id"])


def in_the_way(settings: Settings, routes_: Iterable[dict[str, str]]) -> list[Problem]:
    """Return the routes of others that get the hostname's requests before the deployment does.

    A route runs before a custom domain, and of several routes the most exact one.
    """
    wanted = settings.dashboard_hostname
    by_route = settings.route_mode == "zone_route"
    found = []
    routes_ = [one for one in routes_ if one["script"] != settings.name]
    shielded = any(one["pattern"] == _pattern(wanted) and not one["script"] for one in routes_)
    for one in routes_:
        host = _host_of(one["pattern"])
        if not _covers(host, wanted) or one["pattern"] == _pattern(wanted):
            continue
        if host != wanted and (by_route or shielded):
            continue
        if not one["script"] and not by_route:
            continue
        owner = f'Worker "{one["script"]}"' if one["script"] else "no Worker"
        more = "is more exact" if by_route else "runs before a custom domain"
        remedy = "remove that route in the dashboard (Workers Routes of the zone), or choose another hostname"
        if host != wanted:
            remedy += "; or set hermes_route_mode: zone_route, which is more exact than it"
        sentence = f"{wanted} is caught by the route {one['pattern']} of {owner}, which {more}."
        found.append(_problem(sentence, f"{remedy}."))
    return found


def _host_of(pattern: str) -> str:
    """Return the part of a route's pattern that hostnames have to match."""
    return pattern.rpartition("://")[2].partition("/")[0].lower()


def _covers(host: str, hostname: str) -> bool:
    """Whether a pattern's host, which may begin with a wildcard, matches a hostname."""
    return host == hostname or (host.startswith("*") and hostname.endswith(host[1:]))


def _conflicts(
    api: Cloudflare, settings: Settings, account: Account, zone_id: str
) -> list[Problem]:
    wanted = settings.dashboard_hostname
    if settings.take_over_hostname or _served(settings, account):
        return []
    owner = account.domains.get(wanted, {}).get("service")
    route = _route(account, wanted) or {"script": ""}
    others = [name for name in (owner, route["script"]) if name and name != settings.name]
    if others:
        return [_taken(f'belongs to Worker "{others[0]}".')]
    if owner == settings.name:
        return []
    records = dns.listing(api, zone_id, wanted)
    foreign = [
        record
        for record in records
        if record["type"] in dns.EXCLUSIVE and not is_our_record(record, settings.name)
    ]
    return [_taken(f"{wanted} has a DNS record ({foreign[0]['type']}) already.")] if foreign else []


def _taken(sentence: str) -> Problem:
    return _problem(
        sentence, "choose another hostname, or set hermes_take_over_hostname: true to replace it."
    )


def _problem(sentence: str, remedy: str) -> Problem:
    return Problem(VARIABLE, sentence, remedy, "hostname")


def comment(name: str) -> str:
    """Return what marks a DNS record as a deployment's own."""
    return f"{scripts.TAG}:{name}"


def is_our_record(record: dict[str, Any], name: str) -> bool:
    """Tell whether we made a DNS record for a deployment."""
    return record.get("comment") == comment(name)


def is_of_domain(record: dict[str, Any]) -> bool:
    """Tell whether a DNS record belongs to a custom domain, with which it comes and goes."""
    return bool((record.get("meta") or {}).get("read_only"))


class Hostnames(Tagged):
    """Carries out the steps. Every method raises CloudflareError, or a Card."""

    prefix = HOST_TAG

    def settle(self) -> list[Step]:
        """Do what has to be done; return it."""
        todo = steps(self.settings, self.account, self.tags)
        kept = owned(self.tags)
        self.note(kept + [step.hostname for step in todo if step.kind != "detach"])
        for step in todo:
            self.progress(f"{step.action} {step.words}")
            if step.kind == "attach":
                self._attach(step.hostname)
            elif step.kind == "route":
                self._add_route(step.hostname)
            elif step.kind == "detach":
                self.detach(step.hostname)
            self.done.append(step.words)
        wanted = self.settings.dashboard_hostname
        self.note([wanted] if wanted else [])
        return todo

    def _attach(self, hostname: str) -> None:
        domains.attach_over(
            self.api,
            hostname,
            self.settings.name,
            self._zone(hostname),
            self._replaceable(hostname),
            take_over=self.settings.take_over_hostname,
        )
        # Last, because until then it may be the one that serves.
        route = _route(self.account, hostname)
        if route is not None and route["script"]:
            routes.delete(self.api, self._zone(hostname), route["id"])

    def _add_route(self, hostname: str) -> None:
        """Lead a hostname here by a route. The route comes last: by it the next run tells what is done."""
        zone_id = self._zone(hostname)
        domain = self.account.domains.get(hostname)
        if domain:
            # Its record goes with the custom domain, which serves until the route may do so.
            self._lead(hostname, zone_id)
            domains.detach(self.api, domain["id"])
        record = dns.PLACEHOLDER | {"name": hostname, "comment": comment(self.settings.name)}
        there = self._replaceable(hostname)
        right = [one for one in there if dns.equal(one, record)]
        replaced = there[0] if there and not right else None
        if replaced:
            dns.overwrite(self.api, zone_id, replaced["id"], record)
            right = [replaced]
        elif not right:
            dns.create(self.api, zone_id, record)
        try:
            if not domain:
                self._lead(hostname, zone_id)
        except CloudflareError:
            if replaced:
                with suppress(CloudflareError):
                    dns.overwrite(self.api, zone_id, replaced["id"], dns.writable(replaced))
            raise
        for one in there:
            if one["id"] not in [kept["id"] for kept in right]:
                dns.delete(self.api, zone_id, one["id"])

    def _lead(self, hostname: str, zone_id: str) -> None:
        """Have the hostname's route lead to the Worker; it gets nothing as long as there is no record."""
        route = _route(self.account, hostname)
        if route is None:
            routes.create(self.api, zone_id, _pattern(hostname), self.settings.name)
        elif route["script"] != self.settings.name:
            routes.update(self.api, zone_id, route["id"], _pattern(hostname), self.settings.name)

    def detach(self, hostname: str) -> None:
        """Take a hostname away from the deployment: only what leads to it."""
        domain = self.account.domains.get(hostname, {})
        if domain.get("service") == self.settings.name:
            domains.detach(self.api, domain["id"])
        route = _route(self.account, hostname)
        if route is not None and route["script"] == self.settings.name:
            routes.delete(self.api, self._zone(hostname), route["id"])
        if self.account.zone_of(hostname):
            self._remove_records(hostname)

    def _replaceable(self, hostname: str) -> list[dict[str, Any]]:
        """Return the records that may give way: our own, and foreign ones when that was allowed."""
        foreign = self.settings.take_over_hostname
        return [
            record
            for record in dns.listing(self.api, self._zone(hostname), hostname)
            if is_our_record(record, self.settings.name)
            or (foreign and record["type"] in dns.EXCLUSIVE and not is_of_domain(record))
        ]

    def _remove_records(self, hostname: str) -> None:
        for record in dns.listing(self.api, self._zone(hostname), hostname):
            if is_our_record(record, self.settings.name):
                dns.delete(self.api, self._zone(hostname), record["id"])

    def _zone(self, hostname: str) -> str:
        zone = self.account.zone_of(hostname)
        if zone is None:
            raise Card.of(
                VARIABLE,
                f"the zone of {hostname} is gone.",
                "add the domain to the account again, or remove the hostname.",
                "hostname",
            )
        return str(zone["id"])

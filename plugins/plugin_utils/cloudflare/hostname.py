# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment's hostname: a custom domain, or a route with a proxied DNS record; what is another's is left alone.

What was given to a deployment is written down as a tag of its Worker before it is made, so that what the inventory no
longer names is found and removed, by whichever controller, and nothing else is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ansible_collections.hermes.workers.plugins.module_utils import dns, domains, routes, scripts
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import Cloudflare
from ansible_collections.hermes.workers.plugins.module_utils.errors import Card, Problem
from ansible_collections.hermes.workers.plugins.module_utils.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.account import Account

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
        return domain.get("service") == settings.name and route is None
    return not domain and route is not None and route["script"] == settings.name


def _pattern(hostname: str) -> str:
    return f"{hostname}/*"


def _route(account: Account, hostname: str) -> dict[str, str] | None:
    """Return the route of all paths of a hostname."""
    zone = account.zone_of(hostname)
    found = account.routes.get(zone["id"], []) if zone else []
    return next((one for one in found if one["pattern"] == _pattern(hostname)), None)


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
    return _conflicts(api, settings, account, zone["id"])


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


def is_our_record(record: dict, name: str) -> bool:
    """Tell whether we made a DNS record for a deployment."""
    return record.get("comment") == comment(name)


class Hostnames:
    """Carries out the steps. Every method raises CloudflareError, or a Card."""

    def __init__(
        self,
        api: Cloudflare,
        settings: Settings,
        account: Account,
        tags: list[str],
        progress: Callable[[str], None],
    ) -> None:
        self.api = api
        self.settings = settings
        self.account = account
        self.tags = tags
        self.progress = progress
        self.done: list[str] = []
        """The steps that are through, in words."""

    def settle(self) -> list[Step]:
        """Do what has to be done; return it."""
        todo = steps(self.settings, self.account, self.tags)
        kept = owned(self.tags)
        self._note(kept + [step.hostname for step in todo if step.kind != "detach"])
        for step in todo:
            self.progress(f"{step.action} {step.words}")
            {
                "attach": self._attach,
                "route": self._add_route,
                "detach": self.detach,
                "note": lambda _hostname: None,
            }[step.kind](step.hostname)
            self.done.append(step.words)
        wanted = self.settings.dashboard_hostname
        self._note([wanted] if wanted else [])
        return todo

    def _note(self, hostnames: list[str]) -> None:
        """Write down whose hostnames these are, on the Worker itself."""
        ours = [f"{HOST_TAG}{one}" for one in dict.fromkeys(hostnames)]
        base = scripts.our_tags(self.settings.name)
        foreign = [tag for tag in self.tags if tag not in base and not tag.startswith(HOST_TAG)]
        wanted = [*base, *ours, *foreign]
        if set(wanted) != set(self.tags):
            scripts.set_tags(self.api, self.settings.name, wanted)
            self.tags = wanted
            self.done.append("its tags")

    def _attach(self, hostname: str) -> None:
        self._remove_route(hostname)
        if self.settings.take_over_hostname or self.settings.route_mode == "custom_domain":
            self._clear_records(hostname)
        domains.attach(
            self.api,
            hostname,
            self.settings.name,
            self._zone(hostname),
            take_over=self.settings.take_over_hostname,
        )

    def _add_route(self, hostname: str) -> None:
        self._remove_domain(hostname)
        zone_id = self._zone(hostname)
        self._clear_records(hostname)
        record = dns.PLACEHOLDER | {"name": hostname, "comment": comment(self.settings.name)}
        if not any(dns.equal(one, record) for one in dns.listing(self.api, zone_id, hostname)):
            dns.create(self.api, zone_id, record)
        route = _route(self.account, hostname)
        if route is None:
            routes.create(self.api, zone_id, _pattern(hostname), self.settings.name)
        elif route["script"] != self.settings.name:
            routes.update(self.api, zone_id, route["id"], _pattern(hostname), self.settings.name)

    def detach(self, hostname: str) -> None:
        """Take a hostname away from the deployment: only what leads to it."""
        if self.account.domains.get(hostname, {}).get("service") == self.settings.name:
            self._remove_domain(hostname)
        route = _route(self.account, hostname)
        if route is not None and route["script"] == self.settings.name:
            self._remove_route(hostname)
        if self.account.zone_of(hostname):
            self._remove_records(hostname, foreign=False)

    def _clear_records(self, hostname: str) -> None:
        """Make room: our own record of the other mode, and a foreign one when that was allowed."""
        if self.account.domains.get(hostname):
            return  # the record is the custom domain's, and goes with it
        self._remove_records(hostname, foreign=self.settings.take_over_hostname)

    def _remove_records(self, hostname: str, *, foreign: bool) -> None:
        zone_id = self._zone(hostname)
        keep_ours = self.settings.route_mode == "zone_route" and (
            hostname == self.settings.dashboard_hostname
        )
        for record in dns.listing(self.api, zone_id, hostname):
            ours = is_our_record(record, self.settings.name)
            replaced = foreign and record["type"] in dns.EXCLUSIVE
            if (ours and not keep_ours) or (not ours and replaced):
                dns.delete(self.api, zone_id, record["id"])

    def _remove_domain(self, hostname: str) -> None:
        domain = self.account.domains.get(hostname)
        if domain:
            domains.detach(self.api, domain["id"])

    def _remove_route(self, hostname: str) -> None:
        route = _route(self.account, hostname)
        if route is not None:
            routes.delete(self.api, self._zone(hostname), route["id"])

    def _zone(self, hostname: str) -> str:
        zone = self.account.zone_of(hostname)
        if zone is None:
            raise Card.of(
                VARIABLE,
                f"the zone of {hostname} is gone.",
                "add the domain to the account again, or remove the hostname.",
                "hostname",
            )
        return zone["id"]

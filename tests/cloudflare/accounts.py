# SPDX-License-Identifier: Apache-2.0
"""What Cloudflare holds: accounts, tokens, zones, Workers with their versions, and container applications."""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

PERMISSIONS = frozenset(
    {
        "Account Settings Read",
        "DNS Write",
        "Email Routing Addresses Read",
        "Email Routing Rules Write",
        "Workers Containers Write",
        "Workers Routes Write",
        "Workers Scripts Write",
        "Zone Read",
        "Zone Settings Read",
    }
)
"""Permission groups of a token that can do everything the collection does. Write includes Read."""


def hex_id() -> str:
    """Return a new id of 32 hexadecimal digits, as most of Cloudflare's are."""
    return secrets.token_hex(16)


def now() -> str:
    """Return this moment as Cloudflare writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass
class Token:
    """An API token. `id` is what logs may show; the value never leaves this object."""

    value: str = field(repr=False)
    owner: str = "user"
    """Whose it is: of a user, or of an account."""
    accounts: set[str] = field(default_factory=set)
    permissions: set[str] = field(default_factory=lambda: set(PERMISSIONS))
    id: str = field(default_factory=hex_id)
    status: str = "active"
    zones: set[str] | None = None
    """Ids of the zones that it is limited to; None: all of its accounts'."""
    calls: list[float] = field(default_factory=list)
    blocked_until: float = 0.0

    def may(self, permission: str) -> bool:
        """Tell whether the token has a permission group, or the one that includes it."""
        wider = permission.replace(" Read", " Write")
        return not {permission, wider}.isdisjoint(self.permissions)


@dataclass
class Zone:
    """A domain that an account has at Cloudflare. Its name is the Unicode one; all that is in it has ASCII names."""

    name: str
    account: str
    status: str = "active"
    paused: bool = False
    type: str = "full"
    """full, or partial: its DNS is elsewhere."""
    id: str = field(default_factory=hex_id)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    routes: dict[str, dict[str, Any]] = field(default_factory=dict)
    takes_mails: bool = False
    """Whether Email Routing is enabled."""
    mail_status: str = "ready"
    mail_rules: list[dict[str, Any]] = field(default_factory=list)
    created_on: str = field(default_factory=now)

    def covers(self, hostname: str) -> bool:
        """Tell whether a hostname lies in this zone."""
        return hostname == self.ascii or hostname.endswith("." + self.ascii)

    @property
    def ascii(self) -> str:
        """The name as DNS has it."""
        return self.name.encode("idna").decode()


@dataclass
class Module:
    """One uploaded module."""

    name: str
    content_type: str
    content: bytes = field(repr=False)


@dataclass
class Version:
    """An immutable version of a Worker. Bindings hold the secrets' values; nothing that answers shows them."""

    number: int
    modules: list[Module]
    metadata: dict[str, Any]
    bindings: list[dict[str, Any]] = field(repr=False)
    trigger: str
    migration_tag: str | None
    source: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_on: str = field(default_factory=now)

    @property
    def etag(self) -> str:
        """Digest of the code."""
        digest = hashlib.sha256()
        for module in self.modules:
            digest.update(module.name.encode() + b"\0" + module.content + b"\0")
        return digest.hexdigest()

    @property
    def containers(self) -> list[dict[str, Any]]:
        """The containers that the version declares."""
        return list(self.metadata.get("containers") or [])

    def secrets(self) -> dict[str, str]:
        """Name and value of each secret."""
        return {one["name"]: one["text"] for one in self.bindings if one["type"] == "secret_text"}

    def variables(self) -> dict[str, str]:
        """Name and value of each text variable."""
        return {one["name"]: one["text"] for one in self.bindings if one["type"] == "plain_text"}


@dataclass
class Deployment:
    """Which version serves; of several, `version` is the one that gets the most requests."""

    version: Version
    trigger: str
    source: str
    message: str = ""
    code_update_strategy: dict[str, Any] = field(default_factory=dict)
    """When an object in use takes the version."""
    others: list[tuple[Version, float]] = field(default_factory=list)
    """Further versions, each with its percentage."""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_on: str = field(default_factory=now)


@dataclass
class Namespace:
    """The Durable Objects of one class."""

    class_name: str
    script: str
    sqlite: bool
    id: str = field(default_factory=hex_id)


@dataclass
class Worker:
    """A Worker, from its first upload until it is deleted."""

    name: str
    tag: str = field(default_factory=hex_id)
    created_on: str = field(default_factory=now)
    modified_on: str = field(default_factory=now)
    versions: list[Version] = field(default_factory=list)
    deployments: list[Deployment] = field(default_factory=list)
    namespaces: dict[str, Namespace] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    schedules: list[str] = field(default_factory=list)
    subdomain_enabled: bool = False
    previews_enabled: bool = False

    @property
    def times(self) -> dict[str, str]:
        """When it was made and changed, as the API shows it."""
        return {"created_on": self.created_on, "modified_on": self.modified_on}

    @property
    def current(self) -> Version | None:
        """The version that serves, if one does."""
        return self.deployments[-1].version if self.deployments else None

    @property
    def serving(self) -> Version:
        """The version that serves, of a Worker of which one does."""
        if (version := self.current) is None:
            raise LookupError(f"nothing of {self.name} serves")
        return version

    @property
    def is_latest_deployed(self) -> bool:
        """Whether all requests go to the newest version: only then Cloudflare changes secrets or settings."""
        last = self.deployments[-1] if self.deployments else None
        return last is not None and not last.others and last.version is self.versions[-1]

    @property
    def migration_tag(self) -> str | None:
        """The last migration that was applied."""
        return self.versions[-1].migration_tag if self.versions else None

    def version(self, version_id: str) -> Version | None:
        """Find a version by its id."""
        return next((one for one in self.versions if one.id == version_id), None)


@dataclass
class Application:
    """A container application. It lives on when its Worker is deleted."""

    name: str
    namespace_id: str
    account: str
    observability: dict[str, Any] | None = None
    """Whether what its containers print is kept; where nothing was said, it is when the Worker's logs are."""
    gone_at: float | None = None
    """When its deletion is through, in seconds of the clock; None: nobody deletes it."""
    created_at: str = field(default_factory=now)


@dataclass
class Domain:
    """A custom domain: hostname, the Worker behind it, and its certificate."""

    hostname: str
    zone_id: str
    zone_name: str
    service: str
    record_id: str
    issued_at: float
    """When the certificate is there, in seconds of the clock."""
    id: str = field(default_factory=hex_id)
    cert_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass
class Account:
    """A Cloudflare account."""

    id: str
    name: str
    subdomain: str | None
    plan: str = "paid"
    containers: bool = True
    prepares_images: bool = True
    suspended: bool = False
    workers: dict[str, Worker] = field(default_factory=dict)
    applications: dict[str, Application] = field(default_factory=dict)
    domains: dict[str, Domain] = field(default_factory=dict)
    destinations: dict[str, str | None] = field(default_factory=dict)
    """Mail addresses of people, and when each agreed to be sent to; None: not yet."""

    def namespaces(self) -> Iterator[Namespace]:
        """All namespaces of Durable Objects."""
        for worker in self.workers.values():
            yield from worker.namespaces.values()


class State:
    """Everything that the stand-in holds. Plain objects: tests read them, and change them at will."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.tokens: dict[str, Token] = {}
        self.zones: dict[str, Zone] = {}

    def token(self, value: str) -> Token | None:
        """Find a token by its value."""
        return self.tokens.get(value)

    def zone_of(self, hostname: str) -> Zone | None:
        """Find the zone that a hostname lies in; of several, the most exact."""
        zones = [zone for zone in self.zones.values() if zone.covers(hostname)]
        return max(zones, key=lambda zone: len(zone.name), default=None)

    def domain(self, hostname: str) -> tuple[Account, Domain] | None:
        """Find a custom domain."""
        for account in self.accounts.values():
            if hostname in account.domains:
                return account, account.domains[hostname]
        return None

    def worker_at(self, hostname: str, path: str) -> tuple[Account, Worker] | None:
        """Find the Worker that Cloudflare's edge hands a request to: routes win over custom domains."""
        if hostname.endswith(".workers.dev"):
            return self._by_subdomain(hostname)
        name = self._routed(hostname, path)
        found = self.domain(hostname)
        if name is None and found:
            name = found[1].service
        zone = self.zone_of(hostname)
        if name is None or zone is None:
            return None
        account = self.accounts[zone.account]
        worker = account.workers.get(name)
        return (account, worker) if worker else None

    def _by_subdomain(self, hostname: str) -> tuple[Account, Worker] | None:
        name, _, subdomain = hostname.removesuffix(".workers.dev").rpartition(".")
        for account in self.accounts.values():
            worker = account.workers.get(name)
            if account.subdomain == subdomain and worker and worker.subdomain_enabled:
                return account, worker
        return None

    def _routed(self, hostname: str, path: str) -> str | None:
        """Find the route that matches; a proxied record must exist, else no request arrives at all."""
        zone = self.zone_of(hostname)
        if zone is None or not self.proxied(hostname):
            return None
        matching = [
            route
            for route in zone.routes.values()
            if re.fullmatch(route_expression(route["pattern"]), f"{hostname}{path}")
        ]
        best = max(matching, key=lambda route: len(route["pattern"]), default=None)
        return best["script"] if best else None

    def proxied(self, hostname: str) -> bool:
        """Tell whether a hostname has a record that leads through Cloudflare's edge."""
        zone = self.zone_of(hostname)
        records = zone.records.values() if zone and not zone.paused else ()
        return any(
            record["proxied"] and record["name"] in (hostname, "*." + hostname.partition(".")[2])
            for record in records
        )


def route_expression(pattern: str) -> str:
    """Return a route's pattern as a regular expression over host and path."""
    pattern = re.sub(r"^https?://", "", pattern)
    return ".*".join(re.escape(part) for part in pattern.split("*"))

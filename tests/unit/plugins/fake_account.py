# SPDX-License-Identifier: Apache-2.0
"""One account and one zone in memory, as far as the modules touch them; shapes are those of recorded answers."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass, field
from typing import Any

from api_server import NO_WORKER, Call, Reply, ok, refused

from tests.standins import multipart

ACCOUNT = "0123456789abcdef0123456789abcdef"
ZONE = "5ababd603b22780302dd8d83498e5172"
TOKEN = "canary-token-0123456789"
BASE = f"/accounts/{ACCOUNT}"
DENIED = refused(403, 10000, "Authentication error")


class FakeAccount:
    """Call it with a request; set its fields to prepare a situation, read them to see what became of it."""

    def __init__(self) -> None:
        self.zones = [
            {"id": ZONE, "name": "example.com", "status": "active", "account": {"id": ACCOUNT}}
        ]
        self.secrets: dict[str, dict[str, str]] = {"alice": {"API_TOKEN": "old"}}
        self.variables: dict[str, dict[str, str]] = {
            "alice": {
                "WORKER_VERSION": "91ab03f7c2d4e560",
                "HERMES_INSTANCE_TYPE": "standard-1",
                "HERMES_PLATFORM": "cloudflare",
            }
        }
        self.configuration: dict[str, Any] = {}
        """Of every Worker, beside its variables, secrets and tags."""
        self.bindings: list[dict[str, str]] = []
        self.etags: dict[str, str] = {}
        self.versions: list[dict[str, Any]] = []
        self.uploads: list[dict[str, Any]] = []
        """What was said of each upload."""
        self.files: dict[str, bytes] = {}
        """Of the last one."""
        self.tags: dict[str, list[str]] = {"alice": ["hermes.workers", "hermes.workers:alice"]}
        self.images: dict[str, dict[str, str]] = {}
        self.domains: dict[str, dict[str, Any]] = {}
        self.records: dict[str, dict[str, Any]] = {}
        self.routes: dict[str, dict[str, Any]] = {}
        self.applications: list[dict[str, Any]] = []
        self.mail = {"enabled": True, "status": "ready"}
        self.rules: dict[str, dict[str, Any]] = {}
        self.verified = ["ann@x.test"]
        self.groups: list[str] = []
        """Permission groups of the token."""
        self.denied: set[str] = set()
        self._ids = 0

    def __call__(self, call: Call) -> Reply:
        for pattern, handler in self.HANDLERS.items():
            found = re.fullmatch(pattern, call.path)
            if found:
                return (
                    DENIED
                    if handler in self.denied
                    else getattr(self, handler)(call, *found.groups())
                )
        return refused(400, 7003, f"Could not route to {call.path}")

    HANDLERS = {  # noqa: RUF012 - a constant
        "/zones": "list_zones",
        f"/zones/{ZONE}/dns_records": "all_records",
        f"/zones/{ZONE}/dns_records/(.+)": "one_record",
        f"/zones/{ZONE}/workers/routes": "all_routes",
        f"/zones/{ZONE}/workers/routes/(.+)": "one_route",
        f"/zones/{ZONE}/email/routing": "mail_settings",
        f"/zones/{ZONE}/email/routing/rules": "all_rules",
        f"/zones/{ZONE}/email/routing/rules/(.+)": "one_rule",
        "/user/tokens/verify": "verify",
        "/user/tokens/t": "policies",
        f"{BASE}/email/routing/addresses": "mail_addresses",
        f"{BASE}/containers/me": "limits",
        f"{BASE}/containers/applications": "all_applications",
        f"{BASE}/containers/applications/(.+)": "one_application",
        f"{BASE}/containers/registries/.+/credentials": "credentials",
        f"{BASE}/workers/subdomain": "subdomain",
        f"{BASE}/workers/services/(.+)": "service",
        f"{BASE}/workers/durable_objects/namespaces": "namespaces",
        f"{BASE}/workers/domains": "all_domains",
        f"{BASE}/workers/domains/(.+)": "one_domain",
        f"{BASE}/workers/scripts": "all_scripts",
        f"{BASE}/workers/scripts/([^/]+)": "upload",
        f"{BASE}/workers/scripts/([^/]+)/(.+)": "script",
        f"{BASE}/containers/image-preparations": "prepare",
    }

    def new_id(self) -> str:
        self._ids += 1
        return f"{self._ids:032x}"

    def list_zones(self, call: Call) -> Reply:
        return ok([one for one in self.zones if call.query.get("name") in (None, one["name"])])

    def verify(self, _call: Call) -> Reply:
        return ok({"id": "t", "status": "active"})

    def policies(self, _call: Call) -> Reply:
        groups = [{"name": one} for one in self.groups]
        return ok({"policies": [{"effect": "allow", "permission_groups": groups}]})

    def mail_settings(self, _call: Call) -> Reply:
        return ok(self.mail)

    def all_rules(self, call: Call) -> Reply:
        if call.method == "POST":
            rule = {**call.body, "id": self.new_id()}
            self.rules[rule["id"]] = rule
            return ok(rule)
        return ok(list(self.rules.values()))

    def one_rule(self, _call: Call, rule_id: str) -> Reply:
        return ok(self.rules.pop(rule_id))

    def mail_addresses(self, _call: Call) -> Reply:
        return ok([{"email": one, "verified": "2026-01-01"} for one in self.verified])

    def limits(self, _call: Call) -> Reply:
        return ok({"limits": {"total_vcpu": 1500}})

    def all_applications(self, call: Call) -> Reply:
        if call.method == "POST":
            identity = call.body["durable_objects"]["namespace_id"]
            self.applications.append(call.body | {"id": identity})
        return ok(self.applications)

    def one_application(self, call: Call, application_id: str) -> Reply:
        found = next((one for one in self.applications if one["id"] == application_id), None)
        if found is None:
            return refused(404, 1000, "APPLICATION_NOT_FOUND")
        if call.method == "DELETE":
            self.applications.remove(found)
        return ok(found)

    def service(self, call: Call, name: str) -> Reply:
        if name not in self.secrets:
            return NO_WORKER
        if call.method == "DELETE":
            del self.secrets[name]
        return ok({})

    def credentials(self, _call: Call) -> Reply:
        return ok({"username": "v1", "password": "canary-password"})

    def namespaces(self, _call: Call) -> Reply:
        return ok([{"id": "n", "script": "alice", "class": "HermesInstance"}])

    def subdomain(self, _call: Call) -> Reply:
        return ok({"subdomain": "acme"})

    def all_records(self, call: Call) -> Reply:
        if call.method == "POST":
            return self._keep_record({"ttl": 1, "proxied": False, **call.body, "id": self.new_id()})
        found = [
            one for one in self.records.values() if call.query.get("name") in (None, one["name"])
        ]
        return ok(found, page=1, total_pages=1)

    def one_record(self, call: Call, record_id: str) -> Reply:
        if call.method == "DELETE":
            return ok(self.records.pop(record_id))
        return self._keep_record({**self.records[record_id], **call.body})

    def _keep_record(self, record: dict[str, Any]) -> Reply:
        self.records[record["id"]] = record
        return ok(record)

    def all_routes(self, call: Call) -> Reply:
        if call.method == "POST":
            route = {**call.body, "id": self.new_id()}
            self.routes[route["id"]] = route
            return ok(route)
        return ok(list(self.routes.values()))

    def one_route(self, call: Call, route_id: str) -> Reply:
        if call.method == "DELETE":
            return ok(self.routes.pop(route_id))
        self.routes[route_id] = {**call.body, "id": route_id}
        return ok(self.routes[route_id])

    def all_domains(self, call: Call) -> Reply:
        if call.method == "PUT":
            return self._attach(call.body)
        wanted = call.query.get("hostname")
        return ok([one for one in self.domains.values() if wanted in (None, one["hostname"])])

    def _attach(self, body: dict[str, Any]) -> Reply:
        if any(one["name"] == body["hostname"] for one in self.records.values()):
            return refused(409, 100117, "Hostname already has externally managed DNS records.")
        old = next((d for d in self.domains.values() if d["hostname"] == body["hostname"]), {})
        if old and old["service"] != body["service"] and not body.get("override_existing_origin"):
            return refused(409, 100116, "Hostname already in use by other custom domain.")
        domain = {"id": self.new_id(), "zone_name": "example.com", **old, **body}
        self.domains[domain["id"]] = domain
        return ok(domain)

    def one_domain(self, _call: Call, domain_id: str) -> Reply:
        return ok(self.domains.pop(domain_id))

    def all_scripts(self, _call: Call) -> Reply:
        return ok(
            [
                {"id": name, "tags": self.tags.get(name, []), "etag": self.etags.get(name)}
                for name in self.secrets
            ]
        )

    def prepare(self, _call: Call) -> Reply:
        return ok({"status": "ready"})

    def upload(self, call: Call, name: str) -> Reply:
        fields, files = multipart.read(call.headers["content-type"], call.content)
        told = json.loads(fields["metadata"])
        self.uploads.append(told)
        self.files = {part: file.data for part, file in files.items()}
        texts = {
            kind: {one["name"]: one["text"] for one in told["bindings"] if one["type"] == kind}
            for kind in ("plain_text", "secret_text")
        }
        self.variables[name] = texts["plain_text"]
        self.secrets[name] = self.secrets.get(name, {}) | texts["secret_text"]
        return ok({"deployment_id": "f" * 32})

    def script(self, call: Call, name: str, rest: str) -> Reply:
        if name not in self.secrets:
            return NO_WORKER
        if rest == "secrets-bulk":
            return self._bulk(name, call.body["secrets"])
        if call.method == "PATCH" and rest == "script-settings":
            self.tags[name] = call.body["tags"]
        version = {"version_id": f"{name}-v1", "percentage": 100}
        answers: dict[str, Any] = {
            "secrets": [{"name": key, "type": "secret_text"} for key in self.secrets[name]],
            "settings": {
                "bindings": [*self._bindings(name), *self.bindings],
                "tags": self.tags.get(name, []),
                **self.configuration,
            },
            "versions": {"items": self.versions},
            "script-settings": {"tags": self.tags.get(name, [])},
            "subdomain": {"enabled": True, "previews_enabled": False},
            "deployments": {"deployments": [{"id": "d", "versions": [version]}]},
            f"versions/{name}-v1": {"resources": {"script_runtime": self._runtime(name)}},
            f"versions/{uuid.UUID('f' * 32)}": {
                "resources": {
                    "bindings": [{"name": "INSTANCE", "namespace_id": "n"}],
                    "script": {"etag": "new-etag"},
                }
            },
        }
        return ok(answers[rest])

    def _bindings(self, name: str) -> list[dict[str, str]]:
        plain = [
            {"type": "plain_text", "name": key, "text": text}
            for key, text in self.variables.get(name, {}).items()
        ]
        return plain + [{"type": "secret_text", "name": key} for key in self.secrets[name]]

    def _runtime(self, name: str) -> dict[str, Any]:
        return {
            "containers": [{"class_name": "HermesInstance", "images": self.images.get(name, {})}]
        }

    def _bulk(self, name: str, changes: dict[str, Any]) -> Reply:
        held = self.secrets[name]
        for key, change in changes.items():
            if change is None:
                held.pop(key, None)
            else:
                held[key] = change["text"]
        return ok({"bindings": self._bindings(name)})


@dataclass
class Images:
    """The account's registry: repository -> tag -> digest."""

    tags: dict[str, str] = field(default_factory=dict)
    collected: int = 0
    repository: str = "hermes"

    def __call__(self, call: Call) -> Reply:
        if call.path == "/v2/_catalog":
            return Reply(200, {"repositories": {f"{ACCOUNT}/{self.repository}": list(self.tags)}})
        if call.path == "/v2/gc/layers":
            self.collected += 1
            return Reply(200)
        tag = call.path.rpartition("/")[2]
        if tag not in self.tags:
            return Reply(404)
        if call.method == "DELETE":
            del self.tags[tag]
            return Reply(202)
        return Reply(200, headers={"Docker-Content-Digest": self.tags[tag]})

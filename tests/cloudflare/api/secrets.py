# SPDX-License-Identifier: Apache-2.0
"""Secrets: written, never read. Each change makes a version, which restarts the Durable Object."""

from __future__ import annotations

from typing import Any

from tests.cloudflare.accounts import Version, Worker
from tests.cloudflare.api.front import Call, Page, route
from tests.cloudflare.api.scripts import SCRIPT, existing
from tests.cloudflare.api.uploads import (
    BINDINGS,
    check_value,
    deploy,
    keep,
    source_of,
    too_many_bindings,
)
from tests.cloudflare.errors import Refusal, not_deployed

MOST = 100
"""Secrets that one call may set and delete."""


@route("GET", SCRIPT + "/secrets", "Workers Scripts Read")
def secrets(call: Call) -> Any:
    names = existing(call).versions[-1].secrets()
    return Page([{"name": name, "type": "secret_text"} for name in names], default_size=1000)


@route("GET", SCRIPT + "/secrets/{secret}", "Workers Scripts Read")
def secret(call: Call) -> Any:
    return _named(existing(call), call.parts["secret"])


@route("PUT", SCRIPT + "/secrets", "Workers Scripts Write")
def set_secret(call: Call) -> Any:
    worker = existing(call)
    given = call.body if isinstance(call.body, dict) else {}
    _change(call, worker, {str(given.get("name")): given})
    return {"name": given["name"], "type": "secret_text"}


@route("DELETE", SCRIPT + "/secrets/{secret}", "Workers Scripts Write")
def delete_secret(call: Call) -> Any:
    worker = existing(call)
    name = _named(worker, call.parts["secret"])["name"]
    _change(call, worker, {name: None})
    return None


@route("PATCH", SCRIPT + "/secrets-bulk", "Workers Scripts Write")
def change_secrets(call: Call) -> Any:
    """Set and delete many secrets at once, as a JSON merge patch: one version. Plain JSON is taken for one."""
    worker = existing(call)
    _change(call, worker, call.field("secrets", dict))
    names = worker.versions[-1].secrets()
    return {name: {"name": name, "type": "secret_text"} for name in names}


def _change(call: Call, worker: Worker, changes: dict[str, dict[str, Any] | None]) -> None:
    if not worker.is_latest_deployed:
        raise not_deployed(10215)
    if len(changes) > MOST:
        raise Refusal(400, 10026, f"At most {MOST} secrets can be changed in one request.")
    bindings = {one["name"]: one for one in worker.versions[-1].bindings}
    for name, given in changes.items():
        if name in bindings and bindings[name]["type"] != "secret_text":
            raise Refusal(400, 10053, f"Binding name '{name}' already in use.")
        if given is None:
            bindings.pop(name, None)
            continue
        if given.get("type", "secret_text") != "secret_text" or given.get("name") != name:
            raise Refusal(400, 10026, f"Secret {name} must have its name and the type secret_text.")
        made = {"name": name, "type": "secret_text", "text": given.get("text")}
        check_value(made)
        bindings[name] = made
    if len(bindings) > BINDINGS[call.account.plan]:
        raise too_many_bindings(call)
    before = worker.versions[-1]
    version = Version(
        number=len(worker.versions) + 1,
        modules=before.modules,
        metadata=before.metadata,
        bindings=list(bindings.values()),
        trigger="secret",
        migration_tag=before.migration_tag,
        source=source_of(call),
    )
    keep(call, worker, version)
    # Whatever the version before was deployed with: there is no way to say it here.
    at_once = None if call.plane.defers_secrets else {"mode": "immediate"}
    deploy(call, worker, version, "secret", strategy=at_once)


def _named(worker: Worker, name: str) -> dict[str, str]:
    if name not in worker.versions[-1].secrets():
        raise Refusal(404, 10056, f"Secret {name} not found.")
    return {"name": name, "type": "secret_text"}

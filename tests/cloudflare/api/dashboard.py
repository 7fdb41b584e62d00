# SPDX-License-Identifier: Apache-2.0
"""What wrangler asks of a Worker that was last edited in the dashboard, before it deploys over that."""

from __future__ import annotations

from typing import Any

from tests.cloudflare.api import domains
from tests.cloudflare.api.front import Call, Page, route
from tests.cloudflare.api.scripts import existing, shown_bindings, shown_settings, shown_subdomain
from tests.cloudflare.errors import Refusal

ENVIRONMENT = "/accounts/{account}/workers/services/{name}/environments/{environment}"


@route("GET", ENVIRONMENT, "Workers Scripts Read")
def environment(call: Call) -> Any:
    worker = _of_environment(call)
    version = worker.versions[-1]
    script = {
        **shown_settings(worker),
        "id": worker.name,
        "tag": worker.tag,
        "etag": version.etag,
        "handlers": ["fetch"],
        "last_deployed_from": version.source,
    }
    del script["bindings"]
    return {"environment": call.parts["environment"], **worker.times, "script": script}


@route("GET", ENVIRONMENT + "/bindings", "Workers Scripts Read")
def bindings(call: Call) -> Any:
    worker = _of_environment(call)
    return shown_bindings(worker.versions[-1], worker, ids=True)


@route("GET", ENVIRONMENT + "/subdomain", "Workers Scripts Read")
def subdomain(call: Call) -> Any:
    return shown_subdomain(_of_environment(call))


@route("GET", ENVIRONMENT + "/routes", "Workers Scripts Read")
def routes(call: Call) -> Any:
    worker = _of_environment(call)
    zones = [one for one in call.state.zones.values() if one.account == call.account.id]
    return [
        {**one, "zone_name": zone.name}
        for zone in zones
        for one in zone.routes.values()
        if one["script"] == worker.name
    ]


@route("GET", "/accounts/{account}/workers/domains/records", "Workers Scripts Read")
def records(call: Call) -> Any:
    service = call.query.get("service")
    found = [one for one in call.account.domains.values() if service in (None, one.service)]
    return Page([domains.shown(one) for one in found])


def _of_environment(call: Call) -> Any:
    if call.parts["environment"] != "production":
        raise Refusal(404, 10092, "Environment not found.")
    return existing(call)

# SPDX-License-Identifier: Apache-2.0
"""Workers: uploading, describing and deleting them."""

from __future__ import annotations

from typing import Any

import aiohttp
from aiohttp import web

from tests.cloudflare.accounts import Version, Worker, hex_id
from tests.cloudflare.api.front import Call, Page, route
from tests.cloudflare.api.uploads import add_version, deploy, worker_for
from tests.cloudflare.errors import Refusal, no_worker, not_deployed

A = "/accounts/{account}/workers"
SCRIPT = A + "/scripts/{name}"
FOREIGN_OPTIONS = ("logpush", "tail_consumers", "observability")


def existing(call: Call) -> Worker:
    """Return the Worker that the path names."""
    found = call.account.workers.get(call.parts["name"])
    if found is None:
        raise no_worker()
    return found


def shown_bindings(version: Version, worker: Worker, ids: bool = False) -> list[dict[str, Any]]:
    """Return bindings without the values of secrets; `ids` adds those of namespaces."""
    shown = []
    for binding in version.bindings:
        one = {key: value for key, value in binding.items() if key != "text"}
        if binding["type"] != "secret_text" and "text" in binding:
            one["text"] = binding["text"]
        if ids and binding["type"] == "durable_object_namespace":
            one["namespace_id"] = worker.namespaces[binding["class_name"]].id
        shown.append(one)
    return shown


@route("PUT", SCRIPT, "Workers Scripts Write")
def upload(call: Call) -> Any:
    """Upload and deploy a version."""
    worker = worker_for(call)
    version = add_version(call, worker)
    strategy = version.metadata.get("code_update_strategy")
    deploy(call, worker, version, "upload", strategy=strategy)
    return {
        "id": worker.name,
        "tag": worker.tag,
        "etag": version.etag,
        "handlers": ["fetch"],
        "modified_on": worker.modified_on,
        "created_on": worker.created_on,
        "migration_tag": worker.migration_tag,
        "startup_time_ms": 3,
        "deployment_id": version.id.replace("-", ""),
        "pipeline_hash": hex_id(),
        "mutable_pipeline_id": hex_id(),
        "entry_point": version.metadata["main_module"],
        "has_modules": True,
        **_reconciled(version),
    }


def _reconciled(version: Version) -> dict[str, Any]:
    if "exports" not in version.metadata:
        return {}
    names = ("updated", "deleted", "renamed", "transferred", "transfer_pending")
    notes = ("warnings", "info", "removable_entries")
    created = list(version.metadata["exports"]) if version.number == 1 else []
    lists: dict[str, list[Any]] = {name: [] for name in (*names, *notes)}
    return {"exports_reconciliation": {"created": created, **lists}}


@route("GET", A + "/scripts", "Workers Scripts Read")
def scripts(call: Call) -> Any:
    """List all Workers; the answer has one page, whatever is asked for."""
    wanted = call.query.get("tags", "")
    terms = [term.rpartition(":") for term in wanted.split(",") if term]
    return [
        _listed(worker)
        for worker in call.account.workers.values()
        if all((tag in worker.tags) == (answer == "yes") for tag, _, answer in terms)
    ]


@route("GET", A + "/scripts-search", "Workers Scripts Read")
def search(call: Call) -> Any:
    """Find Workers by a part of their names."""
    wanted = call.query.get("name", "")
    found = [worker for worker in call.account.workers.values() if wanted in worker.name]
    return Page([_found(worker) for worker in found], default_size=10)


def _found(worker: Worker) -> dict[str, Any]:
    environment = {"environment_name": "production", "environment_is_default": True}
    return {
        "id": worker.tag,
        "script_name": worker.name,
        "service_name": worker.name,
        **environment,
        **worker.times,
    }


@route("GET", SCRIPT, "Workers Scripts Read")
def script(call: Call) -> Any:
    """Return the code, which is no envelope."""
    return _content(existing(call))


@route("GET", SCRIPT + "/content/v2", "Workers Scripts Read")
def content(call: Call) -> Any:
    """Return the code of the newest version, whichever is asked for."""
    return _content(existing(call))


def _content(worker: Worker) -> web.Response:
    writer = aiohttp.MultipartWriter("form-data")
    for module in worker.versions[-1].modules:
        part = writer.append(module.content, {"Content-Type": module.content_type})
        part.set_content_disposition("form-data", name=module.name, filename=module.name)
    entrypoint = worker.versions[-1].metadata["main_module"]
    return web.Response(body=writer, headers={"cf-entrypoint": entrypoint})


@route("GET", SCRIPT + "/schedules", "Workers Scripts Read")
def schedules(call: Call) -> Any:
    return _schedules(existing(call))


@route("PUT", SCRIPT + "/schedules", "Workers Scripts Write")
def set_schedules(call: Call) -> Any:
    found = existing(call)
    found.schedules = [str(one["cron"]) for one in call.body or []]
    return _schedules(found)


def _schedules(worker: Worker) -> dict[str, Any]:
    return {"schedules": [{"cron": one, **worker.times} for one in worker.schedules]}


@route("GET", A + "/services/{name}", "Workers Scripts Read")
def service(call: Call) -> Any:
    worker = existing(call)
    version = worker.versions[-1]
    script = {
        "id": worker.name,
        "tag": worker.tag,
        "tags": worker.tags,
        "last_deployed_from": version.source,
        "migration_tag": worker.migration_tag,
        "etag": version.etag,
        "handlers": ["fetch"],
    }
    production = {"environment": "production", **worker.times, "script": script}
    return {
        "id": worker.name,
        **worker.times,
        "default_environment": production,
        "environments": [],
    }


@route("GET", A + "/workers/{name}", "Workers Scripts Read")
def worker(call: Call) -> Any:
    found = existing(call)
    suffix = f"{found.name}.{call.account.subdomain}.workers.dev"
    names = ("domains", "dispatch_namespace_outbounds", "durable_objects", "queues", "workers")
    return {
        "id": found.tag,
        "name": found.name,
        "created_on": found.created_on,
        "updated_on": found.modified_on,
        "deployed_on": found.deployments[-1].created_on if found.deployments else None,
        "logpush": False,
        "observability": {"enabled": False, "logs": {"enabled": False}},
        "tail_consumers": [],
        "references": {name: [] for name in names},
        "subdomain": {
            "enabled": found.subdomain_enabled,
            "previews_enabled": found.previews_enabled,
            "url": f"https://{suffix}",
            "preview_url_suffix": f"-{suffix}",
        },
        "tags": found.tags,
    }


@route("GET", SCRIPT + "/settings", "Workers Scripts Read")
def settings(call: Call) -> Any:
    return shown_settings(existing(call))


@route("PATCH", SCRIPT + "/settings", "Workers Scripts Write")
def change_settings(call: Call) -> Any:
    """Change variables and other settings of a version; makes a new one of the same code."""
    found = existing(call)
    if not found.is_latest_deployed:
        raise not_deployed(10214)
    given = call.body if isinstance(call.body, dict) else {}
    before = found.versions[-1]
    call.body = {
        **before.metadata,
        "keep_bindings": [],
        **given,
        "migrations": given.get("migrations"),
    }
    if "bindings" not in given:
        call.body["bindings"] = [
            {"type": "inherit", "name": one["name"]} for one in before.bindings
        ]
    call.modules = before.modules
    version = add_version(call, found, "version_upload")
    deploy(call, found, version, "version_upload")
    return shown_settings(found)


@route("GET", SCRIPT + "/script-settings", "Workers Scripts Read")
def script_settings(call: Call) -> Any:
    return _script_settings(existing(call))


@route("PATCH", SCRIPT + "/script-settings", "Workers Scripts Write")
def change_script_settings(call: Call) -> Any:
    """Change what does not belong to a version, its tags above all; makes no new version."""
    found = existing(call)
    unknown = set(call.body or {}) - {"tags", *FOREIGN_OPTIONS}
    if unknown:
        raise Refusal(400, 10026, f"Could not parse request body: field {min(unknown)}.")
    tags = call.field("tags", list, found.tags)
    if len(tags) > 8 or not all(isinstance(one, str) and not {",", "&"} & set(one) for one in tags):
        raise Refusal(400, 10021, "A Worker has at most 8 tags, without commas and ampersands.")
    found.tags = sorted(set(tags))
    return _script_settings(found)


@route("GET", SCRIPT + "/subdomain", "Workers Scripts Read")
def subdomain(call: Call) -> Any:
    return shown_subdomain(existing(call))


@route("POST", SCRIPT + "/subdomain", "Workers Scripts Write")
def set_subdomain(call: Call) -> Any:
    found = existing(call)
    if call.account.subdomain is None:
        raise Refusal(400, 10063, "You need a workers.dev subdomain in order to proceed.")
    found.subdomain_enabled = call.field("enabled", bool)
    found.previews_enabled = call.field("previews_enabled", bool, found.previews_enabled)
    return shown_subdomain(found)


@route("DELETE", SCRIPT + "/subdomain", "Workers Scripts Write")
def remove_subdomain(call: Call) -> Any:
    found = existing(call)
    found.subdomain_enabled = found.previews_enabled = False
    return shown_subdomain(found)


@route("DELETE", A + "/services/{name}", "Workers Scripts Write")
def delete_service(call: Call) -> Any:
    return _delete(call)


@route("DELETE", SCRIPT, "Workers Scripts Write")
def delete_script(call: Call) -> Any:
    return _delete(call)


@route("GET", A + "/durable_objects/namespaces", "Workers Scripts Read")
def namespaces(call: Call) -> Any:
    found = [
        {
            "id": one.id,
            "name": f"{one.script}_{one.class_name}",
            "script": one.script,
            "class": one.class_name,
            "use_sqlite": one.sqlite,
        }
        for one in call.account.namespaces()
    ]
    return Page(found)


@route("GET", "/accounts/{account}/storage/kv/namespaces", "Workers Scripts Read")
def kv_namespaces(call: Call) -> Any:
    """wrangler looks for the key-value store of a static site when it deletes a Worker; there is none here."""
    return Page([])


def _delete(call: Call) -> None:
    """Delete a Worker with its objects' storage. Its container applications, domains and routes stay."""
    found = existing(call)
    if found.namespaces and call.query.get("force") != "true":
        raise Refusal(
            400,
            10064,
            "Cannot delete this Worker: its Durable Objects would be lost. Use force=true to delete them too.",
        )
    del call.account.workers[found.name]
    call.plane.edge.deleted(found)


def shown_settings(worker: Worker) -> dict[str, Any]:
    """Return a Worker's settings as Cloudflare shows them."""
    version = worker.versions[-1]
    return {
        "bindings": shown_bindings(version, worker, ids=True),
        "compatibility_date": version.metadata["compatibility_date"],
        "compatibility_flags": version.metadata.get("compatibility_flags") or [],
        "usage_model": "standard",
        "tags": worker.tags,
        "observability": version.metadata.get("observability") or {"enabled": False},
        "logpush": False,
        "tail_consumers": [],
        "migration_tag": worker.migration_tag,
    }


def _script_settings(worker: Worker) -> dict[str, Any]:
    kept = ("tags", *FOREIGN_OPTIONS)
    return {name: value for name, value in shown_settings(worker).items() if name in kept}


def shown_subdomain(worker: Worker) -> dict[str, bool]:
    """Return whether a Worker is served below workers.dev."""
    return {"enabled": worker.subdomain_enabled, "previews_enabled": worker.previews_enabled}


def _listed(worker: Worker) -> dict[str, Any]:
    version = worker.versions[-1]
    return {
        "id": worker.name,
        "tag": worker.tag,
        "tags": worker.tags,
        "etag": version.etag,
        "handlers": ["fetch"],
        "created_on": worker.created_on,
        "modified_on": worker.modified_on,
        "usage_model": "standard",
        "compatibility_date": version.metadata["compatibility_date"],
        "migration_tag": worker.migration_tag,
        "last_deployed_from": version.source,
        "has_modules": True,
        "has_assets": False,
        "logpush": False,
    }

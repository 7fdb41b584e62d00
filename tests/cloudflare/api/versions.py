# SPDX-License-Identifier: Apache-2.0
"""Versions and deployments of a Worker, and going back to an earlier one."""

from __future__ import annotations

import base64
from typing import Any

from tests.cloudflare.accounts import Deployment, Version, Worker
from tests.cloudflare.api import uploads
from tests.cloudflare.api.front import Call, Page, route
from tests.cloudflare.api.scripts import SCRIPT, existing, shown_bindings
from tests.cloudflare.api.uploads import add_version, deploy, worker_for
from tests.cloudflare.errors import Refusal, no_worker

LATEST = 10
"""How many versions can be deployed again."""


@route("GET", SCRIPT + "/versions", "Workers Scripts Read")
def versions(call: Call) -> Any:
    worker = existing(call)
    deployable = call.query.get("deployable") == "true"
    newest = worker.versions[::-1][: LATEST if deployable else None]
    return Page([_summary(one) for one in newest], inside="items")


@route("GET", SCRIPT + "/versions/{version}", "Workers Scripts Read")
def version(call: Call) -> Any:
    worker = existing(call)
    found = _version(worker, call.parts["version"])
    if call.plane.unready_versions > 0:
        call.plane.unready_versions -= 1
        raise Refusal(404, 100146, "The version is not ready yet.")
    return _shown(found, worker)


@route("POST", SCRIPT + "/versions", "Workers Scripts Write")
def upload_version(call: Call) -> Any:
    """Upload a version that does not serve yet."""
    worker = worker_for(call)
    if worker.name not in call.account.workers:
        raise no_worker()
    if (call.body or {}).get("migrations"):
        raise Refusal(400, 10211, "Migrations must be fully applied by running `wrangler deploy`.")
    made = add_version(call, worker, "version_upload")
    return {**_shown(made, worker), "startup_time_ms": 3}


@route("GET", SCRIPT + "/deployments", "Workers Scripts Read")
def deployments(call: Call) -> Any:
    worker = existing(call)
    return {"deployments": [_deployment(one) for one in worker.deployments[::-1]]}


@route("POST", SCRIPT + "/deployments", "Workers Scripts Write")
def create_deployment(call: Call) -> Any:
    """Let an existing version serve again, or one that was only uploaded."""
    worker = existing(call)
    wanted = call.field("versions", list)
    if (
        call.field("strategy", str) != "percentage"
        or sum(one["percentage"] for one in wanted) != 100
    ):
        raise Refusal(400, 10026, "The percentages of the versions must sum to 100.")
    if not 1 <= len(wanted) <= 2:
        raise Refusal(400, 10026, "One or two versions can be deployed.")
    wanted = sorted(wanted, key=lambda one: -one["percentage"])
    chosen, *rest = [_version(worker, one["version_id"]) for one in wanted]
    if not {chosen.id, *(one.id for one in rest)} <= {one.id for one in worker.versions[-100:]}:
        raise Refusal(400, 10221, "The version is too old to be deployed again.")
    earlier = worker.current is not None and chosen.number < worker.current.number
    changed = worker.current and chosen.secrets() != worker.current.secrets()
    if earlier and changed and call.query.get("force") != "true":
        raise Refusal(
            400, 10220, "Cannot deploy this version: secrets have changed since it was created."
        )
    message = call.field("annotations", dict, {}).get("workers/message", "")
    trigger = "rollback" if earlier else "deployment"
    strategy = call.field("code_update_strategy", dict, uploads.DEFERRED)
    made = deploy(call, worker, chosen, trigger, message, strategy)
    made.others = [
        (version, one["percentage"]) for version, one in zip(rest, wanted[1:], strict=True)
    ]
    return _deployment(made)


@route("GET", SCRIPT + "/deployments/{deployment}", "Workers Scripts Read")
def one_deployment(call: Call) -> Any:
    wanted = call.parts["deployment"]
    for one in existing(call).deployments:
        if one.id == wanted:
            return _deployment(one)
    raise Refusal(404, 10023, "Deployment not found.")


@route(
    "GET", "/accounts/{account}/workers/workers/{name}/versions/{version}", "Workers Scripts Read"
)
def version_with_code(call: Call) -> Any:
    """Return a version as the newer API has it: of its code, too, when that is asked for."""
    worker = existing(call)
    found = _version(worker, call.parts["version"])
    shown = {
        "id": found.id,
        "number": found.number,
        "created_on": found.created_on,
        "urls": [],
        "source": found.source,
        "annotations": {"workers/triggered_by": found.trigger},
        "main_module": found.metadata["main_module"],
        "compatibility_date": found.metadata["compatibility_date"],
        "compatibility_flags": found.metadata.get("compatibility_flags") or [],
        "bindings": shown_bindings(found, worker, ids=True),
        "containers": [{"class_name": one["class_name"]} for one in found.containers],
        "usage_model": "standard",
    }
    if call.query.get("include") == "modules":
        shown["modules"] = [
            {
                "name": one.name,
                "content_type": one.content_type,
                "content_base64": base64.b64encode(one.content).decode(),
            }
            for one in found.modules
        ]
    return shown


def _version(worker: Worker, version_id: str) -> Version:
    found = worker.version(version_id)
    if found is None:
        raise Refusal(404, 100145, "Version not found.")
    return found


def _summary(version: Version) -> dict[str, Any]:
    return {
        "id": version.id,
        "number": version.number,
        "metadata": {
            "created_on": version.created_on,
            "modified_on": version.created_on,
            "source": version.source,
            "author_id": "owner",
            "author_email": "owner@example.com",
            "hasPreview": True,
        },
        "annotations": {
            "workers/triggered_by": version.trigger,
            **(version.metadata.get("annotations") or {}),
        },
    }


def _shown(version: Version, worker: Worker) -> dict[str, Any]:
    return {
        **_summary(version),
        "startup_time_ms": 3,
        "resources": {
            "script": {
                "etag": version.etag,
                "handlers": ["fetch"],
                "last_deployed_from": version.source,
            },
            "script_runtime": {
                "compatibility_date": version.metadata["compatibility_date"],
                "usage_model": "standard",
                "migration_tag": version.migration_tag,
                "containers": version.containers,
            },
            "bindings": shown_bindings(version, worker, ids=True),
        },
    }


def _deployment(deployment: Deployment) -> dict[str, Any]:
    annotations = {"workers/triggered_by": deployment.trigger}
    if deployment.message:
        annotations["workers/message"] = deployment.message
    return {
        "id": deployment.id,
        "source": deployment.source,
        "strategy": "percentage",
        "author_email": "owner@example.com",
        "created_on": deployment.created_on,
        "annotations": annotations,
        "code_update_strategy": deployment.code_update_strategy,
        "versions": [
            {"version_id": version.id, "percentage": percentage}
            for version, percentage in _shares(deployment)
        ],
    }


def _shares(deployment: Deployment) -> list[tuple[Version, float]]:
    rest = sum(percentage for _version, percentage in deployment.others)
    return [(deployment.version, 100 - rest), *deployment.others]

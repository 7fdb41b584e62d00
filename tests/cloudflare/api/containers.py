# SPDX-License-Identifier: Apache-2.0
"""Containers: the account's limits, credentials for its registry, image preparations and applications."""

from __future__ import annotations

import re
from typing import Any

from tests.cloudflare.accounts import Application, Worker
from tests.cloudflare.api.front import Accepted, Call, Page, route
from tests.cloudflare.errors import Refusal

RIGHTS = frozenset({"list", "pull", "push"})
"""What credentials for the registry may be for; each with what comes before it."""
A = "/accounts/{account}/containers"
IMAGE = re.compile(
    r"(?P<host>[^/]+)/(?P<account>[0-9a-f]{32})/(?P<repository>[a-z0-9._/-]+)@(?P<digest>sha256:[0-9a-f]{64})"
)


def require_containers(call: Call) -> None:
    """Refuse an account that has no Containers: they come with Workers Paid."""
    if call.account.plan != "paid" or not call.account.containers:
        raise Refusal(403, 1000, "UNAUTHORIZED: Containers are not available for this account.")


@route("GET", A + "/me", "Workers Containers Read")
def me(call: Call) -> Any:
    require_containers(call)
    return {
        "external_account_id": call.account.id,
        "legacy_identity": call.account.name,
        "capabilities": [],
        "limits": {
            "account_id": call.account.id,
            "vcpu_per_deployment": 4,
            "memory_mib_per_deployment": 12288,
            "memory_per_deployment": "12GB",
            "disk_per_deployment": "20GB",
            "disk_mb_per_deployment": 20000,
            "total_vcpu": 1500,
            "total_memory_mib": 6000000,
            "node_group": "metal",
            "ipv4s": 0,
            "network_modes": ["private"],
            "total_disk_mb": 30000000,
        },
        "locations": [],
        "defaults": {"vcpus": 0.0625, "memory_mib": 256, "disk_mb": 2000, "memory": "256MiB"},
    }


@route("POST", A + "/registries/{registry}/credentials", "Workers Containers Write")
def registry_credentials(call: Call) -> Any:
    require_containers(call)
    host = call.parts["registry"]
    if host not in call.plane.registry.hosts:
        raise Refusal(404, 1000, "REGISTRY_NOT_FOUND")
    minutes = call.field("expiration_minutes", int)
    permissions = call.field("permissions", list)
    if minutes <= 0 or not permissions or not RIGHTS.issuperset(permissions):
        raise Refusal(400, 1000, "VALIDATE_INPUT")
    if "push" in permissions or "pull" in permissions:
        permissions = [*permissions, "list"]
    password = call.plane.registry.lend(call.account.id, permissions, minutes * 60)
    return {
        "account_id": call.account.id,
        "registry_host": host,
        "username": "v1",
        "password": password,
    }


@route("GET", A + "/registries", "Workers Containers Read")
def registries(call: Call) -> Any:
    require_containers(call)
    return []


@route("POST", A + "/image-preparations", "Workers Containers Write")
def prepare_image(call: Call) -> Any:
    """Make an image ready for the runtime: pending at first where a test orders it, and then ready or error."""
    require_containers(call)
    image = call.field("image", str)
    require_image(call, image)
    if not call.account.prepares_images:
        raise Refusal(403, 1000, "Image preparation is not enabled for this account.")
    waiting = call.plane.preparations
    status = waiting.pop(0) if waiting else "ready"
    answer = {"image": image, "status": status}
    if status == "error":
        answer["reason"] = "The image could not be converted for the Containers runtime."
    return Accepted(answer) if status == "pending" else answer


def require_image(call: Call, image: str) -> None:
    """Refuse what is not an image of this account's registry, named by digest."""
    named = IMAGE.fullmatch(image)
    if named is None or named["host"] not in call.plane.registry.hosts:
        raise Refusal(400, 1000, f"INVALID_IMAGE: {image} is not a digest-pinned managed image.")
    if named["account"] != call.account.id:
        raise Refusal(400, 1000, f"INVALID_IMAGE: {image} does not belong to this account.")
    repository = f"{named['account']}/{named['repository']}"
    if not call.plane.registry.has(repository, named["digest"]):
        raise Refusal(400, 1000, f"IMAGE_NOT_FOUND: {image} does not exist in this account.")


@route("GET", A + "/applications", "Workers Containers Read")
def applications(call: Call) -> Any:
    require_containers(call)
    name = call.query.get("name")
    found = [one for one in _applications(call) if name in (None, one.name)]
    return Page([_shown(call, one) for one in found], default_size=1000)


@route("GET", A + "/dash/applications", "Workers Containers Read")
def dash_applications(call: Call) -> Any:
    require_containers(call)
    return Page([_dashboard(call, one) for one in _applications(call)], default_size=1000)


@route("GET", A + "/applications/{application}", "Workers Containers Read")
def application(call: Call) -> Any:
    return _shown(call, _existing(call))


@route("GET", A + "/applications/{application}/instances-v2", "Workers Containers Read")
def instances(call: Call) -> Any:
    _existing(call)
    return Page([])


@route("GET", A + "/dash/applications/{application}/instances", "Workers Containers Read")
def dash_instances(call: Call) -> Any:
    _existing(call)
    return {"instances": [], "durable_objects": []}


@route("POST", A + "/applications", "Workers Containers Write")
def create_application(call: Call) -> Any:
    require_containers(call)
    name = call.field("name", str)
    policy = call.field("scheduling_policy", str, "default")
    namespace_id = call.field("durable_objects", dict, {}).get("namespace_id", "")
    if policy != "durable_object":
        raise Refusal(
            400, 1000, "VALIDATE_INPUT: this stand-in knows scheduling_policy durable_object only."
        )
    if all(one.id != namespace_id for one in call.account.namespaces()):
        raise Refusal(400, 1000, "DURABLE_OBJECT_NOT_FOUND")
    there = _applications(call)
    if any(one.namespace_id == namespace_id for one in there):
        raise Refusal(400, 1000, "DURABLE_OBJECT_ALREADY_HAS_APPLICATION")
    if any(one.name == name for one in there):
        raise Refusal(400, 1000, "VALIDATE_INPUT: an application of this name exists.")
    made = Application(name, namespace_id, call.account.id, _observability(call))
    call.account.applications[made.namespace_id] = made
    _cut(call, namespace_id)
    return _shown(call, made)


@route("PATCH", A + "/applications/{application}", "Workers Containers Write")
def change_application(call: Call) -> Any:
    existing = _existing(call)
    if call.field("scheduling_policy", str, "durable_object") != "durable_object":
        raise Refusal(400, 1000, "VALIDATE_INPUT: scheduling_policy cannot be changed.")
    existing.observability = _observability(call) or existing.observability
    return _shown(call, existing)


@route("DELETE", A + "/applications/{application}", "Workers Containers Write")
def delete_application(call: Call) -> Any:
    """Begin to delete an application; it is gone a while later."""
    existing = _existing(call)
    if existing.gone_at is None:
        existing.gone_at = call.plane.clock() + call.plane.deletion_seconds
        _cut(call, existing.namespace_id)
    return {"message": "The application is being deleted."}


def _observability(call: Call) -> dict[str, Any] | None:
    """Return what a call says of the containers' logs; None when it says nothing."""
    given = call.field("observability", dict, {})
    logs = given.get("logs", {})
    if given and (set(given) != {"logs"} or not isinstance(logs.get("enabled"), bool)):
        raise Refusal(400, 1000, "VALIDATE_INPUT: observability can enable or disable logs.")
    return given or None


def _cut(call: Call, namespace_id: str) -> None:
    """Restart the Worker whose objects got, or lost, what runs their containers."""
    worker = _worker(call, namespace_id)
    if worker:
        call.plane.edge.changed(worker)


def _worker(call: Call, namespace_id: str) -> Worker | None:
    for worker in call.account.workers.values():
        if any(one.id == namespace_id for one in worker.namespaces.values()):
            return worker
    return None


def _applications(call: Call) -> list[Application]:
    """Return the account's applications, without those whose deletion is through by now."""
    kept = call.account.applications
    for one in list(kept.values()):
        if one.gone_at is not None and one.gone_at <= call.plane.clock():
            del kept[one.namespace_id]
    return list(kept.values())


def _existing(call: Call) -> Application:
    require_containers(call)
    wanted = call.parts["application"]
    found = next((one for one in _applications(call) if one.namespace_id == wanted), None)
    if found is None:
        raise Refusal(404, 1001, "APPLICATION_NOT_FOUND")
    return found


def _shown(call: Call, one: Application) -> dict[str, Any]:
    running = call.plane.edge.is_awake(_worker(call, one.namespace_id))
    return {
        "id": one.namespace_id,
        "account_id": one.account,
        "created_at": one.created_at,
        "updated_at": one.created_at,
        "version": 1,
        "instances": 0,
        "jobs": False,
        "configuration": {},
        "constraints": {},
        "health": {
            "instances": {
                "active": int(running),
                "healthy": int(running),
                "failed": 0,
                "scheduling": 0,
                "starting": 0,
                "durable_objects_active": int(running),
            }
        },
        "name": one.name,
        **({"observability": one.observability} if one.observability else {}),
        "scheduling_policy": "durable_object",
        "durable_objects": {"namespace_id": one.namespace_id},
    }


def _dashboard(call: Call, one: Application) -> dict[str, Any]:
    shown = _shown(call, one)
    shown["image"] = ""
    shown["health"] = {"instances": shown["health"]["instances"]}
    return shown

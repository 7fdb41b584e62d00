# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Container applications of an account, and the images that its Workers start."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

from . import scripts
from .client import Cloudflare, CloudflareError, segment

UNLOGGED = {"logs": {"enabled": False}}
"""What containers print does not go to Workers Logs, where it would lie for days as it is."""
TAKEN = "DURABLE_OBJECT_ALREADY_HAS_APPLICATION"
DELETION_SECONDS = 120.0
"""How long a deletion may take, after Cloudflare has said yes to it."""
DIGEST = re.compile(r"[^/\s]+/\S+@sha256:[0-9a-f]{64}")
"""An image's reference by its digest."""


def limits(api: Cloudflare) -> dict[str, Any]:
    """Return what the account may use of Containers. Raises CloudflareError where they are not available."""
    found: dict[str, Any] = api.get(api.account("containers/me"))
    return found


def applications(api: Cloudflare) -> list[dict[str, Any]]:
    """Return all container applications of the account."""
    return api.get(api.account("containers/applications")) or []


def application(api: Cloudflare, application_id: str) -> dict[str, Any] | None:
    """Return one application, or None. Under the durable_object policy its id is the namespace's."""
    try:
        found: dict[str, Any] = api.get(
            api.account(f"containers/applications/{segment(application_id)}")
        )
        return found
    except CloudflareError as error:
        if error.missing:
            return None
        raise


def ensure_application(api: Cloudflare, name: str, namespace_id: str) -> None:
    """Have the Durable Objects of a namespace start containers, as they choose, and keep what those print to itself."""
    there = application(api, namespace_id)
    if there is None:
        create_application(api, name, namespace_id)
    elif there.get("observability") != UNLOGGED:
        path = api.account(f"containers/applications/{segment(namespace_id)}")
        api.patch(path, {"observability": UNLOGGED})


def create_application(api: Cloudflare, name: str, namespace_id: str) -> None:
    """Create what ensure_application() misses. Twice does no harm."""
    body = {
        "name": name,
        "scheduling_policy": "durable_object",
        "durable_objects": {"namespace_id": namespace_id},
        "observability": UNLOGGED,
    }
    try:
        api.post(api.account("containers/applications"), body)
    except CloudflareError as error:
        # An answer that was lost may have been a good one, and another run may have been first.
        is_there = error.uncertain or TAKEN in error.message
        if not is_there or not any(_serves(one, namespace_id) for one in applications(api)):
            raise


def prepare_image(api: Cloudflare, image: str) -> dict[str, Any]:
    """Have an image of the registry made ready to start; return its `status` (pending, ready, error) and `reason`."""
    path = api.account("containers/image-preparations")
    preparation: dict[str, Any] = api.post(path, {"image": image}, repeatable=True)
    return preparation


def workers_with_application(api: Cloudflare) -> set[str]:
    """Return the names of the Workers whose Durable Objects have a container application."""
    served = {_namespace(one) for one in applications(api)}
    return {one["script"] for one in _namespaces(api) if one["id"] in served}


def _namespaces(api: Cloudflare) -> Iterator[dict[str, Any]]:
    return api.pages(api.account("workers/durable_objects/namespaces"), per_page=1000)


def _namespace(application_: dict[str, Any]) -> str | None:
    return (application_.get("durable_objects") or {}).get("namespace_id")


def _serves(application_: dict[str, Any], namespace_id: str) -> bool:
    return namespace_id in (application_.get("id"), _namespace(application_))


def delete_application(api: Cloudflare, application_id: str) -> bool:
    """Delete an application, which ends its instances and its cost; returns whether it was there.

    Cloudflare says yes at once and does it later, so it is waited for. Raises CloudflareError when it stays.
    """
    if not api.delete(api.account(f"containers/applications/{segment(application_id)}")):
        return False
    deadline, pause = time.monotonic() + DELETION_SECONDS, 0.2
    while application(api, application_id) is not None:
        if time.monotonic() > deadline:
            raise CloudflareError(
                0,
                [],
                f"the container application is still there {DELETION_SECONDS:.0f} s after it was deleted",
                "run it again in a minute; see Containers in the dashboard.",
                "GET",
                api.account(f"containers/applications/{application_id}"),
            )
        time.sleep(pause)
        pause = min(pause * 1.5, 2.0)
    return True


def images_in_use(api: Cloudflare) -> set[str]:
    """Return the references of all images that an application names, or a recent version of a Worker.

    Recent are the versions of the latest deployments: those that a rollback goes back to. Only Workers with Durable
    Objects are asked: no others start containers. Raises CloudflareError where it is not told what one starts.
    """
    found = applications(api)
    named = {_image(one) for one in found}
    served = {_namespace(one) for one in found if one.get("scheduling_policy") == "durable_object"}
    workers: dict[str, set[str]] = {}
    for one in _namespaces(api):
        workers.setdefault(one.get("script") or "", set()).add(one["id"])
    for name, namespaces in workers.items():
        for version_id in _recent_versions(api, name) if name else ():
            version = scripts.version(api, name, version_id)
            images = {*images_of(version), *_told_otherwise(version)} - {""}
            if not images and not served.isdisjoint(namespaces):
                raise CloudflareError(
                    0,
                    [],
                    f"Cloudflare does not tell which images version {version_id} of {name} starts",
                    "delete images by hand, if you know that nothing needs them.",
                    "GET",
                    scripts.path(api, name, f"versions/{version_id}"),
                )
            named |= images
    return named - {""}


def _told_otherwise(version: dict[str, Any]) -> Iterator[str]:
    """Return the images that a version's variables name: ours do, so that one need not believe in the other field."""
    for text in scripts.variables(version.get("resources") or {}).values():
        if DIGEST.fullmatch(text):
            yield text


def images_of(version: dict[str, Any]) -> Iterator[str]:
    """Return the references of the images that a version's containers start."""
    runtime = (version.get("resources") or {}).get("script_runtime") or {}
    for container in runtime.get("containers") or []:
        yield from (container.get("images") or {}).values()
        yield container.get("image") or ""


def _image(application_: dict[str, Any]) -> str:
    return (application_.get("configuration") or {}).get("image") or ""


def _recent_versions(api: Cloudflare, name: str) -> set[str]:
    found = scripts.deployments(api, name)
    return {share["version_id"] for one in found for share in one["versions"]}

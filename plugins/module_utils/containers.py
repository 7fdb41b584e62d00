# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Container applications of an account, and the images that its Workers start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible_collections.hermes.workers.plugins.module_utils import scripts
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import (
    Cloudflare,
    CloudflareError,
    segment,
)

UNLOGGED = {"logs": {"enabled": False}}
"""What containers print does not go to Workers Logs, where it would lie for days as it is."""


def limits(api: Cloudflare) -> dict[str, Any]:
    """Return what the account may use of Containers. Raises CloudflareError where they are not available."""
    return api.get(api.account("containers/me"))


def applications(api: Cloudflare) -> list[dict[str, Any]]:
    """Return all container applications of the account."""
    return api.get(api.account("containers/applications")) or []


def application(api: Cloudflare, application_id: str) -> dict[str, Any] | None:
    """Return one application, or None. Under the durable_object policy its id is the namespace's."""
    try:
        return api.get(api.account(f"containers/applications/{segment(application_id)}"))
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
        # An answer that was lost may have been a good one.
        known = application(api, namespace_id) if error.uncertain or error.status == 409 else None
        if known is None:
            raise


def prepare_image(api: Cloudflare, image: str) -> dict[str, Any]:
    """Have an image of the registry made ready to start; return its `status` (pending, ready, error) and `reason`."""
    path = api.account("containers/image-preparations")
    return api.post(path, {"image": image}, repeatable=True)


def workers_with_application(api: Cloudflare) -> set[str]:
    """Return the names of the Workers whose Durable Objects have a container application."""
    served = {(one.get("durable_objects") or {}).get("namespace_id") for one in applications(api)}
    namespaces = api.pages(api.account("workers/durable_objects/namespaces"), per_page=1000)
    return {one["script"] for one in namespaces if one["id"] in served}


def delete_application(api: Cloudflare, application_id: str) -> bool:
    """Delete an application, which ends its instances and its cost; returns whether it was there."""
    return api.delete(api.account(f"containers/applications/{segment(application_id)}"))


def images_in_use(api: Cloudflare) -> set[str]:
    """Return the references of all images that an application names, or a recent version of any Worker.

    Recent are the versions of the latest deployments: those that a rollback goes back to.
    """
    named = {_image(one) for one in applications(api)}
    for script in scripts.listing(api):
        for version_id in _recent_versions(api, script["id"]):
            named.update(images_of(scripts.version(api, script["id"], version_id)))
    return named - {""}


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

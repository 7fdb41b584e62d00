# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers of an account: what they are set to, which version serves, and the tag by which ours are known."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .client import Cloudflare, CloudflareError, segment

TRIGGER, BY_SECRET = "workers/triggered_by", "secret"
"""Annotation of a version or deployment that tells what made it, and its value for a change of secrets."""
MESSAGE, CARRIED = "workers/message", "Secrets were changed"
"""Annotation that tells why, and what upload_serving() writes there."""
MOST_TAGS = 8
"""How many tags a Worker may have."""
IMMEDIATE = {"mode": "immediate"}
"""An object in use takes new code at once, instead of up to five minutes later."""
URGED = "The object takes what was deployed at once"
"""Message of a deployment that changes nothing but when it is in force."""
Containers = Callable[[Mapping[str, str]], list[dict[str, Any]]]
"""Returns the containers that an upload with these variables declares."""
TAG = "hermes.workers"
"""Tag of every Worker that this collection deploys; `hermes.workers:<name>` names the deployment."""


def path(api: Cloudflare, name: str, rest: str = "") -> str:
    """Return the path of a Worker's script, or of what belongs to it."""
    return api.account(f"workers/scripts/{segment(name)}/{rest}").rstrip("/")


def listing(api: Cloudflare) -> list[dict[str, Any]]:
    """Return all Workers of the account."""
    return api.get(api.account("workers/scripts")) or []


def deployed(api: Cloudflare) -> list[dict[str, Any]]:
    """Return the Workers that this collection deployed, each with its `tags`."""
    found = api.get(api.account("workers/scripts"), tags=f"{TAG}:yes") or []
    complete = [one if "tags" in one else {**one, "tags": tags(api, one["id"])} for one in found]
    return [one for one in complete if TAG in (one["tags"] or [])]


def settings(api: Cloudflare, name: str) -> dict[str, Any] | None:
    """Return a Worker's bindings, compatibility date and tags; None when there is no such Worker."""
    try:
        found: dict[str, Any] = api.get(path(api, name, "settings"))
        return found
    except CloudflareError as error:
        if error.missing:
            return None
        raise


def variables(settings_: Mapping[str, Any]) -> dict[str, str]:
    """Return the plain text variables among a Worker's bindings."""
    return {one["name"]: one["text"] for one in _bindings(settings_, "plain_text")}


def secret_names(settings_: Mapping[str, Any]) -> set[str]:
    """Return the names of the secrets among a Worker's bindings."""
    kinds = ("secret_text", "secret_key")
    return {one["name"] for kind in kinds for one in _bindings(settings_, kind)}


def further_bindings(settings_: Mapping[str, Any]) -> dict[str, str]:
    """Return the kinds of a Worker's bindings that are neither text variables nor secrets, by name."""
    told = ("plain_text", "secret_text", "secret_key")
    found = settings_.get("bindings") or []
    return {one["name"]: one["type"] for one in found if one.get("type") not in told}


def _bindings(settings_: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    return [one for one in settings_.get("bindings") or [] if one.get("type") == kind]


def tags(api: Cloudflare, name: str) -> list[str]:
    """Return a Worker's tags."""
    return api.get(path(api, name, "script-settings")).get("tags") or []


def set_tags(api: Cloudflare, name: str, wanted: list[str]) -> None:
    """Replace a Worker's tags; makes no new version."""
    api.patch(path(api, name, "script-settings"), {"tags": wanted})


def our_tags(name: str) -> list[str]:
    """Return the tags that a deployment of this collection carries. name: its hermes_name."""
    return [TAG, f"{TAG}:{name}"]


def deployment_name(script: Mapping[str, Any]) -> str:
    """Return the hermes_name that a Worker's tags tell, or the Worker's own name."""
    named = [tag for tag in script.get("tags") or [] if tag.startswith(f"{TAG}:")]
    return named[0].removeprefix(f"{TAG}:") if named else str(script["id"])


def migration_tag(api: Cloudflare, name: str) -> str:
    """Return the tag of the last migration of a Worker's Durable Objects, or an empty string."""
    service = api.get(api.account(f"workers/services/{segment(name)}"))
    script = (service.get("default_environment") or {}).get("script") or {}
    return script.get("migration_tag") or ""


def versions(api: Cloudflare, name: str) -> list[dict[str, Any]]:
    """Return the versions that can be deployed, the newest first."""
    return list(api.pages(path(api, name, "versions"), inside="items", deployable=True))


def version(api: Cloudflare, name: str, version_id: str) -> dict[str, Any]:
    """Return one version with its bindings, its containers and their images."""
    found: dict[str, Any] = api.get(path(api, name, f"versions/{segment(version_id)}"))
    return found


def deployments(api: Cloudflare, name: str) -> list[dict[str, Any]]:
    """Return the latest deployments, the one that serves first; empty when there is no such Worker."""
    try:
        return (api.get(path(api, name, "deployments")) or {}).get("deployments") or []
    except CloudflareError as error:
        if error.missing:
            return []
        raise


def serving(api: Cloudflare, name: str) -> str:
    """Return the id of the version that gets the most requests, or an empty string."""
    found = deployments(api, name)
    shares = found[0]["versions"] if found else []
    return max(shares, key=lambda one: one["percentage"])["version_id"] if shares else ""


def serve(
    api: Cloudflare, name: str, version_id: str, message: str, *, force: bool = False
) -> None:
    """Send all requests to a version that exists; its object takes it at once.

    message: shown in the list of deployments; force: although the version holds other secrets than today's.
    """
    share = {"version_id": version_id, "percentage": 100}
    body = {
        "strategy": "percentage",
        "versions": [share],
        "annotations": {"workers/message": message},
        "code_update_strategy": IMMEDIATE,
    }
    query = {"force": True} if force else {}
    api.call("POST", path(api, name, "deployments"), body, query, repeatable=True)


def urge(api: Cloudflare, name: str) -> None:
    """Have an object in use take what serves already: a change of secrets cannot say that, and may be deferred."""
    found = deployments(api, name)
    shares = found[0]["versions"] if found else []
    # Of two versions that share the requests none is ours to choose.
    if len(shares) == 1:
        serve(api, name, shares[0]["version_id"], URGED)


def upload_serving(
    api: Cloudflare,
    name: str,
    secrets: Mapping[str, str | None],
    containers: Containers | None,
) -> None:
    """Upload what serves as the newest version: its code, settings and secrets, but for these (None: without it).

    containers: returns those of a version with these variables, for the case that Cloudflare does not tell them.
    """
    version_id = serving(api, name)
    told = version(api, name, version_id).get("resources") or {}
    runtime = told.get("script_runtime") or {}
    # Of an older version only this call returns the code.
    stored = api.get(
        api.account(f"workers/workers/{segment(name)}/versions/{segment(version_id)}"),
        include="modules",
    )
    kept = [one["name"] for one in stored.get("bindings") or [] if one["name"] not in secrets]
    declared = runtime.get("containers") or (containers(variables(stored)) if containers else [])
    if stored.get("containers") and not declared:
        raise CloudflareError(
            0,
            [],
            f"Cloudflare does not tell which images version {version_id} of {name} starts",
            "deploy the Worker again, with its secrets.",
            "GET",
            path(api, name, f"versions/{version_id}"),
        )
    metadata = {
        "main_module": stored["main_module"],
        "bindings": [
            *({"type": "inherit", "name": one, "version_id": version_id} for one in kept),
            *(
                {"type": "secret_text", "name": one, "text": value}
                for one, value in secrets.items()
                if value is not None
            ),
        ],
        "containers": declared,
        "compatibility_date": stored.get("compatibility_date"),
        "compatibility_flags": stored.get("compatibility_flags") or [],
        "code_update_strategy": IMMEDIATE,
        "annotations": {MESSAGE: CARRIED},
        **kept_settings(api, name),
    }
    parts: dict[str, tuple[str | None, bytes | str, str]] = {
        one["name"]: (one["name"], base64.b64decode(one["content_base64"]), one["content_type"])
        for one in stored["modules"]
    }
    parts["metadata"] = (None, json.dumps(metadata), "application/json")
    api.upload("PUT", path(api, name), parts, excludeScript=True, bindings_inherit="strict")


def changes_secrets_only(version_: Mapping[str, Any]) -> bool:
    """Whether a version has the code of the one before it, by what is told of how it was made."""
    told = version_.get("annotations") or {}
    return told.get(TRIGGER) == BY_SECRET or told.get(MESSAGE) in (CARRIED, URGED)


def kept_settings(api: Cloudflare, name: str) -> dict[str, Any]:
    """Return the settings of a Worker that an upload would drop without naming them."""
    told = api.get(path(api, name, "script-settings"))
    return {
        one: told[one] for one in ("observability", "logpush", "tail_consumers") if told.get(one)
    }


def account_subdomain(api: Cloudflare) -> str:
    """Return the account's name below workers.dev, or an empty string when it has none yet."""
    try:
        return (api.get(api.account("workers/subdomain")) or {}).get("subdomain") or ""
    except CloudflareError as error:
        if error.missing:
            return ""
        raise


def on_workers_dev(api: Cloudflare, name: str) -> bool:
    """Whether a Worker is served below workers.dev."""
    return bool(api.get(path(api, name, "subdomain")).get("enabled"))


def set_workers_dev(api: Cloudflare, name: str, enabled: bool) -> None:
    """Serve a Worker below workers.dev, or not; previews stay off."""
    body = {"enabled": enabled, "previews_enabled": False}
    api.post(path(api, name, "subdomain"), body, repeatable=True)


def url(api: Cloudflare, name: str, hostnames: Sequence[str], subdomain: str) -> str:
    """Return an address that a Worker answers at, or an empty string.

    hostnames: its custom domains; subdomain: the account's below workers.dev.
    """
    if hostnames:
        return f"https://{hostnames[0]}"
    served = subdomain and on_workers_dev(api, name)
    return f"https://{name}.{subdomain}.workers.dev" if served else ""


def delete(api: Cloudflare, name: str) -> bool:
    """Delete a Worker with its Durable Objects and what they store; returns whether it was there."""
    return api.delete(api.account(f"workers/services/{segment(name)}"), force=True)

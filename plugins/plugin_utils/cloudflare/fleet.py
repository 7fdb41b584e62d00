# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The deployments of an account, found by the tag that a deploy leaves: few calls, side by side, no secrets."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ...module_utils.cloudflare import containers, domains, scripts
from ...module_utils.cloudflare.client import Cloudflare, CloudflareError

AT_ONCE = 8
"""Workers that are asked about side by side; each costs up to two calls."""


@dataclass(frozen=True)
class AccountWide:
    """What is asked once for all deployments of an account.

    hostnames: custom domains by Worker; subdomain: below workers.dev; with_application: Workers that have a container
    application, None where the token may not see them.
    """

    hostnames: dict[str, list[str]]
    subdomain: str
    with_application: set[str] | None


def survey(connect: Callable[[], Cloudflare]) -> list[dict[str, Any]]:
    """Return facts about each deployment of an account, by name. Raises CloudflareError.

    connect: makes a client; every thread gets one of its own.
    """
    api = connect()
    found = scripts.deployed(api)
    if not found:
        return []
    wide = AccountWide(domains.by_worker(api), scripts.account_subdomain(api), _applied(api))
    shares = [found[start::AT_ONCE] for start in range(min(AT_ONCE, len(found)))]
    with ThreadPoolExecutor(len(shares)) as pool:
        parts = pool.map(lambda share: _describe_all(connect(), share, wide), shares)
        facts = [one for part in parts for one in part]
    return sorted(facts, key=lambda one: one["worker"])


def _describe_all(
    api: Cloudflare, share: list[dict[str, Any]], wide: AccountWide
) -> list[dict[str, Any]]:
    described = [_describe(api, script, wide) for script in share]
    return [one for one in described if one is not None]


def _describe(api: Cloudflare, script: dict[str, Any], wide: AccountWide) -> dict[str, Any] | None:
    name = script["id"]
    settings = scripts.settings(api, name)
    if settings is None:
        return None  # deleted since it was listed
    variables = scripts.variables(settings)
    hostnames = wide.hostnames.get(name, [])
    dashboard = variables.get("HERMES_DASHBOARD_HOSTNAME", "")
    own = [one for one in hostnames if one != dashboard]
    url = scripts.url(api, name, own, wide.subdomain)
    return {
        "name": scripts.deployment_name(script),
        "worker": name,
        "account_id": api.account_id,
        "url": url,
        "hostnames": hostnames,
        "version": variables.get("WORKER_VERSION", ""),
        "state": _state(name, url or dashboard, wide),
        "instance_type": variables.get("HERMES_INSTANCE_TYPE", ""),
        "tags": script["tags"],
        "variables": variables,
        "modified": script.get("modified_on", ""),
    }


def _state(name: str, address: str, wide: AccountWide) -> str:
    if wide.with_application is not None and name not in wide.with_application:
        return "incomplete"
    return "ready" if address else "unreachable"


def _applied(api: Cloudflare) -> set[str] | None:
    try:
        return containers.workers_with_application(api)
    except CloudflareError as error:
        if error.denied:
            return None
        raise

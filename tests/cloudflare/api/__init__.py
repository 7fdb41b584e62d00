# SPDX-License-Identifier: Apache-2.0
"""Cloudflare's API v4, as far as wrangler and the collection use it; one module a part of it."""

from tests.cloudflare.api import (
    accounts,
    containers,
    dashboard,  # before domains, whose paths with a name would catch one of its own
    dns,
    domains,
    email_routing,
    scripts,
    secrets,
    versions,
)
from tests.cloudflare.api.front import Front

__all__ = [
    "Front",
    "accounts",
    "containers",
    "dashboard",
    "dns",
    "domains",
    "email_routing",
    "scripts",
    "secrets",
    "versions",
]

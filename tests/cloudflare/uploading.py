# SPDX-License-Identifier: Apache-2.0
"""A small Worker, and the upload of it that wrangler would send."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import Cloudflare

ACCOUNT = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"
TOKEN = "token-of-the-account"

CODE = """
import { DurableObject } from "cloudflare:workers";
export class Box extends DurableObject {
  async fetch(request) {
    const count = ((await this.ctx.storage.get("count")) ?? 0) + 1;
    await this.ctx.storage.put("count", count);
    const { GREETING, KEY } = this.env;
    return Response.json({ GREETING, KEY, count, url: request.url });
  }
}
export default {
  fetch: (request, env) => env.BOX.get(env.BOX.idFromName("one")).fetch(request),
};
"""
MIGRATION = {"new_tag": "v1", "steps": [{"new_sqlite_classes": ["Box"]}]}


def metadata(**more: Any) -> dict[str, Any]:
    """Return the metadata of an upload; a value of None leaves a part out."""
    made = {
        "main_module": "index.js",
        "compatibility_date": "2026-08-15",
        "bindings": [
            {"type": "plain_text", "name": "GREETING", "text": "hi"},
            {"type": "secret_text", "name": "KEY", "text": "sekret"},
            {"type": "durable_object_namespace", "name": "BOX", "class_name": "Box"},
        ],
        "keep_bindings": ["secret_text", "secret_key"],
        "migrations": MIGRATION,
        **more,
    }
    return {name: value for name, value in made.items() if value is not None}


def upload(client: Cloudflare, name: str = "box", code: str = CODE, **more: Any) -> Any:
    """Upload the Worker and deploy it."""
    parts = {
        "metadata": (None, json.dumps(metadata(**more)), "application/json"),
        "index.js": ("index.js", code, "application/javascript+module"),
    }
    path = client.account(f"workers/scripts/{name}")
    return client.upload("PUT", path, parts, bindings_inherit="strict")

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Uploads a Worker with its secrets as one version by plain calls: what wrangler does, without a process for each."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...module_utils.cards import Card
from ...module_utils.cloudflare import containers, scripts
from ...module_utils.cloudflare import secrets as worker_secrets
from ...module_utils.cloudflare.client import Cloudflare, CloudflareError
from ...module_utils.settings.settings import Settings
from ..agent.content import ARCHIVE
from ..build.installer import Progress
from ..build.variables import COMPATIBILITY_DATE, INSTANCE_CLASS, compatibility_flags
from .wrangler_config import IMAGE_NAME, MAIL_BINDING, MIGRATION_TAG, REFERENCE, application_name

MODULE = "worker.js"
READY_SECONDS = 300.0
PREPARED_SECONDS = 900.0
"""How long Cloudflare may take to get an image ready to start: as long as wrangler waits for it."""
TOLD_SECONDS = 20.0
"""How often it is said that this goes on."""
POLL_SECONDS = 2.0
NOT_READY = 100146


def metadata(
    settings: Settings,
    variables: Mapping[str, str],
    secrets: Mapping[str, str],
    image: str,
    migration_tag: str,
) -> dict[str, Any]:
    """Return what is said of an upload. image: by its digest; migration_tag: of the Worker that is there, or empty."""
    plain = [{"name": n, "type": "plain_text", "text": text} for n, text in variables.items()]
    secret = [{"name": n, "type": "secret_text", "text": text} for n, text in secrets.items()]
    instance = {
        "name": "INSTANCE",
        "type": "durable_object_namespace",
        "class_name": INSTANCE_CLASS,
    }
    mail = {
        "name": MAIL_BINDING,
        "type": "send_email",
        # It writes to nobody else, whatever the Worker asks of it.
        "allowed_destination_addresses": settings.mail_people,
        "allowed_sender_addresses": [settings.mail_address],
    }
    further = [instance, mail] if settings.mail_address else [instance]
    made: dict[str, Any] = {
        "main_module": MODULE,
        "bindings": [*plain, *secret, *further],
        "containers": containers_of(settings, image),
        "compatibility_date": COMPATIBILITY_DATE,
        "compatibility_flags": compatibility_flags(settings),
        "code_update_strategy": scripts.IMMEDIATE,
        # Secrets that are not in this upload stay.
        "keep_bindings": ["secret_text", "secret_key"],
        "observability": {"enabled": True},
    }
    if migration_tag != MIGRATION_TAG:
        steps = [{"new_sqlite_classes": [INSTANCE_CLASS]}]
        made["migrations"] = {"new_tag": MIGRATION_TAG, "steps": steps}
    return made


def prepare(api: Cloudflare, settings: Settings, image: str, progress: Progress) -> None:
    """Wait until Cloudflare can start an image. Raises CloudflareError, or a Card where it does not get ready."""
    began = time.monotonic()
    told = began - TOLD_SECONDS
    while (made := containers.prepare_image(api, image))["status"] != "ready":
        now = time.monotonic()
        if made["status"] == "error" or now > began + PREPARED_SECONDS:
            status = f"status {made['status']} after {now - began:.0f} s"
            raise Card.of(
                settings.name,
                f"Cloudflare does not get the image ready: {made.get('reason') or status}",
                "run it again; if it persists, delete the image's tag from the registry, which has it built anew.",
                "image",
            )
        if now >= told + TOLD_SECONDS:
            told = now
            progress(
                f"Cloudflare is preparing the image, {now - began:.0f} s; this may take minutes"
            )
        time.sleep(POLL_SECONDS)


def containers_of(settings: Settings, image: str) -> list[dict[str, Any]]:
    """Return what an upload says of the containers that the Worker starts. image: by its digest."""
    return [
        {
            "name": application_name(settings.name),
            "class_name": INSTANCE_CLASS,
            "images": {IMAGE_NAME: image},
        }
    ]


def write_secrets(api: Cloudflare, settings: Settings, values: Mapping[str, str | None]) -> None:
    """Set and delete (None) secrets of a deployment, whatever version of it serves."""

    def declared(variables: Mapping[str, str]) -> list[dict[str, Any]]:
        image = variables.get(REFERENCE)
        return containers_of(settings, image) if image else []

    worker_secrets.write(api, settings.name, values, declared)


class Upload:
    """An upload of one deployment. Raises CloudflareError."""

    def __init__(self, api: Cloudflare, settings: Settings, build: Path) -> None:
        """build: folder with the bundle."""
        self.api = api
        self.settings = settings
        self.build = build

    def deploy(
        self, variables: Mapping[str, str], secrets: Mapping[str, str], image: str, exists: bool
    ) -> str:
        """Upload, and see to the container application and the address; return the version's id."""
        self.api.hide(*secrets.values())
        tag = scripts.migration_tag(self.api, self.settings.name) if exists else ""
        told = metadata(self.settings, variables, secrets, image, tag)
        parts = {
            "metadata": (None, json.dumps(told), "application/json"),
            MODULE: (MODULE, (self.build / MODULE).read_bytes(), "application/javascript+module"),
        }
        if self.settings.agent:
            content = (self.build / ARCHIVE).read_bytes()
            parts[ARCHIVE] = (ARCHIVE, content, "application/octet-stream")
        path = scripts.path(self.api, self.settings.name)
        made = self.api.upload("PUT", path, parts, excludeScript=True, bindings_inherit="strict")
        version_id = str(uuid.UUID(made["deployment_id"]))
        self._application(version_id)
        scripts.set_workers_dev(self.api, self.settings.name, True)
        return version_id

    def _application(self, version_id: str) -> None:
        """Make the container application of the Worker's Durable Object, where there is none."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                version = scripts.version(self.api, self.settings.name, version_id)
                break
            except CloudflareError as error:
                if NOT_READY not in error.codes or time.monotonic() > deadline:
                    raise
                time.sleep(POLL_SECONDS)
        bindings = (version.get("resources") or {}).get("bindings") or []
        namespace = next(one["namespace_id"] for one in bindings if one["name"] == "INSTANCE")
        containers.ensure_application(self.api, application_name(self.settings.name), namespace)

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wrangler configuration of a deployment: readable, runnable by hand, without a secret in it."""

from __future__ import annotations

import json
from collections.abc import Iterable

from ...module_utils.digests import digest_of
from ...module_utils.settings.settings import Settings
from ..agent.content import ARCHIVE
from ..build.sources import Sources
from ..build.variables import (
    COMPATIBILITY_DATE,
    INSTANCE_CLASS,
    Rendered,
    compatibility_flags,
    variables,
)

IMAGE_NAME = "hermes"
"""What the Worker calls its image: ctx.container.images.hermes."""
REFERENCE = "HERMES_IMAGE_REFERENCE"
"""Variable that keeps the image's reference, so that an unchanged deployment need not ask the registry."""
MIGRATION_TAG = "v1"
MAIL_BINDING = "EMAIL"
"""What the Worker calls what sends its mails."""
BUILD_FILE = "wrangler.toml"


def version_of(settings: Settings, sources: Sources) -> str:
    """Return the version that marks code and configuration; known before anything is built."""
    return digest_of(sources.root, [], _text(settings, sources, "", "", ()), sources.code)


def worker_variables(settings: Settings, sources: Sources, reference: str) -> dict[str, str]:
    """Return the Worker's text variables. reference: of the image, by its digest in the registry."""
    texts = variables(settings, sources, version_of(settings, sources))
    return texts | {REFERENCE: reference}


def render(
    settings: Settings, sources: Sources, reference: str, secrets: Iterable[str]
) -> Rendered:
    """Render wrangler.toml. reference: of the image; secrets: names of those that the Worker must hold."""
    version = version_of(settings, sources)
    return Rendered(_text(settings, sources, version, reference, secrets), version)


def _text(
    settings: Settings, sources: Sources, version: str, reference: str, secrets: Iterable[str]
) -> str:
    texts = variables(settings, sources, version) | {REFERENCE: reference}
    rows = "\n".join(f"{name} = {quoted(value)}" for name, value in texts.items())
    required = ", ".join(quoted(name) for name in sorted(secrets))
    mail = (
        f"""
# Sends mails to those who may write, and to nobody else.
[[send_email]]
name = {quoted(MAIL_BINDING)}
allowed_destination_addresses = [{", ".join(quoted(one) for one in settings.mail_people)}]
allowed_sender_addresses = [{quoted(settings.mail_address)}]
"""
        if settings.mail_address
        else ""
    )
    rules = f'\n[[rules]]\ntype = "Data"\nglobs = [{quoted(ARCHIVE)}]\n' if settings.agent else ""
    return f"""\
# Rendered by hermes.workers for the deployment {settings.name}; rendered again at each change.
# Holds no secret: those are sent beside it. By hand, with CLOUDFLARE_API_TOKEN in the environment:
#   npx wrangler@4 deploy
# keeps the secrets that the Worker has.
name = {quoted(settings.name)}
account_id = {quoted(settings.account_id)}
main = "worker.js"
no_bundle = true
compatibility_date = {quoted(COMPATIBILITY_DATE)}
compatibility_flags = [{", ".join(quoted(flag) for flag in compatibility_flags(settings))}]
workers_dev = true
preview_urls = false
send_metrics = false
{rules}
[vars]
{rows}

[secrets]
required = [{required}]

[observability]
enabled = true

[[durable_objects.bindings]]
name = "INSTANCE"
class_name = {quoted(INSTANCE_CLASS)}
{mail}
# An object that is in use takes a new version at once, and not up to five minutes after it was verified.
[durable_objects.code_update_strategy]
mode = "immediate"

[[migrations]]
tag = {quoted(MIGRATION_TAG)}
new_sqlite_classes = [{quoted(INSTANCE_CLASS)}]

[[containers]]
name = {quoted(application_name(settings.name))}
class_name = {quoted(INSTANCE_CLASS)}
scheduling_policy = "durable_object"

[containers.images.{IMAGE_NAME}]
image = {quoted(reference)}

# What Hermes prints is read through the Worker, without secrets. In Workers Logs it would lie as it is.
[containers.observability]
enabled = false
"""


def application_name(name: str) -> str:
    """Return what the container application of a deployment is called. name: the deployment's."""
    return f"{name}-hermes"


def quoted(text: str) -> str:
    """Return a TOML basic string: JSON's escapes, and one for the delete character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

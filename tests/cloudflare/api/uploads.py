# SPDX-License-Identifier: Apache-2.0
"""From an upload to a version: bindings that are inherited, migrations, and what Cloudflare refuses."""

from __future__ import annotations

import gzip
import re
from datetime import date
from typing import Any

from tests.cloudflare.accounts import Deployment, Namespace, Version, Worker, now
from tests.cloudflare.api.containers import require_containers, require_image
from tests.cloudflare.api.front import Call
from tests.cloudflare.errors import Refusal, invalid_script

NAME = re.compile(r"[a-z0-9_][a-z0-9_-]*")
NAME_LENGTH = 63
"""Limit of a name that is to be a workers.dev hostname too."""
SCRIPT_BYTES = {"paid": 10 * 1024 * 1024, "free": 3 * 1024 * 1024}
"""Limits after compression."""
VALUE_BYTES = 5 * 1024
BINDINGS = {"paid": 128, "free": 64}
WORKERS = {"paid": 500, "free": 100}
DEFERRED = {"mode": "deferred", "max_delay": 300}
"""What holds for an object in use where a deployment does not say otherwise."""
LONGEST_DELAY = 86_400
KINDS = (
    *("plain_text", "secret_text", "json", "durable_object_namespace", "inherit"),
    *("kv_namespace", "secrets_store_secret", "secret_key", "send_email"),
)
NEW_CLASSES = {"new_sqlite_classes": True, "new_classes": False}


def worker_for(call: Call) -> Worker:
    """Return the Worker that is uploaded to; a new one is not stored until its first version is good."""
    name = call.parts["name"]
    if not NAME.fullmatch(name) or len(name) > NAME_LENGTH:
        raise Refusal(
            400,
            10016,
            f"Invalid Worker name: {name!r} must be at most {NAME_LENGTH} of a-z, 0-9, - and _.",
        )
    if name in call.account.workers:
        return call.account.workers[name]
    if len(call.account.workers) >= WORKERS[call.account.plan]:
        raise Refusal(400, 10037, "You have exceeded the limit of Workers on your account.")
    return Worker(name)


def add_version(call: Call, worker: Worker, trigger: str = "upload") -> Version:
    """Check an upload and store it as the Worker's newest version."""
    metadata = call.body if isinstance(call.body, dict) else {}
    _check_modules(call, metadata)
    _check_date(metadata)
    bindings = _bindings(call, worker, metadata)
    namespaces, tag = _migrated(worker, metadata)
    _check_objects(call, metadata, bindings, namespaces)
    _check_containers(call, metadata, namespaces)
    version = Version(
        number=len(worker.versions) + 1,
        modules=call.modules,
        metadata=metadata,
        bindings=bindings,
        trigger=trigger,
        migration_tag=tag,
        source=source_of(call),
    )
    # A failed upload changes nothing, so everything is stored here, at its end.
    worker.namespaces = namespaces
    keep(call, worker, version)
    return version


def keep(call: Call, worker: Worker, version: Version) -> None:
    """Store a version, and the Worker when it is its first."""
    worker.versions.append(version)
    worker.modified_on = now()
    call.account.workers[worker.name] = worker


def deploy(
    call: Call,
    worker: Worker,
    version: Version,
    trigger: str,
    message: str = "",
    strategy: dict[str, Any] | None = None,
) -> Deployment:
    """Let a version serve. An object in use takes it when its time is over; its streams are cut then.

    strategy: the deployment's own; it belongs to no version.
    """
    delay = _delay(strategy)
    made = Deployment(version, trigger, source_of(call), message, strategy or dict(DEFERRED))
    worker.deployments.append(made)
    worker.modified_on = now()
    call.plane.edge.deployed(worker, delay)
    return made


def _delay(strategy: dict[str, Any] | None) -> float:
    """Return for how many seconds an object in use keeps its code."""
    given = DEFERRED if strategy is None else strategy
    mode, delay = given.get("mode"), given.get("max_delay")
    sound = set(given) <= {"mode", "max_delay"} and mode in ("deferred", "immediate")
    if not sound or (mode == "immediate" and delay is not None):
        raise Refusal(400, 10026, f"code_update_strategy {given} is not valid.")
    if mode == "immediate":
        return 0.0
    delay = DEFERRED["max_delay"] if delay is None else delay
    if not isinstance(delay, int | float) or not 0 <= delay <= LONGEST_DELAY:
        raise Refusal(400, 10026, "code_update_strategy.max_delay must be 0 to 86400.")
    return float(delay)


def source_of(call: Call) -> str:
    """Return who deploys, by its user agent."""
    return "wrangler" if call.headers.get("User-Agent", "").startswith("wrangler") else "api"


def check_value(binding: dict[str, Any]) -> None:
    """Refuse a text binding with a bad name or a value over 5 KB."""
    name, text = binding.get("name"), binding.get("text")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_$][A-Za-z0-9_$]*", name):
        raise invalid_script(f"binding name {name!r} is not a JavaScript identifier.")
    if not isinstance(text, str):
        raise invalid_script(f"binding {name} of type {binding.get('type')} must have a text.")
    if len(text.encode()) > VALUE_BYTES:
        raise Refusal(400, 10054, f"The value of {name} is larger than 5 KB.")


def _check_modules(call: Call, metadata: dict[str, Any]) -> None:
    main = metadata.get("main_module")
    names = [module.name for module in call.modules]
    if not main or main not in names:
        raise invalid_script(f'No such module "{main}".')
    code = b"".join(one.content for one in call.modules if "source-map" not in one.content_type)
    if len(gzip.compress(code, 6)) > SCRIPT_BYTES[call.account.plan]:
        raise Refusal(413, 10027, "Your Worker exceeded the size limit.")


def _check_date(metadata: dict[str, Any]) -> None:
    given = metadata.get("compatibility_date")
    try:
        chosen = date.fromisoformat(given or "")
    except ValueError as error:
        raise invalid_script(f"compatibility_date {given!r} is not a date.") from error
    if chosen > date.fromisoformat(now()[:10]):
        raise invalid_script("Can't set compatibility date in the future.")


def _bindings(call: Call, worker: Worker, metadata: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the version's bindings: those given, those inherited by name, and kinds that are kept."""
    before = {one["name"]: one for one in (worker.versions[-1].bindings if worker.versions else ())}
    made: dict[str, dict[str, Any]] = {}
    for given in metadata.get("bindings") or []:
        if given.get("name") in made:
            raise invalid_script(f"binding name {given['name']} is already in use.")
        source = _inherited_from(worker, given.get("version_id"), before)
        binding = _binding(given, source, call.query.get("bindings_inherit") == "strict")
        if binding:
            made[given["name"]] = binding
    kept = metadata.get("keep_bindings") or []
    for name, one in before.items():
        if one["type"] in kept:
            made.setdefault(name, one)
    if len(made) > BINDINGS[call.account.plan]:
        raise too_many_bindings(call)
    return list(made.values())


def _inherited_from(
    worker: Worker, version_id: str | None, latest: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the bindings, by name, of the version that a binding is inherited from."""
    if version_id in (None, "latest"):
        return latest
    found = worker.version(version_id)
    if found is None:
        raise Refusal(404, 100145, "Version not found.")
    return {one["name"]: one for one in found.bindings}


def too_many_bindings(call: Call) -> Refusal:
    """Return the refusal of more bindings than the plan allows."""
    return Refusal(400, 10055, f"A Worker may have at most {BINDINGS[call.account.plan]} bindings.")


def _binding(
    given: dict[str, Any], before: dict[str, dict[str, Any]], strict: bool
) -> dict[str, Any] | None:
    kind, name = given.get("type"), given.get("name")
    if kind not in KINDS:
        raise invalid_script(f"The stand-in does not know bindings of type {kind}.")
    if kind == "inherit":
        inherited = before.get(given.get("old_name") or name or "")
        if inherited is None and strict:
            raise Refusal(
                400,
                10057,
                f"Binding '{name}' is of type 'inherit', but the previous version has no such binding.",
            )
        return {**inherited, "name": name} if inherited else None
    if kind in ("plain_text", "secret_text"):
        check_value(given)
    if kind == "send_email":
        _check_sender(given)
    return dict(given)


def _check_sender(given: dict[str, Any]) -> None:
    known = {"destination_address", "allowed_destination_addresses", "allowed_sender_addresses"}
    if unknown := given.keys() - known - {"name", "type"}:
        raise invalid_script(f"binding {given.get('name')} has no {', '.join(unknown)}.")
    if {"destination_address", "allowed_destination_addresses"} <= given.keys():
        raise invalid_script("a binding that sends mails has one destination, or a list of them.")


def _migrated(worker: Worker, metadata: dict[str, Any]) -> tuple[dict[str, Namespace], str | None]:
    """Return the namespaces and the migration tag as they are after this upload."""
    namespaces = dict(worker.namespaces)
    if "exports" in metadata:
        for class_name, export in metadata["exports"].items():
            if export.get("type") == "durable-object" and class_name not in namespaces:
                sqlite = export.get("storage") == "sqlite"
                namespaces[class_name] = Namespace(class_name, worker.name, sqlite)
        return namespaces, worker.migration_tag
    migrations = metadata.get("migrations")
    if not migrations:
        return namespaces, worker.migration_tag
    if migrations.get("old_tag", worker.migration_tag) != worker.migration_tag:
        raise Refusal(
            412,
            10079,
            f"Migration tag precondition failed; current tag is {worker.migration_tag!r}.",
        )
    for step in migrations.get("steps") or [migrations]:
        _apply(step, worker, namespaces)
    return namespaces, migrations.get("new_tag", worker.migration_tag)


def _apply(step: dict[str, Any], worker: Worker, namespaces: dict[str, Namespace]) -> None:
    for kind, sqlite in NEW_CLASSES.items():
        for class_name in step.get(kind) or []:
            if class_name in namespaces:
                raise Refusal(
                    400,
                    10074,
                    f"Cannot apply new-class migration to class '{class_name}' that is already depended on by"
                    " existing Durable Objects",
                )
            namespaces[class_name] = Namespace(class_name, worker.name, sqlite)
    for class_name in step.get("deleted_classes") or []:
        if namespaces.pop(class_name, None) is None:
            raise Refusal(
                400, 10072, f"Cannot apply deleted-class migration to class '{class_name}'."
            )
    if step.get("renamed_classes") or step.get("transferred_classes"):
        raise invalid_script("The stand-in does not rename or transfer classes.")


def _check_objects(
    call: Call,
    metadata: dict[str, Any],
    bindings: list[dict[str, Any]],
    namespaces: dict[str, Namespace],
) -> None:
    main = next(one for one in call.modules if one.name == metadata["main_module"])
    for class_name in namespaces:
        if class_name.encode() not in main.content:
            raise Refusal(
                400,
                10064,
                f"New version of script does not export class '{class_name}' which is depended on by existing"
                " Durable Objects.",
            )
    for binding in bindings:
        if binding["type"] != "durable_object_namespace":
            continue
        class_name = binding.get("class_name", "")
        if class_name not in namespaces:
            raise Refusal(
                400,
                10061,
                f"Cannot create binding for class '{class_name}' because it is not currently configured to"
                " implement Durable Objects. Did you forget to apply a --new-class migration?",
            )


def _check_containers(
    call: Call, metadata: dict[str, Any], namespaces: dict[str, Namespace]
) -> None:
    for container in metadata.get("containers") or []:
        require_containers(call)
        if container.get("class_name") not in namespaces:
            raise invalid_script(
                f"container {container.get('name')}: {container.get('class_name')} is no Durable Object class."
            )
        for image in (container.get("images") or {}).values():
            require_image(call, image)

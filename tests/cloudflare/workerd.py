# SPDX-License-Identifier: Apache-2.0
"""The configuration with which workerd serves an uploaded version."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.cloudflare import mails
from tests.cloudflare.accounts import Module, Version, Worker

CODE = {
    "application/javascript+module": "esModule",
    "application/javascript": "commonJsModule",
    "text/plain": "text",
    "application/octet-stream": "data",
    "application/wasm": "wasm",
}


@dataclass
class Overlay:
    """What the process engine needs and Cloudflare has by itself."""

    variables: dict[str, str] = field(default_factory=dict)
    engine: bool = False
    """Whether there is a container application, and with it something that runs containers."""
    docker: str = ""
    """Lines of a containerEngine, where Docker runs the containers."""
    images: dict[str, str] = field(default_factory=dict)
    internet: str = ""
    """host:port of what answers for every host on the internet; empty: the internet itself."""
    outbox: str = ""
    """host:port of what takes the mails that a Worker sends."""
    objects: str = ""
    """host:port of another workerd in which the Durable Objects live on, with the code of before."""


OBJECTS = """
import { DurableObject } from "cloudflare:workers";
const elsewhere = (className) =>
  class extends DurableObject {
    constructor(ctx, env) {
      super(ctx, env);
      const actor = async () =>
        (await env.OTHER.connect(env.ADDRESS)).getActor("main", className, ctx.id.toString());
      const own = { fetch: async (request) => (await actor()).fetch(request) };
      return new Proxy(this, {
        get: (self, name) =>
          own[name] ?? (name in self ? self[name] : async (...given) => (await actor())[name](...given)),
      });
    }
  };
"""
"""A Worker whose Durable Objects hand everything on to those of another process."""


def secret_variable(number: int) -> str:
    """Return the environment variable of workerd that holds a version's nth secret."""
    return f"SECRET_{number}"


def secret_environment(version: Version) -> dict[str, str]:
    """Return the environment that hands a version's secrets to workerd."""
    values = version.secrets().values()
    return {secret_variable(number): value for number, value in enumerate(values)}


def write(folder: Path, worker: Worker, version: Version, overlay: Overlay) -> None:
    """Write a version's modules and its configuration into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    modules = [module for module in version.modules if kind_of(module)]
    modules.sort(key=lambda module: module.name != version.metadata["main_module"])
    for number, module in enumerate(modules):
        (folder / f"module-{number}").write_bytes(module.content)
    (folder / "objects.js").write_text(
        OBJECTS
        + "".join(f'export const {name} = elsewhere("{name}");\n' for name in worker.namespaces),
        encoding="utf-8",
    )
    (folder / "mails.js").write_text(mails.MODULE, encoding="utf-8")
    text = _configuration(worker, version, modules, overlay)
    (folder / "config.capnp").write_text(text, encoding="utf-8")


def kind_of(module: Module) -> str | None:
    """Return what workerd calls such a module; None for source maps."""
    return CODE.get(module.content_type.partition(";")[0])


def has_providers(version: Version) -> bool:
    """Tell whether the code exports the entrypoint by which a sandbox reaches model providers."""
    main = next(one for one in version.modules if one.name == version.metadata["main_module"])
    return b"Providers" in main.content and overlaid(version)


def overlaid(version: Version) -> bool:
    """Tell whether a version declares containers, which something has to run here."""
    return bool(version.containers)


def speaks_to_an_engine(version: Version) -> bool:
    """Tell whether a version starts containers through the engine that stands in for Cloudflare's here."""
    return overlaid(version) and any(b"ENGINE" in one.content for one in version.modules)


def _configuration(
    worker: Worker, version: Version, modules: list[Module], overlay: Overlay
) -> str:
    services = [
        '(name = "main", worker = .worker)',
        _internet(overlay),
        '(name = "storage", disk = (path = "storage", writable = true))',
    ]
    sockets = [
        (
            '(name = "http", address = "127.0.0.1:0", service = "main",'
            ' http = (forwardedProtoHeader = "X-Forwarded-Proto"))'
        )
    ]
    if mails.binding_of(version):
        services += [
            '(name = "mails", worker = .mails)',
            f'(name = "outbox", external = (address = {text(overlay.outbox)}, http = ()))',
        ]
        sockets.append('(name = "mails", address = "127.0.0.1:0", service = "mails", http = ())')
    if overlay.engine:
        services += [
            '(name = "engine", external = (address = "unix:run/engine.sock", http = ()))',
            '(name = "loopback", network = (allow = ["127.0.0.1/32"]))',
        ]
    if overlay.objects:
        services.append('(name = "objects", worker = .objects)')
    # What a sandbox reaches is the object's own code, wherever that runs.
    elif has_providers(version):
        sockets.append(
            '(name = "providers", address = "127.0.0.1:0", http = (),'
            ' service = (name = "main", entrypoint = "Providers"))'
        )
    code = [
        f"(name = {text(module.name)}, {kind_of(module)} = embed {text(f'module-{number}')})"
        for number, module in enumerate(modules)
    ]
    flags = version.metadata.get("compatibility_flags") or []
    return f"""using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [{_lines(services)}],
  sockets = [{_lines(sockets)}],
);

const worker :Workerd.Worker = (
  modules = [{_lines(code)}],
  compatibilityDate = {text(version.metadata["compatibility_date"])},
  compatibilityFlags = [{", ".join(text(flag) for flag in flags)}],
  durableObjectNamespaces = [{_lines(() if overlay.objects else _namespaces(worker, version, overlay))}],
  durableObjectStorage = (localDisk = "storage"),{overlay.docker}
  globalOutbound = "internet",
  bindings = [{_lines(_bindings(version, overlay))}],
);
{_elsewhere(worker, version, overlay)}{_mails(version)}"""


def _mails(version: Version) -> str:
    if not mails.binding_of(version):
        return ""
    return f"""
const mails :Workerd.Worker = (
  modules = [(name = "mails.js", esModule = embed "mails.js")],
  compatibilityDate = {text(version.metadata["compatibility_date"])},
  bindings = [(name = "MAIN", service = "main"), (name = "OUTBOX", service = "outbox")],
);
"""


def _elsewhere(worker: Worker, version: Version, overlay: Overlay) -> str:
    if not overlay.objects:
        return ""
    return f"""
const objects :Workerd.Worker = (
  modules = [(name = "objects.js", esModule = embed "objects.js")],
  compatibilityDate = {text(version.metadata["compatibility_date"])},
  compatibilityFlags = ["experimental"],
  durableObjectNamespaces = [{_lines(_namespaces(worker, version, overlay))}],
  durableObjectStorage = (inMemory = void),
  bindings = [
    (name = "OTHER", workerdDebugPort = void),
    (name = "ADDRESS", text = {text(overlay.objects)}),
  ],
);
"""


def _internet(overlay: Overlay) -> str:
    if overlay.internet:
        return f'(name = "internet", external = (address = {text(overlay.internet)}, http = ()))'
    return (
        '(name = "internet", network = (allow = ["public"], tlsOptions = (trustBrowserCas = true)))'
    )


def _namespaces(worker: Worker, version: Version, overlay: Overlay) -> Iterable[str]:
    for namespace in worker.namespaces.values():
        sqlite = ", enableSql = true" if namespace.sqlite else ""
        container = ""
        if overlay.docker and any(
            one["class_name"] == namespace.class_name for one in version.containers
        ):
            images = ", ".join(
                f"(name = {text(name)}, image = {text(image)})"
                for name, image in overlay.images.items()
            )
            first = next(iter(overlay.images.values()))
            container = f", preventEviction = true, container = (imageName = {text(first)}, images = [{images}])"
        yield (
            f"(className = {text(namespace.class_name)}, uniqueKey = {text(namespace.id)}{sqlite}{container})"
        )


def _bindings(version: Version, overlay: Overlay) -> Iterable[str]:
    for name, value in {**version.variables(), **overlay.variables}.items():
        yield f"(name = {text(name)}, text = {text(value)})"
    for number, name in enumerate(version.secrets()):
        yield f"(name = {text(name)}, fromEnvironment = {text(secret_variable(number))})"
    for binding in version.bindings:
        if binding["type"] == "durable_object_namespace":
            target = text(binding["class_name"])
            if overlay.objects:
                target = f'(className = {target}, serviceName = "objects")'
            yield f"(name = {text(binding['name'])}, durableObjectNamespace = {target})"
        elif binding["type"] == "json":
            yield f"(name = {text(binding['name'])}, json = {text(json.dumps(binding['json']))})"
        elif binding["type"] == "send_email":
            props = text(json.dumps(binding))
            target = f'(name = "mails", entrypoint = "Sender", props = (json = {props}))'
            yield f"(name = {text(binding['name'])}, service = {target})"
    if overlay.engine:
        yield '(name = "ENGINE", service = "engine")'
        yield '(name = "LOOPBACK", service = "loopback")'


def _lines(entries: Iterable[str]) -> str:
    return "".join(f"\n    {entry}," for entry in entries) + "\n  "


def text(value: str) -> str:
    """Return a Cap'n Proto text literal."""
    escaped = "".join(
        f"\\x{ord(one):02x}"
        if ord(one) < 32 or ord(one) == 127
        else f"\\{one}"
        if one in '"\\'
        else one
        for one in value
    )
    return f'"{escaped}"'

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workerd configuration of a deployment; no secret is in it."""

from __future__ import annotations

from ...module_utils.addresses import special_networks
from ...module_utils.digests import digest_of
from ...module_utils.settings.catalogue import WORKER_SECRETS
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
from ..state.folder import session_of

# Part of the address of every Durable Object's storage: changing it would lose the memory of all deployments.
STORAGE_KEY = "hermes-instance"


def render(settings: Settings, sources: Sources) -> Rendered:
    """Render the workerd configuration of a deployment.

    The version is the digest of the configuration and of the code, so the same inputs give the same version on every
    machine, before anything is built. No secret is in the text: they come from workerd's environment.
    """
    draft = _configuration(settings, sources, version="")
    version = digest_of(sources.root, [], draft, sources.code)
    return Rendered(_configuration(settings, sources, version), version)


def _configuration(settings: Settings, sources: Sources, version: str) -> str:
    texts = variables(settings, sources, version)
    networks = special_networks(settings.provider_base_url or settings.ai_gateway)
    bindings = [f"(name = {_text(name)}, text = {_text(value)})" for name, value in texts.items()]
    bindings += [
        f"(name = {_text(name)}, fromEnvironment = {_text(name)})" for name in WORKER_SECRETS
    ]
    bindings.append('(name = "INSTANCE", durableObjectNamespace = ' + _text(INSTANCE_CLASS) + ")")
    services = [
        '(name = "main", worker = .worker)',
        '(name = "internet", network = (allow = ["public"], tlsOptions = (trustBrowserCas = true)))',
        '(name = "storage", disk = (path = "storage", writable = true))',
    ]
    sockets = [
        f'(name = "http", address = "127.0.0.1:{settings.port}", http = (), service = "main")'
    ]
    if settings.engine == "process":
        bindings += [
            '(name = "ENGINE", service = "engine")',
            '(name = "LOOPBACK", service = "loopback")',
        ]
        services += [
            '(name = "engine", external = (address = "unix:run/engine.sock", http = ()))',
            '(name = "loopback", network = (allow = ["127.0.0.1/32"]))',
        ]
        sockets.append(
            f'(name = "providers", address = "127.0.0.1:{settings.providers_port}", http = (),'
            ' service = (name = "main", entrypoint = "Providers"))'
        )
    if settings.dashboard:
        sockets.append(
            f'(name = "dashboard", address = "127.0.0.1:{settings.dashboard_port}", http = (),'
            ' service = (name = "main", entrypoint = "Dashboard"))'
        )
    apis = [settings.telegram_api_url, *settings.channel_apis]
    if own_api := {network for url in apis for network in special_networks(url)}:
        bindings.append('(name = "CHANNELS", service = "channels")')
        # The other platforms are on the internet.
        allowed = ", ".join(_text(network) for network in sorted({"public", *own_api}))
        services.append(
            f'(name = "channels", network = (allow = [{allowed}], tlsOptions = (trustBrowserCas = true)))'
        )
    container, engine = _container(settings, sources)
    modules = ['(name = "worker.js", esModule = embed "worker.js")']
    if settings.agent:
        modules.append(f"(name = {_text(ARCHIVE)}, data = embed {_text(ARCHIVE)})")
    if networks:
        allowed = ", ".join(_text(network) for network in networks)
        bindings.append('(name = "PROVIDER", service = "provider")')
        services.append(
            f'(name = "provider", network = (allow = [{allowed}], tlsOptions = (trustBrowserCas = true)))'
        )
    return f"""# Rendered by hermes.workers for the deployment {settings.name}; rendered again at each change.
# Holds no secret: workerd takes those from its environment. Run it by hand from the state folder:
#   workerd serve build/config.capnp --experimental
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    {_lines(services)}
  ],
  sockets = [
    {_lines(sockets)}
  ],
);

const worker :Workerd.Worker = (
  modules = [{", ".join(modules)}],
  compatibilityDate = {_text(COMPATIBILITY_DATE)},
  compatibilityFlags = [{", ".join(_text(flag) for flag in compatibility_flags(settings))}],
  durableObjectNamespaces = [
    (className = {_text(INSTANCE_CLASS)}, uniqueKey = {_text(STORAGE_KEY)}, enableSql = true{container}),
  ],
  durableObjectStorage = (localDisk = "storage"),{engine}
  globalOutbound = "internet",
  bindings = [
    {_lines(bindings)}
  ],
);
"""


def _container(settings: Settings, sources: Sources) -> tuple[str, str]:
    """Return what a configuration for containers has more: in the namespace, and in the Worker."""
    if settings.engine != "docker":
        return "", ""
    image = _text(sources.image_for(settings))
    # An object that is evicted takes its container with it, unsaved.
    container = (
        f", preventEviction = true,\n      container = (imageName = {image},"
        f' images = [(name = "hermes", image = {image})])'
    )
    socket = _text(f"unix:{settings.docker_socket}")
    engine = f"""
  containerEngine = (localDocker = (
    socketPath = {socket},
    containerEgressInterceptorImage = {_text(settings.sidecar_image)},
    sessionId = {_text(session_of(settings))},
  )),"""
    return container, engine


def _lines(entries: list[str]) -> str:
    return "\n    ".join(f"{entry}," for entry in entries)


def _text(value: str) -> str:
    """Return a Cap'n Proto text literal: JSON's escapes, except that control characters take two hexadecimal digits."""
    quoted = []
    for character in value:
        if character in '"\\':
            quoted.append("\\" + character)
        elif ord(character) < 32 or ord(character) == 127:
            quoted.append(f"\\x{ord(character):02x}")
        else:
            quoted.append(character)
    return '"' + "".join(quoted) + '"'

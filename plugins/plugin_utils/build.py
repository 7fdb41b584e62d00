# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment is built from: the sources, their digests, and the rendered workerd configuration."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..module_utils import build_context
from ..module_utils.addresses import special_networks
from ..module_utils.digests import digest_of, files_below
from ..module_utils.settings.catalogue import KEY_NAMES
from ..module_utils.settings.settings import Settings
from ..module_utils.settings.values import canonical, duration
from .installer import locked_version, python_tag
from .layout import Deployment

COMPATIBILITY_DATE = "2026-08-15"
SECRET_BINDINGS = (
    "API_TOKEN",
    "API_TOKEN_PREVIOUS",
    *KEY_NAMES.values(),
    "AI_GATEWAY_TOKEN",
    "HERMES_SECRETS",
)
NPM_FILES = ("package.json", "package-lock.json")
CONTAINER_PORTS = "18789,9119"
INSTANCE_CLASS = "HermesInstance"
# Part of the address of every Durable Object's storage: changing it would lose the memory of all deployments.
STORAGE_KEY = "hermes-instance"
REPOSITORY = "hermes-workers"
"""What the images for containers are called; their tag is the digest of their sources."""
# An address that no network uses: what Hermes sends there, the sidecar hands to the Worker.
PROVIDERS_IN_CONTAINER = "http://198.51.100.1"


class Sources:
    """The collection's own files, read-only, in a checkout or installed."""

    def __init__(self, root: Path | None = None) -> None:
        """root: the collection's folder; the one that this file is in by default."""
        self.root = root or Path(__file__).resolve().parents[2]
        self.container = self.root / "container"
        self.worker = self.root / "worker"
        self.hermes_lock = self.container / "requirements.lock"
        self.host_lock = self.root / "roles" / "workerd" / "files" / "host.lock"
        self.node_lock = self.root / "roles" / "worker" / "files" / "node.lock"
        self.wrangler_lock = self.root / "roles" / "worker" / "files" / "wrangler"
        self.supervisor = self.root / "roles" / "workerd" / "files" / "supervisor.py"
        self.guardian = self.root / "roles" / "workerd" / "files" / "guardian.py"
        self.cleaner = self.root / "roles" / "workerd" / "files" / "cleaner.py"
        self.docker = self.root / "plugins" / "module_utils" / "docker.py"
        self.host_programs = [self.supervisor, self.guardian, self.cleaner, self.docker]
        self.engine = self.container / "engine"
        self.sandbox = self.container / "sandbox"
        self.start_script = self.container / "start-hermes.sh"

    @cached_property
    def hermes_version(self) -> str:
        """The Hermes release that the lock pins."""
        return locked_version(self.hermes_lock, "hermes-agent")

    @cached_property
    def image(self) -> str:
        """Digest of the process engine's image."""
        paths = [self.hermes_lock, self.start_script, *files_below(self.sandbox)]
        return digest_of(self.root, paths, python_tag())

    def container_image(self, base: str) -> str:
        """Return the digest of the image for containers. base: the image it is built upon, empty for the default."""
        return digest_of(self.root, [], build_context.source_digest(self.container, ""), base)

    def image_for(self, settings: Settings) -> str:
        """Return the name of the image that a deployment runs Hermes from, as the Worker knows it."""
        if settings.engine != "process":
            return f"{REPOSITORY}:{self.container_image(settings.base_image)}"
        return self.image

    @cached_property
    def host(self) -> str:
        """Digest of the host's runtime: its programs and the engine."""
        paths = [self.host_lock, *self.host_programs, *files_below(self.engine)]
        return digest_of(self.root, paths, python_tag())

    @cached_property
    def tools(self) -> str:
        """Digest of what npm installs for the Worker; tools of its developers do not count."""
        return digest_of(self.root, [], *self.production_packages.values())

    @cached_property
    def wrangler(self) -> str:
        """Digest of what npm installs to upload a Worker to Cloudflare."""
        return digest_of(self.root, [self.wrangler_lock / name for name in NPM_FILES])

    @cached_property
    def production_packages(self) -> dict[str, str]:
        """package.json and package-lock.json without anything that only developers need: name -> text."""
        manifest = json.loads((self.worker / "package.json").read_text(encoding="utf-8"))
        lock = json.loads((self.worker / "package-lock.json").read_text(encoding="utf-8"))
        manifest.pop("devDependencies", None)
        lock["packages"] = {
            path: entry for path, entry in lock["packages"].items() if not entry.get("dev")
        }
        lock["packages"][""].pop("devDependencies", None)
        manifest.pop("scripts", None)
        return {
            "package.json": json.dumps(manifest, indent=2),
            "package-lock.json": json.dumps(lock, indent=2),
        }

    @cached_property
    def code(self) -> str:
        """Digest of the Worker's sources and of the tools that bundle them."""
        return digest_of(
            self.root, files_below(self.worker / "src"), self.tools, *self._bundle_words()
        )

    def bundle_command(self, esbuild: Path, output: Path) -> list[str]:
        """Return the bundler's command, with the options that worker/package.json names."""
        return [str(esbuild), *self._bundle_words(), f"--outfile={output}"]

    def _bundle_words(self) -> list[str]:
        scripts = json.loads((self.worker / "package.json").read_text(encoding="utf-8"))["scripts"]
        return [
            word for word in shlex.split(scripts["bundle"])[1:] if not word.startswith("--outfile")
        ]


@dataclass(frozen=True)
class Rendered:
    """A workerd configuration and the version that marks it and the code."""

    text: str
    version: str


def render(settings: Settings, sources: Sources) -> Rendered:
    """Render the workerd configuration of a deployment.

    The version is the digest of the configuration and of the code, so the same inputs give the same version on every
    machine, before anything is built. No secret is in the text: they come from workerd's environment.
    """
    draft = _configuration(settings, sources, version="")
    version = digest_of(sources.root, [], draft, sources.code)
    return Rendered(_configuration(settings, sources, version), version)


def variables(settings: Settings, sources: Sources, version: str) -> dict[str, str]:
    """Return the Worker's text variables."""
    return {
        "HERMES_NAME": settings.name,
        "WORKER_VERSION": version,
        "HERMES_VERSION": sources.hermes_version,
        "HERMES_IMAGE": sources.image_for(settings),
        "HERMES_PLATFORM": settings.platform,
        "HERMES_ENGINE": settings.engine,
        "HERMES_DEFAULT_MODEL": settings.default_model,
        "HERMES_MODELS": canonical(settings.models),
        "HERMES_PROVIDER_BASE_URL": settings.provider_base_url,
        "HERMES_CONTEXT_LENGTH": str(settings.context_length or ""),
        "HERMES_PROVIDER_KEYS": settings.provider_keys,
        "HERMES_AI_GATEWAY": settings.ai_gateway,
        "HERMES_EGRESS": settings.egress,
        "HERMES_SLEEP_AFTER": duration(settings.sleep_after),
        "HERMES_DRAIN_TIMEOUT": str(settings.drain_timeout),
        "HERMES_TOKEN_OVERLAP": f"{settings.token_overlap}s",
        "HERMES_CORS_ORIGINS": ",".join(settings.cors_origins),
        "HERMES_ACCESS_TEAM_DOMAIN": settings.access_team_domain,
        "HERMES_ACCESS_AUDIENCES": ",".join(settings.access_audiences),
        "HERMES_DASHBOARD_ORIGIN": settings.dashboard_origin,
        "HERMES_DASHBOARD_IDLE": f"{settings.dashboard_idle}s",
        "HERMES_ON_DISCONNECT": settings.on_disconnect,
        "HERMES_HOST_TOOLS": _boolean(settings.host_tools),
        "HERMES_ALLOW_UNAUTHENTICATED": _boolean(settings.allow_unauthenticated),
        "HERMES_DASHBOARD": _dashboard(settings),
        "PROVIDERS_ADDRESS": PROVIDERS_IN_CONTAINER
        if settings.engine != "process"
        else f"http://127.0.0.1:{settings.providers_port}",
        "HERMES_INSTANCE_TYPE": settings.instance_type,
        "HERMES_LOCATION": settings.location,
        "HERMES_DASHBOARD_HOSTNAME": settings.dashboard_hostname,
        "HERMES_ENV": canonical(settings.env),
    }


def compatibility_flags(settings: Settings) -> list[str]:
    """Return what the Worker asks of the runtime beyond its date.

    Clients that leave are told of; an object that finishes a turn alone is not evicted during it.
    """
    alone = ["durable_object_io_tasks_prevent_eviction"]
    return ["enable_request_signal", *(alone if settings.on_disconnect == "finish" else [])]


def session_of(settings: Settings) -> str:
    """Return the id by which workerd and we recognise a deployment's containers in their engine.

    It depends on the folder: two deployments of one name, of two users say, may share an engine.
    """
    folder = Deployment(settings.state_dir, settings.name).folder
    return f"{settings.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"


def _dashboard(settings: Settings) -> str:
    """Return "on", or "off: " and why."""
    if not settings.dashboard:
        return "off: hermes_dashboard is false."
    if settings.platform == "cloudflare" and not settings.dashboard_hostname:
        return "off: hermes_dashboard_hostname is not set."
    return "on"


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _configuration(settings: Settings, sources: Sources, version: str) -> str:
    texts = variables(settings, sources, version)
    networks = special_networks(settings.provider_base_url or settings.ai_gateway)
    bindings = [f"(name = {_text(name)}, text = {_text(value)})" for name, value in texts.items()]
    bindings += [
        f"(name = {_text(name)}, fromEnvironment = {_text(name)})" for name in SECRET_BINDINGS
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
    container, engine = _container(settings, sources)
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
  modules = [(name = "worker.js", esModule = embed "worker.js")],
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

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a deployment listens, who may call it, and what it may reach."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from ..addresses import LOOPBACK, OPAQUE_ORIGINS, origin, web_origin
from ..docker import find_socket, socket_path
from .catalogue import (
    DASHBOARD_PORT_OFFSET,
    DEFAULT_PORT,
    PORT_VARIABLES,
    PROVIDERS_PORT_OFFSET,
    SIDECAR_IMAGE,
)
from .inputs import Inputs
from .values import AUDIENCE, EGRESS_HOST, TEAM_DOMAIN, show, url_flaw


def read_ports(inputs: Inputs) -> None:
    """Read where this machine listens; no two sockets share a port."""
    inputs.settings.port = inputs.port("hermes_port", DEFAULT_PORT)
    inputs.settings.providers_port = inputs.port(
        "hermes_providers_port", _beside(inputs, PROVIDERS_PORT_OFFSET)
    )
    inputs.settings.dashboard_port = inputs.port(
        "hermes_dashboard_port", _beside(inputs, DASHBOARD_PORT_OFFSET)
    )
    taken: dict[int, str] = {}
    for name, port in inputs.settings.ports.items():
        other = taken.setdefault(port, PORT_VARIABLES[name])
        if other != PORT_VARIABLES[name]:
            inputs.problem(
                PORT_VARIABLES[name],
                f"{port} is {other} already.",
                f"give the two different ports, or leave {PORT_VARIABLES[name]} out.",
                "port",
            )


def _beside(inputs: Inputs, offset: int) -> int:
    """Return the port that goes with hermes_port: above it, or below where there is none above."""
    port = inputs.settings.port + offset
    return port if port <= 65535 else inputs.settings.port - offset


def _address(inputs: Inputs, variable: str, example: str) -> str:
    """Read a base URL, or an empty text."""
    url = inputs.text(variable, "channels").rstrip("/")
    flaw = url_flaw(url) if url else ""
    if flaw:
        inputs.problem(variable, flaw, f"set {variable} to an address like {example}.", "channels")
    return "" if flaw else url


def read_addresses(inputs: Inputs) -> None:
    """Read where platforms send messages to, and where Telegram's API is."""
    inputs.settings.public_url = _address(inputs, "hermes_public_url", "https://hermes.example.com")
    if inputs.settings.public_url.startswith("http:"):
        inputs.problem(
            "hermes_public_url",
            "is without TLS, and platforms send messages to https addresses only.",
            "set hermes_public_url to an address like https://hermes.example.com.",
            "channels",
        )
    inputs.settings.telegram_api_url = _address(
        inputs, "hermes_telegram_api_url", "http://127.0.0.1:8081"
    )


def read_origins(inputs: Inputs) -> None:
    """Read which pages may call, and where people see the dashboard."""
    settings = inputs.settings
    settings.cors_origins = inputs.texts(
        "hermes_cors_origins", origin, "an origin like https://app.example.com"
    )
    value = inputs.text("hermes_dashboard_origin", "inputs").strip()
    if not value or web_origin(value):
        settings.dashboard_origin = value
        return
    inputs.problem(
        "hermes_dashboard_origin",
        f"{show(value)} is not an origin like https://hermes.example.com.",
        "write scheme, name and port as the browser's address line has them, and nothing behind.",
        "inputs",
    )


def note_open_to_every_page(inputs: Inputs) -> None:
    """Note that any page of the web can call itself nobody's, where no token keeps it out."""
    opaque = [one for one in inputs.settings.cors_origins if one in OPAQUE_ORIGINS]
    if opaque and inputs.settings.allow_unauthenticated:
        inputs.problem(
            "hermes_cors_origins",
            f"{show(opaque[0])} is what pages of any site can send, and no token keeps them out.",
            f"take {opaque[0]} out of hermes_cors_origins, or hermes_allow_unauthenticated away.",
            "inputs",
        )


def read_access(inputs: Inputs) -> None:
    """Read Cloudflare Access; it takes a team and at least one audience."""
    settings = inputs.settings
    settings.access_audiences = inputs.texts(
        "hermes_access_audiences", AUDIENCE.fullmatch, "the audience tag of an application"
    )
    domain = inputs.text("hermes_access_team_domain", "access").lower()
    if domain and not TEAM_DOMAIN.fullmatch(domain):
        inputs.problem(
            "hermes_access_team_domain",
            f"{show(domain)} is not a team's domain.",
            "set hermes_access_team_domain, for example to my-team.cloudflareaccess.com.",
            "access",
        )
        return
    settings.access_team_domain = domain
    if bool(domain) != bool(inputs.raw.get("hermes_access_audiences")):
        missing, given = ("audiences", "team_domain") if domain else ("team_domain", "audiences")
        inputs.problem(
            f"hermes_access_{missing}",
            f"not set, but hermes_access_{given} is.",
            "set both, or neither.",
            "access",
        )


def read_egress(inputs: Inputs) -> None:
    """Read what a container may reach; nothing can hold a process to it, which shares our network."""
    value = inputs.given("hermes_egress")
    value = "open" if value is None else value
    if not value:  # `no`, or an empty list, is not meant to open anything
        inputs.problem(
            "hermes_egress",
            f"{show(value)} names nothing.",
            "say open, providers (which alone can be reached then) or a list of hosts.",
            "egress",
        )
        return
    hosts = (
        [value]
        if value in ("open", "providers")
        else inputs.texts(
            "hermes_egress",
            EGRESS_HOST.fullmatch,
            "open, providers or a list of hosts, like github.com or .example.com",
        )
    )
    if hosts and hosts != ["open"] and inputs.settings.engine == "process":
        inputs.problem(
            "hermes_egress",
            "cannot be kept by the process engine: Hermes shares this machine's network there.",
            "set hermes_engine: docker, or leave hermes_egress out.",
            "egress",
        )
    elif hosts not in ([], ["open"]) and inputs.settings.provider_keys == "environment":
        inputs.problem(
            "hermes_egress",
            "needs sealed keys: with hermes_provider_keys: environment Hermes speaks to the providers by itself.",
            "set hermes_provider_keys: sealed, or leave hermes_egress out.",
            "egress",
        )
    else:
        inputs.settings.egress = ",".join(hosts) or "open"


def read_docker(inputs: Inputs) -> None:
    """Read what only matters where Hermes runs in a container."""
    settings = inputs.settings
    settings.base_image = inputs.image("hermes_base_image", "")
    settings.sidecar_image = inputs.image("hermes_sidecar_image", SIDECAR_IMAGE)
    if settings.engine == "process":
        return
    if settings.engine == "docker":
        _own_way_out(inputs)
    value = inputs.text("hermes_docker_socket", "docker")
    path = socket_path(value)
    if not value:
        settings.docker_socket = find_socket()
    elif path.startswith("/") and not re.search(r"[\0-\x1f\x7f\"\\$]", path):
        settings.docker_socket = path
    elif settings.engine == "cloudflare":
        # Only a build needs one, and whoever names an engine elsewhere may never build.
        settings.docker_socket = find_socket()
    else:
        inputs.problem(
            "hermes_docker_socket",
            f"{show(value)} is not a unix socket: workerd speaks to a container engine on this machine only.",
            "set hermes_docker_socket (or DOCKER_HOST), for example to unix:/var/run/docker.sock.",
            "docker",
        )


def _own_way_out(inputs: Inputs) -> None:
    """Refuse a provider that only the Worker reaches, where Hermes speaks to the providers by itself."""
    host = urlsplit(inputs.settings.provider_base_url).hostname
    if inputs.settings.provider_keys == "environment" and host in LOOPBACK:
        inputs.problem(
            "hermes_provider_base_url",
            f"{host} is the container itself to a Hermes with hermes_provider_keys: environment.",
            "leave hermes_provider_keys at sealed, so that the Worker asks the provider, or set"
            " hermes_provider_base_url to an address of this machine that a container reaches.",
            "provider-url",
        )

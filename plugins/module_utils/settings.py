# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment is told to be: every input checked, all problems collected, no value of a secret ever shown."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

from .addresses import (
    LOOPBACK,
    OPAQUE_ORIGINS,
    is_address,
    local_name,
    origin,
    private_address,
    web_origin,
)
from .docker import find_socket, socket_path
from .errors import Problem

DEFAULT_MODEL = "anthropic/claude-sonnet-4-5"
REHEARSAL_MODEL = "rehearsal/rehearsal"
DEFAULT_PORT = 8787
PROVIDERS_PORT_OFFSET = 10000
DASHBOARD_PORT_OFFSET = 1000
SIDECAR_IMAGE = "cloudflare/proxy-everything"
"""What workerd puts in front of a container's network, unless hermes_sidecar_image names another."""
API_BASE_URL = "https://api.cloudflare.com/client/v4"
INSTANCE_TYPES = ("standard-1", "lite", "basic", "standard-2", "standard-3", "standard-4")
"""Sizes of Cloudflare's containers; the first is the default."""
LOCATIONS = (
    "",
    "wnam",
    "enam",
    "sam",
    "weur",
    "eeur",
    "apac",
    "apac-ne",
    "apac-se",
    "oc",
    "afr",
    "me",
)
"""Where Cloudflare may make a Durable Object, in its own words; the first, nowhere in particular, is the default."""
UPLOADERS = ("auto", "wrangler", "plain")
PATH_BYTES = 1024
"""What every system takes; a component has its own limit of 255."""
CONTEXT_LENGTHS = (64_000, 10_000_000)
"""Tokens of a model's context; with fewer Hermes does not start a turn."""
NAME_LENGTH = 54
"""A Worker's name may have 63 characters; 54 leave room for the suffixes that preview addresses add."""

SUGGESTED_MODELS = {
    "anthropic": DEFAULT_MODEL,
    "openrouter": "openrouter/anthropic/claude-sonnet-4.5",
    "openai": "openai/gpt-5-mini",
}
KEY_VARIABLES = {
    "anthropic": "anthropic_api_key",
    "openrouter": "openrouter_api_key",
    "openai": "openai_api_key",
    "custom": "custom_api_key",
}
PROVIDERS = (*KEY_VARIABLES, "rehearsal")
KEY_NAMES = {variable: variable.upper() for variable in KEY_VARIABLES.values()}
"""Inventory variable of a provider's key -> name of the Worker's secret and of the environment variable."""
ENVIRONMENT = KEY_NAMES | {
    "cloudflare_api_token": "CLOUDFLARE_API_TOKEN",
    "cloudflare_api_base_url": "CLOUDFLARE_API_BASE_URL",
    "hermes_account_id": "CLOUDFLARE_ACCOUNT_ID",
    "hermes_docker_socket": "DOCKER_HOST",
}
"""Inventory variable -> the environment variable that is asked where the inventory does not mention it."""
SECRET_INPUTS = frozenset(KEY_NAMES) | {
    "cloudflare_api_token",
    "hermes_api_token",
    "hermes_ai_gateway_token",
    "hermes_secrets",
}
"""Inventory variables whose values are never shown, and stand in no task's arguments."""
VALUE_BYTES = 5120
"""Cloudflare's limit for a variable or a secret of a Worker."""
SECRET_VARIABLES = {name: variable for variable, name in KEY_NAMES.items()} | {
    "API_TOKEN": "hermes_api_token",
    "AI_GATEWAY_TOKEN": "hermes_ai_gateway_token",
    "HERMES_SECRETS": "hermes_secrets",
    "API_TOKEN_PREVIOUS": "hermes_api_token (the one before)",
}
"""Name of a Worker's secret -> the inventory variable that people know it by."""

AFTER_REBOOT = ("stay_down", "start", "start_with_keys")

PORT_VARIABLES = {
    "http": "hermes_port",
    "providers": "hermes_providers_port",
    "dashboard": "hermes_dashboard_port",
}
"""Name of a socket -> the inventory variable with its port."""

KNOWN_VARIABLES = frozenset(
    f"hermes_{name}"
    for name in (
        "access_audiences",
        "access_team_domain",
        "account_id",
        "action",
        "after_reboot",
        "ai_gateway",
        "ai_gateway_token",
        "allow_unauthenticated",
        "api_token",
        "backup",
        "backup_dir",
        "base_image",
        "cors_origins",
        "dashboard",
        "check_provider_key",
        "context_length",
        "dashboard_hostname",
        "dashboard_idle",
        "dashboard_origin",
        "dashboard_port",
        "default_model",
        "docker_socket",
        "drain_timeout",
        "egress",
        "engine",
        "env",
        "forget",
        "gateway_token",
        "host_tools",
        "instance_type",
        "location",
        "log_level",
        "log_lines",
        "log_raw",
        "log_since",
        "max_fail_percentage",
        "models",
        "name",
        "on_disconnect",
        "platform",
        "port",
        "provider",
        "provider_base_url",
        "provider_keys",
        "providers_port",
        "prune_images",
        "route_mode",
        "secrets",
        "serial",
        "sidecar_image",
        "sleep_after",
        "state_dir",
        "take_over_hostname",
        "token_command",
        "token_overlap",
        "token_vault_file",
        "uploader",
        "verify",
        "version",
    )
)

INPUTS = KNOWN_VARIABLES | frozenset(ENVIRONMENT)
"""Every inventory variable that this collection reads."""


def role_argument(variable: str) -> str | None:
    """Return the argument of the role preflight that stands in for an inventory variable; none for a secret."""
    if variable in SECRET_INPUTS:
        return None
    return f"preflight_{variable.removeprefix('hermes_').removeprefix('cloudflare_')}"


ROLE_VARIABLES = frozenset(filter(None, map(role_argument, INPUTS))) | {
    "preflight_inventory",
    "preflight_purpose",
    "preflight_result",
    "preflight_rotate",
}
"""What the role preflight reads and sets."""
OF_ONE_PLAY = ("hermes_action", "hermes_backup", "hermes_backup_dir")
"""What a playbook for an existing deployment hands on to its task."""
LATER_VARIABLES = (
    "hermes_gateway_token",
    "hermes_version",
)
"""Known, but without effect in this release: refused, because silence would promise what is not done."""

# Names that the Worker sets in Hermes' environment by itself.
RESERVED_ENV = re.compile(
    r"API_SERVER_.*|HERMES_(HOME|MANAGED_DIR|BOOT_ID)|SANDBOX_.*|PORT_\d+|HOME|PATH|LD_.*|PYTHON.*"
)
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
SHOWN_NAME = re.compile(r"[\w .-]{1,60}")
RESERVED_NAMES = ("backups",)
"""What lies beside the deployments in their state folder and could be a name; the rest begins with a dot."""
NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
MODEL = re.compile(r"[\w.:@/+-]{1,200}", re.ASCII)
# A name with an optional tag and digest; upper-case letters only in these.
IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?", re.ASCII)
AI_GATEWAY = "https://gateway.ai.cloudflare.com/v1"
GATEWAY = re.compile(r"[0-9a-f]{32}/[a-z0-9_-]{1,64}", re.ASCII)
# A name; one that begins with a dot stands for everything below it.
EGRESS_HOST = re.compile(r"\.?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z0-9-]*[a-z]", re.ASCII)
TEAM_DOMAIN = re.compile(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}", re.ASCII)
AUDIENCE = re.compile(r"[\w-]{8,128}", re.ASCII)
ACCOUNT_ID = re.compile(r"[0-9a-f]{32}")
# Labels of letters, digits and inner dashes; at least two of them.
HOSTNAME = re.compile(
    r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]"
)
SIZE = re.compile(r"[1-9][0-9]{0,8}|(100|[1-9]?[0-9])%")
DURATION = re.compile(r"(\d{1,6})\s*(s|m|h)")
SECONDS = {"s": 1, "m": 60, "h": 3600}
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass
class Settings:
    """A checked deployment, without its secrets. Durations are in seconds."""

    name: str = ""
    platform: str = "workerd"
    engine: str = "process"
    state_dir: str = ".hermes"
    port: int = DEFAULT_PORT
    providers_port: int = DEFAULT_PORT + PROVIDERS_PORT_OFFSET
    dashboard: bool = True
    dashboard_port: int = DEFAULT_PORT + DASHBOARD_PORT_OFFSET
    default_model: str = REHEARSAL_MODEL
    models: list[str] = field(default_factory=list)
    provider_base_url: str = ""
    context_length: int = 0
    """Of the models behind it, in tokens; 0 when nobody said."""
    provider_keys: str = "sealed"
    ai_gateway: str = ""
    egress: str = "open"
    """open, providers, or hosts separated by commas."""
    sleep_after: int = 4 * 3600
    drain_timeout: int = 60
    token_overlap: int = 600
    on_disconnect: str = "stop"
    after_reboot: str = "stay_down"
    token_vault_file: str = ""
    """Where a rotation writes the API token that the inventory gives; one of these two, or neither."""
    token_command: list[str] = field(default_factory=list)
    host_tools: bool = False
    allow_unauthenticated: bool = False
    cors_origins: list[str] = field(default_factory=list)
    access_team_domain: str = ""
    access_audiences: list[str] = field(default_factory=list)
    dashboard_idle: int = 3600
    dashboard_origin: str = ""
    """Where people see the dashboard, when a proxy before it tells the Worker something else."""
    env: dict[str, str] = field(default_factory=dict)
    verify: str = "auto"
    docker_socket: str = ""
    base_image: str = ""
    sidecar_image: str = SIDECAR_IMAGE
    host: str = ""
    """Where Cloudflare serves the API; empty on this machine."""
    deployments: int = 1
    """How many of the account share what Cloudflare's plan includes."""
    account_id: str = ""
    api_base_url: str = API_BASE_URL
    instance_type: str = INSTANCE_TYPES[0]
    location: str = LOCATIONS[0]
    """Near where the object is made; what is there already stays where it is."""
    dashboard_hostname: str = ""
    route_mode: str = "custom_domain"
    take_over_hostname: bool = False
    uploader: str = "auto"
    """What uploads to Cloudflare: wrangler, plain calls, or what suits the number of deployments."""
    check_provider_key: bool = False
    prune_images: bool = False

    @property
    def provider(self) -> str:
        """The provider of the default model."""
        return self.default_model.split("/", 1)[0]

    @property
    def ports(self) -> dict[str, int]:
        """The ports of 127.0.0.1 that the deployment takes, by the name of the socket."""
        if self.platform != "workerd":
            return {}
        ports = {"http": self.port}
        if self.engine == "process":  # from a container, Hermes reaches its providers otherwise
            ports["providers"] = self.providers_port
        if self.dashboard:
            ports["dashboard"] = self.dashboard_port
        return ports

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for a task's result."""
        return asdict(self)


class Checker:
    """Reads raw inputs into Settings and secrets, and notes every problem instead of stopping at the first."""

    def __init__(self, raw: Mapping[str, Any], *, sources: Mapping[str, str] | None = None) -> None:
        """raw: values by inventory variable, of those that are set; sources: where each was set, for people."""
        self.raw = raw
        self.sources = dict(sources or {})
        self.problems: list[Problem] = []
        self.settings = Settings()
        self.secrets: dict[str, str] = {}
        self.cloudflare_token = ""

    def check(self) -> Checker:
        """Check everything; returns self."""
        self._platform()
        self._name()
        self._ports()
        self.read_secrets()
        self._models()
        self._base_url()
        self._context_length()
        settings = self.settings
        settings.provider_keys = self._choice("hermes_provider_keys", ("sealed", "environment"))
        self._ai_gateway()
        self._egress()
        settings.sleep_after = self._duration(
            "hermes_sleep_after", 60, 6 * 3600, settings.sleep_after
        )
        settings.drain_timeout = self._duration(
            "hermes_drain_timeout", 0, 600, settings.drain_timeout
        )
        settings.token_overlap = self._duration(
            "hermes_token_overlap", 0, 24 * 3600, settings.token_overlap
        )
        self._token_store()
        settings.dashboard_idle = self._duration(
            "hermes_dashboard_idle", 0, 24 * 3600, settings.dashboard_idle
        )
        self._origins()
        self._access()
        settings.on_disconnect = self._choice("hermes_on_disconnect", ("stop", "finish"))
        settings.after_reboot = self._choice("hermes_after_reboot", AFTER_REBOOT)
        settings.host_tools = self._boolean("hermes_host_tools")
        settings.allow_unauthenticated = self._boolean("hermes_allow_unauthenticated")
        self._open_to_every_page()
        settings.env = self._environment()
        settings.verify = self._choice("hermes_verify", ("auto", "full"))
        self._docker()
        self._cloudflare()
        self._state_dir()
        self._batches()
        return self

    def check_place(self) -> None:
        """Check only what finds an existing deployment: its name, its state folder, and what its plays are told."""
        self._name()
        self._state_dir()
        self._batches()
        # Ansible would hand a list or a mapping on as the text that Python has for it.
        for variable in OF_ONE_PLAY:
            self._text(variable, "inputs")

    def _batches(self) -> None:
        """Check what the play itself could not use, and went on without."""
        for variable, (_default, flaw_of, example) in BATCHES.items():
            value = self._given(variable)
            flaw = "" if value is None else flaw_of(value)
            if flaw:
                self.problem(
                    variable,
                    f"{show(value)} {flaw}",
                    f"say for example -e {variable}={example}.",
                    "batches",
                )

    def problem(self, subject: str, sentence: str, remedy: str, code: str) -> None:
        """Note one problem, once."""
        found = Problem(subject, sentence, remedy, code)
        if found not in self.problems:
            self.problems.append(found)

    def _given(self, variable: str) -> Any:
        """Return what was said; None for nothing and for an empty text. `false`, 0 and [] do say something."""
        value = self.raw.get(variable)
        return None if value == "" else value

    def _text(self, variable: str, code: str) -> str:
        """Return a text that was said, or an empty one; note what is not text, which YAML may have made of it."""
        value = self._given(variable)
        if value is None or isinstance(value, str):
            return value or ""
        self.problem(
            variable,
            f"{show(value)} is no text to YAML.",
            f"write it in quotes: {variable}: '...'.",
            code,
        )
        return ""

    def _choice(self, variable: str, choices: tuple[str, ...]) -> str:
        value = self._given(variable)
        if value is None:
            return choices[0]
        if value in choices:
            return value
        close = difflib.get_close_matches(str(value), choices, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        listed = ", ".join(filter(None, choices))
        self.problem(
            variable,
            f"{show(value)} is not one of {listed}.{hint}",
            f"set {variable} to one of {listed}.",
            "inputs",
        )
        return choices[0]

    def _platform(self) -> None:
        self.settings.platform = self._choice("hermes_platform", ("cloudflare", "workerd"))
        self.settings.engine = self._choice("hermes_engine", ("process", "docker"))
        if self.settings.platform == "cloudflare":
            self.settings.engine = "cloudflare"

    def _cloudflare(self) -> None:
        """Read what only matters on Cloudflare."""
        settings = self.settings
        settings.instance_type = self._choice("hermes_instance_type", INSTANCE_TYPES)
        settings.location = self._choice("hermes_location", LOCATIONS)
        settings.route_mode = self._choice("hermes_route_mode", ("custom_domain", "zone_route"))
        settings.take_over_hostname = self._boolean("hermes_take_over_hostname")
        settings.uploader = self._choice("hermes_uploader", UPLOADERS)
        settings.check_provider_key = self._boolean("hermes_check_provider_key")
        settings.prune_images = self._boolean("hermes_prune_images")
        settings.dashboard_hostname = self._hostname("hermes_dashboard_hostname")
        if settings.platform != "cloudflare":
            return
        self._account()
        parts = urlsplit(settings.provider_base_url)
        host = parts.hostname or ""
        if private_address(host) or local_name(host) or parts.scheme == "http":
            self.problem(
                "hermes_provider_base_url",
                "is an address of this machine or a private network, which Cloudflare does not reach."
                if private_address(host) or local_name(host)
                else unencrypted("over the internet"),
                "set hermes_provider_base_url to a public https address, or hermes_platform: workerd.",
                "provider-url",
            )
        elif is_address(host):
            self.problem(
                "hermes_provider_base_url",
                "is an IP address, and Cloudflare's Workers reach the internet by name only (its error 1003).",
                "set hermes_provider_base_url to a name that leads there, for example https://models.example.com/v1.",
                "provider-url",
            )
        self._sizes()

    def _sizes(self) -> None:
        """Note what Cloudflare would refuse for its size."""
        values = {
            "hermes_env": canonical(self.settings.env),
            "hermes_models": canonical(self.settings.models),
            "hermes_cors_origins": ",".join(self.settings.cors_origins),
            "hermes_access_audiences": ",".join(self.settings.access_audiences),
        }
        values |= {SECRET_VARIABLES[name]: value for name, value in self.secrets.items()}
        for variable, value in values.items():
            size = len(value.encode())
            if size > VALUE_BYTES:
                self.problem(
                    variable,
                    f"takes {size} bytes; Cloudflare's limit for one value is {VALUE_BYTES}.",
                    "make it shorter: on Cloudflare all of it is one variable or secret of the Worker.",
                    "inputs",
                )

    def _account(self) -> None:
        """Read who deploys, and where to."""
        settings = self.settings
        value = str(self.raw.get("hermes_account_id") or "").strip().lower()
        if ACCOUNT_ID.fullmatch(value):
            settings.account_id = value
        else:
            self.problem(
                "hermes_account_id",
                f"{show(value)} is not an account id: 32 hexadecimal digits."
                if value
                else "not set.",
                "copy it from the dashboard (Workers & Pages, right-hand column) and set hermes_account_id,"
                " or export CLOUDFLARE_ACCOUNT_ID. To run Hermes on this machine instead:"
                " hermes_platform: workerd.",
                "account",
            )
        self._api_base_url()
        token = self.raw.get("cloudflare_api_token")
        flaw = key_flaw(token) if token not in (None, "") else "not set"
        if flaw:
            self.problem(
                "cloudflare_api_token",
                f"{flaw} (the value is not shown)." if token else "not set.",
                "make an API token at https://dash.cloudflare.com/profile/api-tokens and export"
                " CLOUDFLARE_API_TOKEN, or set cloudflare_api_token in the inventory (vaulted).",
                "cloudflare-token",
            )
        else:
            self.cloudflare_token = token

    def _api_base_url(self) -> None:
        """Read where Cloudflare's API is; the token is sent there."""
        url = self._text("cloudflare_api_base_url", "cloudflare-api")
        flaw = url_flaw(url) if url else ""
        if flaw:
            self.problem(
                "cloudflare_api_base_url",
                flaw,
                f"leave it out, or set it to an address like {API_BASE_URL}.",
                "cloudflare-api",
            )
        elif url:
            self.settings.api_base_url = url.rstrip("/")

    def _hostname(self, variable: str) -> str:
        value = self._text(variable, "hostname").strip().lower().rstrip(".")
        if not value or HOSTNAME.fullmatch(value):
            return value
        self.problem(
            variable,
            f"{show(value)} is not a hostname.",
            f"set {variable} to a name in one of your zones, for example hermes.example.com.",
            "hostname",
        )
        return ""

    def _docker(self) -> None:
        """Read what only matters where Hermes runs in a container."""
        settings = self.settings
        settings.base_image = self._image("hermes_base_image", "")
        settings.sidecar_image = self._image("hermes_sidecar_image", SIDECAR_IMAGE)
        if settings.engine == "process":
            return
        if settings.engine == "docker":
            self._own_way_out()
        value = self._text("hermes_docker_socket", "docker")
        path = socket_path(value)
        if not value:
            settings.docker_socket = find_socket()
        elif path.startswith("/") and not re.search(r"[\0-\x1f\x7f\"\\$]", path):
            settings.docker_socket = path
        elif settings.engine == "cloudflare":
            # Only a build needs one, and whoever names an engine elsewhere may never build.
            settings.docker_socket = find_socket()
        else:
            self.problem(
                "hermes_docker_socket",
                f"{show(value)} is not a unix socket: workerd speaks to a container engine on this machine only.",
                "set hermes_docker_socket (or DOCKER_HOST), for example to unix:/var/run/docker.sock.",
                "docker",
            )

    def _own_way_out(self) -> None:
        """Refuse a provider that only the Worker reaches, where Hermes speaks to the providers by itself."""
        host = urlsplit(self.settings.provider_base_url).hostname
        if self.settings.provider_keys == "environment" and host in LOOPBACK:
            self.problem(
                "hermes_provider_base_url",
                f"{host} is the container itself to a Hermes with hermes_provider_keys: environment.",
                "leave hermes_provider_keys at sealed, so that the Worker asks the provider, or set"
                " hermes_provider_base_url to an address of this machine that a container reaches.",
                "provider-url",
            )

    def _ai_gateway(self) -> None:
        """Read Cloudflare's AI Gateway: account/gateway, or the address of one."""
        value = self._text("hermes_ai_gateway", "ai-gateway").rstrip("/")
        if not value:
            return
        url = f"{AI_GATEWAY}/{value}" if GATEWAY.fullmatch(value) else value
        if url_flaw(url):
            self.problem(
                "hermes_ai_gateway",
                f"{show(value)} is no gateway." if "@" not in value else "is no gateway.",
                "set hermes_ai_gateway to account-id/gateway-name.",
                "ai-gateway",
            )
        elif self.settings.provider_base_url or self.settings.provider_keys != "sealed":
            other = (
                "hermes_provider_base_url"
                if self.settings.provider_base_url
                else "hermes_provider_keys"
            )
            self.problem(
                "hermes_ai_gateway",
                f"cannot stand beside {other}: the Worker speaks to the gateway, with the keys that it holds.",
                f"remove one of the two: hermes_ai_gateway or {other}.",
                "ai-gateway",
            )
        else:
            self.settings.ai_gateway = url

    def _egress(self) -> None:
        """Read what a container may reach; nothing can hold a process to it, which shares our network."""
        value = self._given("hermes_egress")
        value = "open" if value is None else value
        if not value:  # `no`, or an empty list, is not meant to open anything
            self.problem(
                "hermes_egress",
                f"{show(value)} names nothing.",
                "say open, providers (which alone can be reached then) or a list of hosts.",
                "egress",
            )
            return
        hosts = (
            [value]
            if value in ("open", "providers")
            else self._texts(
                "hermes_egress",
                EGRESS_HOST.fullmatch,
                "open, providers or a list of hosts, like github.com or .example.com",
            )
        )
        if hosts and hosts != ["open"] and self.settings.engine == "process":
            self.problem(
                "hermes_egress",
                "cannot be kept by the process engine: Hermes shares this machine's network there.",
                "set hermes_engine: docker, or leave hermes_egress out.",
                "egress",
            )
        elif hosts not in ([], ["open"]) and self.settings.provider_keys == "environment":
            self.problem(
                "hermes_egress",
                "needs sealed keys: with hermes_provider_keys: environment Hermes speaks to the providers by itself.",
                "set hermes_provider_keys: sealed, or leave hermes_egress out.",
                "egress",
            )
        else:
            self.settings.egress = ",".join(hosts) or "open"

    def _access(self) -> None:
        """Read Cloudflare Access; it takes a team and at least one audience."""
        settings = self.settings
        settings.access_audiences = self._texts(
            "hermes_access_audiences", AUDIENCE.fullmatch, "the audience tag of an application"
        )
        domain = self._text("hermes_access_team_domain", "access").lower()
        if domain and not TEAM_DOMAIN.fullmatch(domain):
            self.problem(
                "hermes_access_team_domain",
                f"{show(domain)} is not a team's domain.",
                "set hermes_access_team_domain, for example to my-team.cloudflareaccess.com.",
                "access",
            )
            return
        settings.access_team_domain = domain
        if bool(domain) != bool(self.raw.get("hermes_access_audiences")):
            missing, given = (
                ("audiences", "team_domain") if domain else ("team_domain", "audiences")
            )
            self.problem(
                f"hermes_access_{missing}",
                f"not set, but hermes_access_{given} is.",
                "set both, or neither.",
                "access",
            )

    def _token_store(self) -> None:
        """Read where a rotation writes the API token that the inventory gives."""
        settings = self.settings
        settings.token_vault_file = self._text("hermes_token_vault_file", "token-store")
        command = self._given("hermes_token_command")
        command = [] if command is None else command
        if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
            self.problem(
                "hermes_token_command",
                "is not a list of words.",
                "write the program and its arguments as a list; the token comes on its standard input.",
                "token-store",
            )
        elif command and settings.token_vault_file:
            self.problem(
                "hermes_token_command",
                "stands beside hermes_token_vault_file: the token has one home.",
                "remove one of the two.",
                "token-store",
            )
        else:
            settings.token_command = list(command)

    def _origins(self) -> None:
        """Read which pages may call, and where people see the dashboard."""
        settings = self.settings
        settings.cors_origins = self._texts(
            "hermes_cors_origins", origin, "an origin like https://app.example.com"
        )
        value = self._text("hermes_dashboard_origin", "inputs").strip()
        if not value or web_origin(value):
            settings.dashboard_origin = value
            return
        self.problem(
            "hermes_dashboard_origin",
            f"{show(value)} is not an origin like https://hermes.example.com.",
            "write scheme, name and port as the browser's address line has them, and nothing behind.",
            "inputs",
        )

    def _open_to_every_page(self) -> None:
        """Note that any page of the web can call itself nobody's, where no token keeps it out."""
        opaque = [one for one in self.settings.cors_origins if one in OPAQUE_ORIGINS]
        if opaque and self.settings.allow_unauthenticated:
            self.problem(
                "hermes_cors_origins",
                f"{show(opaque[0])} is what pages of any site can send, and no token keeps them out.",
                f"take {opaque[0]} out of hermes_cors_origins, or hermes_allow_unauthenticated away.",
                "inputs",
            )

    def _texts(self, variable: str, is_good: Callable[[Any], Any], wanted: str) -> list[str]:
        """Read a list of texts that are all good."""
        values = self._list(variable, f"{wanted} each", "inputs")
        bad = [value for value in values if not (isinstance(value, str) and is_good(value))]
        if bad:
            more = f", nor are {len(bad) - 1} more" if len(bad) > 1 else ""
            self.problem(
                variable,
                f"{show(bad[0])} is not {wanted}{more}.",
                f"mend it in {variable}.",
                "inputs",
            )
        return [value for value in values if value not in bad]

    def _list(self, variable: str, wanted: str, code: str) -> list[Any]:
        """Read a list; note what is none."""
        values = self._given(variable)
        if values is None or isinstance(values, list):
            return values or []
        self.problem(variable, "is not a list.", f"write {variable} as a list, of {wanted}.", code)
        return []

    def _mapping(self, variable: str) -> Mapping[str, Any]:
        """Read a mapping of names; note what is none."""
        entries = self._given(variable)
        if entries is None or isinstance(entries, Mapping):
            return entries or {}
        self.problem(
            variable, "is not a mapping.", f"write {variable} as NAME: value pairs.", "inputs"
        )
        return {}

    def _image(self, variable: str, default: str) -> str:
        value = self._given(variable)
        if value is None:
            return default
        if isinstance(value, str) and IMAGE.fullmatch(value):
            return value
        self.problem(
            variable,
            f"{show(value)} does not name an image.",
            f"set {variable} to a name like registry.example/name:tag, or leave it out.",
            "inputs",
        )
        return default

    def _name(self) -> None:
        value = self.raw.get("hermes_name")
        if value in RESERVED_NAMES:
            self.problem(
                "hermes_name",
                f"{show(value)} is a folder of the state folder's own, in which all deployments have a part.",
                "set another hermes_name (its default is the host's name in the inventory).",
                "name",
            )
            return
        if isinstance(value, str) and NAME.fullmatch(value) and len(value) <= NAME_LENGTH:
            self.settings.name = value
            return
        if value is not None and not isinstance(value, str):
            self._text("hermes_name", "name")
            return
        suggestion = (
            re.sub(r"[^a-z0-9]+", "-", str(value).lower()).strip("-")[:NAME_LENGTH].strip("-")
            or "hermes"
        )
        self.problem(
            "hermes_name",
            f"{show(value)} cannot name a Worker: lower-case letters, digits and dashes, a letter or digit at both"
            f" ends, at most {NAME_LENGTH} characters.",
            f"set hermes_name, for example to {suggestion} (its default is the host's name in the inventory).",
            "name",
        )

    def _ports(self) -> None:
        self.settings.port = self._port("hermes_port", DEFAULT_PORT)
        self.settings.providers_port = self._port(
            "hermes_providers_port", self._beside(PROVIDERS_PORT_OFFSET)
        )
        self.settings.dashboard = self._boolean("hermes_dashboard", default=True)
        self.settings.dashboard_port = self._port(
            "hermes_dashboard_port", self._beside(DASHBOARD_PORT_OFFSET)
        )
        taken: dict[int, str] = {}
        for name, port in self.settings.ports.items():
            other = taken.setdefault(port, PORT_VARIABLES[name])
            if other != PORT_VARIABLES[name]:
                self.problem(
                    PORT_VARIABLES[name],
                    f"{port} is {other} already.",
                    f"give the two different ports, or leave {PORT_VARIABLES[name]} out.",
                    "port",
                )

    def _beside(self, offset: int) -> int:
        """Return the port that goes with hermes_port: above it, or below where there is none above."""
        port = self.settings.port + offset
        return port if port <= 65535 else self.settings.port - offset

    def _port(self, variable: str, default: int) -> int:
        value = self.raw.get(variable)
        if value in (None, ""):
            return default
        text = str(value).strip()
        if (
            not isinstance(value, (bool, float))
            and re.fullmatch(r"\d{1,5}", text)
            and 1024 <= int(text) <= 65535
        ):
            return int(text)
        self.problem(
            variable,
            f"{show(value)} is not a port for a user's program: a whole number from 1024 to 65535.",
            f"set {variable}, for example to {default}.",
            "port",
        )
        return default

    def read_secrets(self) -> None:
        """Read the secrets alone."""
        for variable, name in KEY_NAMES.items():
            self._secret(variable, name)
        self._secret("hermes_api_token", "API_TOKEN")
        if 0 < len(self.secrets.get("API_TOKEN", "")) < 16:
            self.problem(
                "hermes_api_token",
                "is shorter than 16 characters.",
                "leave it out and one is generated, or set a longer one.",
                "api-token",
            )
        self._secret("hermes_ai_gateway_token", "AI_GATEWAY_TOKEN")
        self._further_secrets()

    def _secret(self, variable: str, name: str) -> None:
        """Keep a secret, or note what is wrong with it under the name by which it was given."""
        value = self.raw.get(variable)
        if value is None or value == "":
            return
        from_environment = self.sources.get(variable) == "environment"
        shown = ENVIRONMENT[variable] if from_environment else variable
        flaw = key_flaw(value)
        if flaw:
            self.problem(
                shown,
                f"{flaw} (the value is not shown).",
                f"set {shown} again; `tr -d '\\n'` removes a line break that a file ends with.",
                "secret-format",
            )
        else:
            self.secrets[name] = value

    def _further_secrets(self) -> None:
        kept = {}
        for name, value in sorted(self._mapping("hermes_secrets").items()):
            if not self._env_name("hermes_secrets", name):
                continue
            shown = f"hermes_secrets.{name}"
            flaw = secret_flaw(value) or ("is a placeholder" if value == "..." else "")
            if flaw:
                self.problem(
                    shown,
                    f"{flaw} (the value is not shown).",
                    f"set {shown} again, as one line.",
                    "secret-format",
                )
            else:
                kept[name] = value
        if kept:
            self.secrets["HERMES_SECRETS"] = canonical(kept)

    def _environment(self) -> dict[str, str]:
        kept = {}
        secret = self.raw.get("hermes_secrets")
        for name, value in sorted(self._mapping("hermes_env").items()):
            if not self._env_name("hermes_env", name):
                continue
            shown = f"hermes_env.{name}"
            if isinstance(secret, Mapping) and name in secret:
                self.problem(
                    shown,
                    "stands in hermes_secrets too, and Hermes has one environment.",
                    "remove it from one of the two, hermes_env or hermes_secrets.",
                    "inputs",
                )
                continue
            if isinstance(value, bool):
                kept[name] = "true" if value else "false"
            elif isinstance(value, (str, int, float)) and not re.search(r"[\0\r\n]", str(value)):
                kept[name] = str(value)
            else:
                self.problem(
                    shown,
                    "is not one line of text.",
                    f"set {shown} to a text or a number.",
                    "inputs",
                )
        return kept

    def _env_name(self, variable: str, name: str) -> bool:
        shown = f"{variable}.{name}"
        if not ENV_NAME.fullmatch(name):
            # Whoever mixed up names and values may have a secret for a name.
            is_shown = variable not in SECRET_INPUTS and SHOWN_NAME.fullmatch(name)
            self.problem(
                shown if is_shown else variable,
                "is not a name for an environment variable."
                if is_shown
                else "has a name that is none for an environment variable.",
                f"rename {shown if is_shown else 'it'}: letters, digits and underscores.",
                "inputs",
            )
            return False
        if RESERVED_ENV.fullmatch(name) or name in KEY_NAMES.values():
            self.problem(shown, "is set by the deployment itself.", f"remove {shown}.", "inputs")
            return False
        return True

    def _models(self) -> None:
        provider = self._given("hermes_provider")
        if provider not in (None, "rehearsal"):
            self.problem(
                "hermes_provider",
                f"{show(provider)} is not rehearsal, its only value.",
                "name the provider in hermes_default_model, as provider/model.",
                "model",
            )
        further = self._further_models()
        chosen = self._given("hermes_default_model")
        if provider == "rehearsal":
            self._set_model(REHEARSAL_MODEL, "hermes_provider")
        elif chosen is not None:
            self._chosen_model(chosen)
        else:
            self._model_by_keys()
        if self._names_custom(further) and self.settings.provider not in ("custom", "rehearsal"):
            self.problem(
                "hermes_models",
                f"a custom/ model cannot stand beside {self.settings.default_model}: both would go to"
                " hermes_provider_base_url.",
                "set hermes_default_model to a custom/ model too.",
                "model",
            )
        self.settings.models = [model for model in further if model != self.settings.default_model]

    @staticmethod
    def _names_custom(models: list[str]) -> bool:
        return any(model.startswith("custom/") for model in models)

    def _further_models(self) -> list[str]:
        models = self._list("hermes_models", "provider/model each", "model")
        good = [model for model in models if self._model("hermes_models", model)]
        for model in good:
            self._need_key("hermes_models", model)
        return list(dict.fromkeys(good))

    def _model(self, variable: str, model: Any) -> bool:
        """Tell whether a model is provider/model with a known provider; note the problem otherwise."""
        provider, _slash, name = str(model).partition("/")
        if not isinstance(model, str) or provider not in PROVIDERS:
            close = difflib.get_close_matches(provider, PROVIDERS, 1)
            example = f"{close[0]}/{name}" if close and name else DEFAULT_MODEL
            self.problem(
                variable,
                f"{show(model)} does not begin with a known provider ({', '.join(PROVIDERS)}).",
                f"write provider/model, for example {example}.",
                "model",
            )
            return False
        if not MODEL.fullmatch(name) or (provider == "rehearsal" and model != REHEARSAL_MODEL):
            example = SUGGESTED_MODELS.get(provider, f"{provider}/my-model")
            self.problem(
                variable,
                f"{show(model)} names no model of {provider}.",
                f"write provider/model, for example {REHEARSAL_MODEL if provider == 'rehearsal' else example}.",
                "model",
            )
            return False
        return True

    def _chosen_model(self, chosen: Any) -> None:
        if self._model("hermes_default_model", chosen):
            self._need_key("hermes_default_model", chosen)
            self._set_model(chosen, self.sources.get("hermes_default_model", "inventory"))

    def _need_key(self, variable: str, model: str) -> None:
        provider = model.split("/", 1)[0]
        key = KEY_VARIABLES.get(provider)
        # A local endpoint often takes no key, so custom alone may go without one.
        if (
            key is None
            or provider == "custom"
            or KEY_NAMES[key] in self.secrets
            or self.raw.get(key)
            # The gateway may hold the providers' keys.
            or (self.raw.get("hermes_ai_gateway") and "AI_GATEWAY_TOKEN" in self.secrets)
        ):
            return
        self.problem(
            key,
            f"not set, but {variable} names {model}.",
            f"export {KEY_NAMES[key]}=..., or set {key} in the inventory (vaulted);"
            f" or set {variable} to a provider whose key you have.",
            "provider-key",
        )

    def _model_by_keys(self) -> None:
        """Choose the model when nobody named one: the default, if its key is there; rehearsal, if no key is."""
        present = [provider for provider, key in KEY_VARIABLES.items() if self.raw.get(key)]
        if "anthropic" in present:
            self._set_model(DEFAULT_MODEL, "default")
        elif not present and not self.raw.get("hermes_provider_base_url"):
            self._set_model(REHEARSAL_MODEL, "no provider key is set")
        elif present:
            provider = present[0]
            suggestion = SUGGESTED_MODELS.get(provider, "custom/my-model")
            self.problem(
                "hermes_default_model",
                f"not set; its default {DEFAULT_MODEL} needs {KEY_NAMES['anthropic_api_key']},"
                f" but only {', '.join(KEY_NAMES[KEY_VARIABLES[name]] for name in present)} is there.",
                f"set hermes_default_model, for example to {suggestion}.",
                "provider-key",
            )
        else:
            self.problem(
                "hermes_default_model",
                "not set, but hermes_provider_base_url is.",
                "set hermes_default_model, for example to custom/my-model.",
                "model",
            )

    def _set_model(self, model: str, source: str) -> None:
        self.settings.default_model = model
        self.sources["hermes_default_model"] = source

    def _base_url(self) -> None:
        url = self._text("hermes_provider_base_url", "provider-url")
        if not url:
            if self._names_custom([self.settings.default_model, *self.settings.models]):
                self.problem(
                    "hermes_provider_base_url",
                    "not set, but a custom/ model is named.",
                    "set hermes_provider_base_url to the endpoint, for example http://127.0.0.1:11434/v1.",
                    "provider-url",
                )
            return
        flaw = url_flaw(url, by_name=True)
        if flaw:
            self.problem(
                "hermes_provider_base_url",
                flaw,
                "set hermes_provider_base_url to an address like https://api.example.com/v1"
                " or http://127.0.0.1:11434/v1.",
                "provider-url",
            )
            return
        self.settings.provider_base_url = url.rstrip("/")

    def _context_length(self) -> None:
        value = self.raw.get("hermes_context_length")
        if value in (None, ""):
            return
        text = str(value).strip()
        least, most = CONTEXT_LENGTHS
        if (
            not isinstance(value, (bool, float))
            and re.fullmatch(r"[0-9]{1,8}", text)
            and least <= int(text) <= most
        ):
            self.settings.context_length = int(text)
            return
        self.problem(
            "hermes_context_length",
            f"{show(value)} is not a number of tokens from {least} to {most}; Hermes works with no fewer.",
            "set hermes_context_length to what the model's server was started with, for example 131072"
            " (Ollama: OLLAMA_CONTEXT_LENGTH).",
            "model",
        )

    def _duration(self, variable: str, least: int, most: int, default: int) -> int:
        value = self.raw.get(variable)
        if value in (None, ""):
            return default
        match = DURATION.fullmatch(str(value).strip())
        seconds = int(match[1]) * SECONDS[match[2]] if match else -1
        if least <= seconds <= most:
            return seconds
        self.problem(
            variable,
            f"{show(value)} is not a duration from {duration(least)} to {duration(most)}.",
            f"write a number with s, m or h, for example {variable}: {duration(default)}.",
            "duration",
        )
        return default

    def _boolean(self, variable: str, *, default: bool = False) -> bool:
        value = self.raw.get(variable, default)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        text = str(value).strip().lower()
        if text in TRUE or text in FALSE:
            return text in TRUE
        self.problem(
            variable,
            f"{show(value)} is neither true nor false.",
            f"set {variable}: true or false.",
            "inputs",
        )
        return False

    def _state_dir(self) -> None:
        value = self._text("hermes_state_dir", "state-dir") or ".hermes"
        if len(value.encode()) > PATH_BYTES or any(
            len(one.encode()) > 255 for one in value.split("/")
        ):
            self.problem(
                "hermes_state_dir",
                f"{show(value)} is longer than a path may be.",
                "set hermes_state_dir to a shorter one.",
                "state-dir",
            )
            return
        if not re.search(r"[\0-\x1f\x7f\"\\$]", value):
            self.settings.state_dir = value
            return
        self.problem(
            "hermes_state_dir",
            "has a character that no configuration can quote safely (quote, backslash, dollar or control character).",
            "set hermes_state_dir to a plain path.",
            "state-dir",
        )


def unknown_variables(names: Iterable[str]) -> list[Problem]:
    """Return a problem for each hermes_* or preflight_* variable that nothing reads; hermes__* is people's own."""
    problems = []
    known = {name.removeprefix("hermes_") for name in KNOWN_VARIABLES}
    of_the_role = {name.removeprefix("preflight_") for name in ROLE_VARIABLES}
    for name in sorted(names):
        prefix = next(
            (start for start in ("hermes_", "preflight_") if name.lower().startswith(start)), None
        )
        if (
            prefix is None
            or name.lower().startswith("hermes__")
            or name in KNOWN_VARIABLES | ROLE_VARIABLES
        ):
            continue
        candidates = known if prefix == "hermes_" else of_the_role
        close = difflib.get_close_matches(name.lower().removeprefix(prefix), candidates, 1)
        hint = f"unknown; did you mean {prefix}{close[0]}?" if close else "unknown."
        problems.append(
            Problem(
                name,
                hint,
                f"rename or remove {name}; names that begin with hermes__ are your own.",
                "unknown",
            )
        )
    return problems


def later_variables(raw: Mapping[str, Any]) -> list[Problem]:
    """Return a problem for each known variable that this release does not act upon."""
    return [
        Problem(name, "is not available in this release.", f"remove {name}.", "platform")
        for name in LATER_VARIABLES
        if raw.get(name) not in (None, "")
    ]


def collisions(deployments: Mapping[str, tuple[str, str, Iterable[int]]]) -> list[Problem]:
    """Return the problems between hosts of one inventory.

    deployments: host -> (state folder, name, ports).
    """
    names: dict[tuple[str, str], str] = {}
    ports: dict[int, str] = {}
    problems = []
    for host, (state_dir, name, numbers) in deployments.items():
        other = names.setdefault((state_dir, name), host)
        if other != host:
            problems.append(
                Problem(
                    "hermes_name",
                    f"{other} and {host} both are {name}.",
                    "give each host its own name.",
                    "name",
                )
            )
            continue
        for number in numbers:
            other = ports.setdefault(number, host)
            if other != host:
                problems.append(
                    Problem(
                        "hermes_port",
                        f"{other} and {host} both use port {number}.",
                        f"set another hermes_port for {host}"
                        f" (hermes_dashboard_port is {DASHBOARD_PORT_OFFSET} above,"
                        f" hermes_providers_port {PROVIDERS_PORT_OFFSET}).",
                        "port",
                    )
                )
    return problems


def secret_flaw(value: Any) -> str:
    """Return what is wrong with a secret, without showing it; an empty string when nothing is."""
    if not isinstance(value, str):
        return "is not text"
    if not value.strip():
        return "is blank"
    if "\n" in value or "\r" in value:
        return "has a line break"
    if value != value.strip():
        return "begins or ends with a space"
    if not value.isascii():
        return "has a character that is not ASCII"
    if not value.isprintable():
        return "has a control character"
    return ""


def key_flaw(value: Any) -> str:
    """Return what is wrong with a key or token, which is sent as part of a header; an empty string when nothing is."""
    flaw = secret_flaw(value)
    if flaw:
        return flaw
    if "..." in value:
        return "is a placeholder: the dots stand for your own"
    return "has a blank inside" if " " in value else ""


def unencrypted(where: str) -> str:
    """Return the sentence on an endpoint without TLS that is not in a private network."""
    return f"would send keys and conversations {where} unencrypted: http is for this machine and private networks only."


def url_flaw(url: Any, *, by_name: bool = False) -> str:
    """Return what is wrong with a base URL; an empty string when nothing is.

    by_name: whether a name will do without TLS, because somebody sees to it that it leads to a private network only.
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except (ValueError, TypeError, AttributeError):
        return "is not a URL."
    if (
        not isinstance(url, str)
        or parts.scheme not in ("http", "https")
        or not host
        or re.search(r"\s", url)
        or not url.isprintable()
    ):
        return "is not an http or https URL."
    if parts.username is not None or parts.password is not None:
        return "carries credentials (the value is not shown)."
    if parts.query or parts.fragment:
        return "has a query or a fragment."
    is_held = host in LOOPBACK or private_address(host) or (by_name and not is_address(host))
    if parts.scheme == "http" and not is_held:
        return unencrypted(f"to {host}")
    return ""


def duration(seconds: int) -> str:
    """Return seconds as text in the largest unit that fits."""
    for unit in ("h", "m"):
        if seconds and seconds % SECONDS[unit] == 0:
            return f"{seconds // SECONDS[unit]}{unit}"
    return f"{seconds}s"


def serial_flaw(value: Any) -> str:
    """Return what is wrong with the sizes of batches; an empty string when nothing is."""
    sizes = value if isinstance(value, list) and value else [value]
    good = all(not isinstance(size, bool) and SIZE.fullmatch(str(size).strip()) for size in sizes)
    return "" if good else "is no number of hosts, no percentage and no list of such."


def percentage_flaw(value: Any) -> str:
    """Return what is wrong with a limit of failures; an empty string when nothing is."""
    try:
        good = not isinstance(value, bool) and 0 <= float(value) <= 100
    except (TypeError, ValueError):
        good = False
    return "" if good else "is no number from 0 to 100."


BATCHES: dict[str, tuple[Any, Callable[[Any], str], Any]] = {
    "hermes_serial": ("100%", serial_flaw, 10),
    "hermes_max_fail_percentage": (100, percentage_flaw, 25),
}
"""How a play goes through its hosts: variable -> what is without a word, what is wrong with a value, and an example."""


def canonical(value: Any) -> str:
    """Return JSON that is the same for equal data."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def show(value: Any) -> str:
    """Return a value for an error's text: quoted, one line, shortened."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"

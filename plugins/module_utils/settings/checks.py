# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment is told to be: every input checked, all problems collected, no value of a secret ever shown."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from ..addresses import (
    LOOPBACK,
    OPAQUE_ORIGINS,
    is_address,
    local_name,
    origin,
    private_address,
    web_origin,
)
from ..cards import Problem
from ..docker import find_socket, socket_path
from .catalogue import (
    AI_GATEWAY,
    API_BASE_URL,
    BATCHES,
    CONTEXT_LENGTHS,
    DASHBOARD_PORT_OFFSET,
    DEFAULT_MODEL,
    DEFAULT_PORT,
    ENVIRONMENT,
    KEY_NAMES,
    KEY_VARIABLES,
    KNOWN_VARIABLES,
    NAME_LENGTH,
    OF_ONE_PLAY,
    PATH_BYTES,
    PORT_VARIABLES,
    PROVIDERS,
    PROVIDERS_PORT_OFFSET,
    REGISTRY,
    REHEARSAL_MODEL,
    RESERVED_NAMES,
    ROLE_VARIABLES,
    SECRET_INPUTS,
    SECRET_VARIABLES,
    SETTINGS,
    SIDECAR_IMAGE,
    SUGGESTED_MODELS,
    VALUE_BYTES,
)
from .channels import read_channels
from .kinds import Judged
from .settings import Settings
from .values import (
    ACCOUNT_ID,
    ADVISORY,
    AUDIENCE,
    BROWSER,
    EGRESS_HOST,
    ENV_NAME,
    GATEWAY,
    MODEL,
    NAME,
    RESERVED_ENV,
    SHOWN_NAME,
    SOURCES,
    TEAM_DOMAIN,
    VERSION,
    Reader,
    canonical,
    key_flaw,
    packages_flaw,
    secret_flaw,
    show,
    unencrypted,
    url_flaw,
)

KNOWN_BY = {
    "telegram": ("bot", "token", True),
    "slack": ("app", "token", True),
    "discord": ("bot", "token", True),
    "whatsapp_cloud": ("app", "token", False),
    "sms": ("account", "authTokens", False),
    "email": ("address", "address", False),
}
"""Of a channel: as what Hermes' own would be the same one, by which part of it, and whether that takes libraries."""
NOT_WITH_AN_IMAGE = (
    "hermes_features",
    "hermes_packages",
    "hermes_lazy_installs",
    "hermes_browser_url",
    "hermes_base_image",
)
"""What stands on packages of ours, or says what they are laid upon."""


class Checker(Reader):
    """Reads raw inputs into Settings and secrets."""

    def __init__(self, raw: Mapping[str, Any], *, sources: Mapping[str, str] | None = None) -> None:
        """raw: values by inventory variable, of those that are set; sources: where each was set, for people."""
        super().__init__(raw)
        self.sources = dict(sources or {})
        self.settings = Settings()
        self.secrets: dict[str, str] = {}
        self.cloudflare_token = ""

    def check(self) -> Checker:
        """Check everything; returns self."""
        self._each_by_itself()
        self._name()
        self._ports()
        self.read_secrets()
        self._browser()
        self._models()
        self._base_url()
        self.settings.public_url = self._address("hermes_public_url", "https://hermes.example.com")
        if self.settings.public_url.startswith("http:"):
            self.problem(
                "hermes_public_url",
                "is without TLS, and platforms send messages to https addresses only.",
                "set hermes_public_url to an address like https://hermes.example.com.",
                "channels",
            )
        self.settings.telegram_api_url = self._address(
            "hermes_telegram_api_url", "http://127.0.0.1:8081"
        )
        self._context_length()
        self._release()
        self._ai_gateway()
        self._egress()
        self._token_store()
        self._origins()
        self._access()
        self._open_to_every_page()
        self.settings.env = self._environment()
        self._lazy_installs()
        self._heard_twice()
        self._docker()
        self._cloudflare()
        self._state_dir()
        self._batches()
        return self

    def _heard_twice(self) -> None:
        """Note a bot that Hermes listens as by itself, too: a platform hands each message to one of the two."""
        settings = self.settings
        listens = "messaging" in settings.features or settings.lazy_installs
        has_libraries = listens or "image" in settings.source
        channels = json.loads(self.secrets.get("HERMES_CHANNELS", "{}"))
        secrets = json.loads(self.secrets.get("HERMES_SECRETS", "{}"))
        given = [("hermes_env", settings.env), ("hermes_secrets", secrets)]
        for name, (what, part, by_library) in KNOWN_BY.items():
            if name not in channels or (by_library and not has_libraries):
                continue
            found = channels[name][part]
            its = found if isinstance(found, list) else [found]
            self.problems += [
                Problem(
                    f"{variable}.{each}",
                    f"is the {what} of hermes_channels.{name}, of which Hermes would take the messages by itself.",
                    "leave it out: the channel needs nothing in there.",
                    "channels",
                )
                for variable, values in given
                for each, value in values.items()
                if (str(value).lower() if name == "email" else value) in its
            ]

    def check_place(self) -> None:
        """Check only what finds an existing deployment: its name, its state folder, and what its plays are told."""
        self._name()
        self._state_dir()
        self._batches()
        # Ansible would hand a list or a mapping on as the text that Python has for it.
        for variable in OF_ONE_PLAY:
            self.text(variable, "inputs")

    def _batches(self) -> None:
        """Check what the play itself could not use, and went on without."""
        for variable, (_default, flaw_of, example) in BATCHES.items():
            value = self.given(variable)
            flaw = "" if value is None else flaw_of(value)
            if flaw:
                self.problem(
                    variable,
                    f"{show(value)} {flaw}",
                    f"say for example -e {variable}={example}.",
                    "batches",
                )

    def _each_by_itself(self) -> None:
        """Read what depends on no other setting."""
        for setting in SETTINGS:
            if isinstance(setting.kind, Judged):
                value = setting.kind.read(self, setting.variable)
                setattr(self.settings, setting.field, value)
        if self.settings.platform == "cloudflare":
            self.settings.engine = "cloudflare"
        # Without its packages no server of tools could ever be connected.
        if self.raw.get("hermes_mcp_servers") and "mcp" not in self.settings.features:
            self.settings.features = sorted([*self.settings.features, "mcp"])
            self.sources.setdefault("hermes_features", "hermes_mcp_servers")

    def _browser(self) -> None:
        """Read which browser Hermes opens pages in; what speaks to it comes along, and is of no use alone."""
        settings, given = self.settings, self.raw.get("hermes_browser_url")
        named = given not in (None, "")
        if "chromium" in settings.features:
            self._chromium(named=named)
        elif not named:
            if "browser" in settings.features:
                self.problem(
                    "hermes_features",
                    "browser opens pages in a browser, and none is named.",
                    "set hermes_browser_url, take the feature chromium for one in the image, or take browser out.",
                    "browser",
                )
            return
        # The address itself may be a secret.
        elif "BROWSER_URL" in self.secrets and not BROWSER.fullmatch(self.secrets["BROWSER_URL"]):
            self.problem(
                "hermes_browser_url",
                "is no address of a browser.",
                "write it as its DevTools say: http://host:9222, or ws:// or wss:// with all that follows.",
                "browser",
            )
        elif settings.engine == "process" and not settings.host_tools:
            self.problem(
                "hermes_browser_url",
                "needs hermes_host_tools on the process engine: a browser beside it reads this machine's files.",
                "set hermes_host_tools: true, run Hermes in a container, or leave hermes_browser_url out.",
                "browser",
            )
        if "browser" not in settings.features:
            settings.features = sorted([*settings.features, "browser"])
            self.sources.setdefault("hermes_features", "hermes_browser_url")

    def _chromium(self, *, named: bool) -> None:
        """Refuse a browser of the image where no image is, or beside another. named: by hermes_browser_url."""
        if named:
            self.problem(
                "hermes_browser_url",
                "names a browser elsewhere, and the feature chromium is one in the image.",
                "leave hermes_browser_url out, or take chromium out of hermes_features.",
                "browser",
            )
        if self.settings.engine == "process":
            self.problem(
                "hermes_features",
                "chromium is a browser in an image, and the process engine has no image.",
                "set hermes_engine: docker, or name a browser in hermes_browser_url.",
                "browser",
            )

    def _lazy_installs(self) -> None:
        """See that what Hermes asks for later can be had; neither the setting nor the feature is of use alone."""
        settings = self.settings
        if not settings.lazy_installs:
            if "installs" in settings.features:
                self.problem(
                    "hermes_features",
                    "installs is what fetches packages later, and Hermes may not.",
                    "set hermes_lazy_installs: true, or take installs out.",
                    "lazy-installs",
                )
            return
        if "installs" not in settings.features:
            settings.features = sorted([*settings.features, "installs"])
            self.sources.setdefault("hermes_features", "hermes_lazy_installs")
        host = urlsplit(settings.env.get(REGISTRY, "")).hostname or ""
        if settings.egress != "open" and not any(
            host == one or (one.startswith(".") and host.endswith(one))
            for one in settings.egress.split(",")
        ):
            self.problem(
                "hermes_lazy_installs",
                "needs a registry, and hermes_egress names none that Hermes could reach.",
                f"name one as {REGISTRY} in hermes_env, and its host, with that of its files, in hermes_egress.",
                "lazy-installs",
            )

    def _cloudflare(self) -> None:
        """Read what only matters on Cloudflare."""
        settings = self.settings
        settings.dashboard_hostname = self.hostname("hermes_dashboard_hostname")
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
            self.cloudflare_token = str(token)

    def _api_base_url(self) -> None:
        """Read where Cloudflare's API is; the token is sent there."""
        url = self.text("cloudflare_api_base_url", "cloudflare-api")
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

    def _docker(self) -> None:
        """Read what only matters where Hermes runs in a container."""
        settings = self.settings
        settings.base_image = self.image("hermes_base_image", "")
        settings.sidecar_image = self.image("hermes_sidecar_image", SIDECAR_IMAGE)
        if settings.engine == "process":
            return
        if settings.engine == "docker":
            self._own_way_out()
        value = self.text("hermes_docker_socket", "docker")
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
        value = self.text("hermes_ai_gateway", "ai-gateway").rstrip("/")
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
        value = self.given("hermes_egress")
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
            else self.texts(
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

    def _release(self) -> None:
        """Read which Hermes is wanted, and what is known of it and accepted."""
        settings = self.settings
        version = self.text("hermes_version", "hermes-version")
        if version and not VERSION.fullmatch(version):
            self.problem(
                "hermes_version",
                f"{show(version)} is no version.",
                "write it as its registry does, for example 0.18.2, or leave it out for the pinned one.",
                "hermes-version",
            )
        else:
            settings.version = version
        self._source()
        self._packages()
        if "image" in settings.source:
            self._beside_an_image()
        settings.accept_advisories = self.texts(
            "hermes_accept_advisories", ADVISORY.fullmatch, "the id of an advisory"
        )

    def _source(self) -> None:
        """Read where a Hermes comes from that is in no registry."""
        given = self.raw.get("hermes_source")
        if given in (None, "", {}):
            return
        told = given if isinstance(given, Mapping) else {}
        shape = next((one for one in SOURCES if set(told) == set(one)), None)
        flaws = [
            name
            for name, looks in (shape or {}).items()
            if not looks.fullmatch(str(told[name]).strip())
        ]
        if flaws == ["image"]:
            self.problem(
                "hermes_source",
                f"image: {show(told['image'])} names no image by its digest, and a tag may be another one tomorrow.",
                "write {image: registry/name@sha256:64 digits}; a pull prints the digest of what a tag is today.",
                "hermes-source",
            )
            return
        if shape is None or flaws:
            what = f"{flaws[0]}: {show(told[flaws[0]])}" if flaws else show(given)
            self.problem(
                "hermes_source",
                f"{what} names no source of Hermes.",
                "write {file: a .whl, .tar.gz or .zip, sha256: 64 digits}, {git: https://..., commit: 40 digits}"
                " with the ref that it is at, or {image: registry/name@sha256:64 digits}.",
                "hermes-source",
            )
            return
        self.settings.source = {name: str(told[name]).strip() for name in sorted(told)}
        if "image" in told:
            # Beside a digest a tag says nothing, and not every engine takes both.
            name, _at, digest = self.settings.source["image"].partition("@")
            self.settings.source["image"] = f"{re.sub(r':[^/]*$', '', name)}@{digest}"

    def _beside_an_image(self) -> None:
        """Refuse what cannot be had with an image of upstream's: it is taken as it is, for containers only."""
        settings = self.settings
        if settings.engine == "process":
            self.problem(
                "hermes_source",
                "names an image, and the process engine runs Hermes as processes of this machine.",
                "set hermes_engine: docker, or name a file or a commit.",
                "hermes-source",
            )
        judged = {
            "hermes_packages": settings.packages,
            "hermes_lazy_installs": settings.lazy_installs,
        }
        for variable in NOT_WITH_AN_IMAGE:
            if judged.get(variable, self.raw.get(variable)) not in (None, "", False, [], {}):
                self.problem(
                    variable,
                    "cannot be had with the image of hermes_source: that is taken with what it has, and nothing is"
                    " installed into it.",
                    f"leave {variable} out, or name a file, a commit or hermes_version instead of an image.",
                    "hermes-source",
                )
        # Those that another setting asked for are upstream's own there.
        settings.features = []

    def _packages(self) -> None:
        """Read what is to be there beside Hermes; each has to be pinned."""
        found: dict[str, list[str]] = {}
        for where, given in self.mapping("hermes_packages").items():
            flaw = packages_flaw(where, given)
            if flaw:
                self.problem("hermes_packages", *flaw, "packages")
            elif given:
                found[where] = sorted(given)
        self.settings.packages = dict(sorted(found.items()))

    def _access(self) -> None:
        """Read Cloudflare Access; it takes a team and at least one audience."""
        settings = self.settings
        settings.access_audiences = self.texts(
            "hermes_access_audiences", AUDIENCE.fullmatch, "the audience tag of an application"
        )
        domain = self.text("hermes_access_team_domain", "access").lower()
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
        settings.token_vault_file = self.text("hermes_token_vault_file", "token-store")
        command = self.given("hermes_token_command")
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
        settings.cors_origins = self.texts(
            "hermes_cors_origins", origin, "an origin like https://app.example.com"
        )
        value = self.text("hermes_dashboard_origin", "inputs").strip()
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
            self.text("hermes_name", "name")
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
        self.settings.port = self.port("hermes_port", DEFAULT_PORT)
        self.settings.providers_port = self.port(
            "hermes_providers_port", self._beside(PROVIDERS_PORT_OFFSET)
        )
        self.settings.dashboard_port = self.port(
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
        self._secret("hermes_browser_url", "BROWSER_URL")
        self._secret("hermes_gateway_token", "GATEWAY_TOKEN")
        # What Hermes is given is made of it: a short one could be found out from there, by trying.
        if 0 < len(self.secrets.get("GATEWAY_TOKEN", "")) < 32:
            self.problem(
                "hermes_gateway_token",
                "is shorter than 32 characters.",
                "leave it out and a random key is taken at each start, or set a longer one.",
                "gateway-token",
            )
        self._further_secrets()
        read = read_channels(self, on_cloudflare=self.settings.platform == "cloudflare")
        self.settings.bots, self.settings.channel_apis = read.bots, read.apis
        self.settings.mail_address, self.settings.mail_people = read.mail
        if read.worker:
            self.secrets["HERMES_CHANNELS"] = canonical(read.worker)

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
        for name, value in sorted(self.mapping("hermes_secrets").items()):
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
        for name, value in sorted(self.mapping("hermes_env").items()):
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
        provider = self.given("hermes_provider")
        if provider not in (None, "rehearsal"):
            self.problem(
                "hermes_provider",
                f"{show(provider)} is not rehearsal, its only value.",
                "name the provider in hermes_default_model, as provider/model.",
                "model",
            )
        further = self._further_models()
        chosen = self.given("hermes_default_model")
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
        models = self.entries("hermes_models", "provider/model each", "model")
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
        url = self.text("hermes_provider_base_url", "provider-url")
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

    def _address(self, variable: str, example: str) -> str:
        """Read a base URL, or an empty text."""
        url = self.text(variable, "channels").rstrip("/")
        flaw = url_flaw(url) if url else ""
        if flaw:
            self.problem(
                variable, flaw, f"set {variable} to an address like {example}.", "channels"
            )
        return "" if flaw else url

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

    def _state_dir(self) -> None:
        value = self.text("hermes_state_dir", "state-dir") or ".hermes"
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


MOST_NAMES = 5
"""So many hosts are named in one line."""


def collisions(deployments: Mapping[str, tuple[str, str, Iterable[int]]]) -> list[Problem]:
    """Return the problems between hosts of one inventory.

    deployments: host -> (state folder, name, ports).
    """
    names: dict[tuple[str, str], str] = {}
    ports: dict[int, str] = {}
    clashes: dict[tuple[str, int], list[str]] = {}
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
        clash = None
        for number in numbers:
            other = ports.setdefault(number, host)
            if other != host and clash is None:
                clash = other, number  # the ports that follow it clash too, and say nothing new
        if clash:
            clashes.setdefault(clash, []).append(host)
    for (other, number), more in clashes.items():
        hosts = [other, *more]
        named = hosts if len(hosts) <= MOST_NAMES else [*hosts[:3], f"{len(hosts) - 3} more"]
        problems.append(
            Problem(
                "hermes_port",
                f"{', '.join(named[:-1])} and {named[-1]} {'all' if more[1:] else 'both'} use port {number}.",
                f"set another hermes_port for {'each of them' if more[1:] else more[0]}"
                f" (hermes_dashboard_port is {DASHBOARD_PORT_OFFSET} above,"
                f" hermes_providers_port {PROVIDERS_PORT_OFFSET}).",
                "port",
            )
        )
    return problems

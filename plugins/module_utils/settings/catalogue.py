# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings there are: one row each, from which tools/generate.py makes what else is said of them.

Made of it: the fields of the settings, the role's arguments, the table of docs/variables.md, and how the Worker reads
what it is told. So a new setting is a row here and whoever reads it; `checks.py` ties two settings together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from .features import DEFAULT_FEATURES, FEATURE_NAMES
from .kinds import (
    Choice,
    Declared,
    Duration,
    Flag,
    Kind,
    Lists,
    Names,
    Number,
    OfOnePlay,
    Port,
    Secret,
    Some,
    Text,
    Texts,
)
from .values import percentage_flaw, serial_flaw

DEFAULT_MODEL = "anthropic/claude-sonnet-4-5"
REHEARSAL_MODEL = "rehearsal/rehearsal"
DEFAULT_PORT = 8787
PROVIDERS_PORT_OFFSET = 10000
DASHBOARD_PORT_OFFSET = 1000
REGISTRY = "UV_DEFAULT_INDEX"
"""The variable of Hermes' environment that names another registry for what it asks for later."""
SIDECAR_IMAGE = "cloudflare/proxy-everything"
"""What workerd puts in front of a container's network, unless hermes_sidecar_image names another."""
API_BASE_URL = "https://api.cloudflare.com/client/v4"
PATH_BYTES = 1024
"""What every system takes; a component has its own limit of 255."""
CONTEXT_LENGTHS = (64_000, 10_000_000)
"""Tokens of a model's context; with fewer Hermes does not start a turn."""
NAME_LENGTH = 54
"""A Worker's name may have 63 characters; 54 leave room for the suffixes that preview addresses add."""


class Provider(NamedTuple):
    """A provider whose key people have; what the Worker knows of it is in worker/src/config/providers.ts."""

    model: str
    """One of its models, for who named none."""
    base: str
    """Its own base URL; empty when only the inventory knows it."""
    listing: str
    """What it answers only to whoever has a valid key."""


PROVIDER_ROWS = {
    "anthropic": Provider(DEFAULT_MODEL, "https://api.anthropic.com", "/v1/models?limit=1"),
    "openrouter": Provider(
        "openrouter/anthropic/claude-sonnet-4.5", "https://openrouter.ai/api/v1", "/key"
    ),
    "openai": Provider("openai/gpt-5-mini", "https://api.openai.com/v1", "/models"),
    "custom": Provider("custom/my-model", "", "/models"),
}
SUGGESTED_MODELS = {provider: row.model for provider, row in PROVIDER_ROWS.items()}
KEY_VARIABLES = {provider: f"{provider}_api_key" for provider in PROVIDER_ROWS}
PROVIDERS = (*KEY_VARIABLES, "rehearsal")
KEY_NAMES = {variable: variable.upper() for variable in KEY_VARIABLES.values()}
"""Inventory variable of a provider's key -> name of the Worker's secret and of the environment variable."""


@dataclass(frozen=True)
class Setting:
    """One inventory variable."""

    variable: str
    kind: Kind
    text: str
    """What it does, for the documentation: Markdown."""
    where: str = ""
    """Where alone it means something: cloudflare, workerd, containers, docker, process; everywhere."""
    worker: str = ""
    """Name of the Worker's variable that carries it, where one does."""
    restarts: str = ""
    """What a change restarts besides the Worker: hermes, sandbox; nothing. `content` is laid beside Hermes."""
    environment: str = ""
    """The environment variable that is asked where the inventory does not mention it."""
    default: str | None = None
    """What is so without a word, for the documentation, where the kind does not say it."""

    @property
    def field(self) -> str:
        """Name of the field of Settings that holds it; empty when none does."""
        if (
            isinstance(self.kind, (Secret, OfOnePlay, Declared))
            or self.variable == "hermes_provider"
        ):
            return ""
        return self.variable.removeprefix("hermes_").removeprefix("cloudflare_")

    @property
    def shown_default(self) -> str:
        """What is so without a word, as the documentation shows it."""
        if self.default is not None:
            return self.default
        if self.environment:
            return f"`{self.environment}`"
        return self.kind.shown_default


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "hermes_name",
        Text(),
        "name of the Worker and of its state folder: lower-case letters, digits and dashes, at most 54 characters",
        default="the host's name",
    ),
    Setting(
        "hermes_platform",
        Choice(("cloudflare", "workerd")),
        "where it runs: Cloudflare, or `workerd`, this machine",
        default="`cloudflare`; `workerd` in `inventories/local`",
    ),
    Setting(
        "hermes_account_id",
        Text(),
        "the Cloudflare account: 32 hexadecimal digits",
        where="cloudflare",
        environment="CLOUDFLARE_ACCOUNT_ID",
    ),
    Setting(
        "cloudflare_api_token",
        Secret(),
        "API token for it, see [its permissions](cloudflare.md); never reaches the Worker",
        where="cloudflare",
        environment="CLOUDFLARE_API_TOKEN",
    ),
    Setting(
        "cloudflare_api_base_url",
        Text(API_BASE_URL),
        "address of the API",
        default="`CLOUDFLARE_API_BASE_URL`, else Cloudflare's",
        where="cloudflare",
        environment="CLOUDFLARE_API_BASE_URL",
    ),
    Setting(
        "hermes_instance_type",
        Choice(("standard-1", "lite", "basic", "standard-2", "standard-3", "standard-4")),
        "size of the container on Cloudflare: `lite`, `basic`, `standard-1` to `standard-4`; in `lite` Hermes has"
        " hardly room, and `basic` [may not be started](cloudflare-differences.md#the-smallest-container)",
        where="cloudflare",
        worker="HERMES_INSTANCE_TYPE",
        restarts="sandbox",
    ),
    Setting(
        "hermes_location",
        Choice(
            (
                *("", "wnam", "enam", "sam", "weur", "eeur"),
                *("apac", "apac-ne", "apac-se", "oc", "afr", "me"),
            )
        ),
        "near where on Cloudflare the deployment's object, and with it Hermes, is made: `wnam`, `enam` (North America,"
        " west and east), `sam` (South America), `weur`, `eeur` (Europe), `apac`, `apac-ne`, `apac-se` (Asia and the"
        " Pacific), `oc` (Oceania), `afr` (Africa), `me` (Middle East). It counts when the deployment is made, and"
        " [never again](cloudflare-differences.md#where-it-runs)",
        default="near the first request",
        where="cloudflare",
        worker="HERMES_LOCATION",
    ),
    Setting(
        "hermes_dashboard_hostname",
        Text(read_as="hostname"),
        "hostname in a zone of the account, for Hermes' dashboard",
        worker="HERMES_DASHBOARD_HOSTNAME",
    ),
    Setting(
        "hermes_route_mode",
        Choice(("custom_domain", "zone_route")),
        "how the hostname leads to the Worker; `zone_route` makes a route and a proxied DNS record",
        where="cloudflare",
    ),
    Setting(
        "hermes_take_over_hostname",
        Flag(),
        "take the hostname from another Worker, and replace a DNS record of that name",
        where="cloudflare",
    ),
    Setting(
        "hermes_uploader",
        Choice(("auto", "wrangler", "plain")),
        "what uploads a Worker: `wrangler`, or `plain` calls, which leave the same at Cloudflare; `auto` takes plain"
        " calls in a play of more than ten deployments: fifty new ones then take [a fifth of the time](benchmarks.md)"
        " of the manual steps",
        where="cloudflare",
    ),
    Setting(
        "hermes_prune_images",
        Flag(),
        "after a proof, delete images from the registry that no Worker names and no rollback needs",
        where="cloudflare",
    ),
    Setting(
        "hermes_check_provider_key",
        Flag(),
        "ask the provider of the default model whether it takes the key, before anything is changed; costs nothing",
    ),
    Setting(
        "hermes_engine",
        Choice(("process", "docker")),
        "what runs Hermes there: `process`, or `docker`, a container of Docker or Podman",
        where="workerd",
    ),
    Setting(
        "hermes_docker_socket",
        Text(),
        "socket of the container engine; on this machine",
        default="`DOCKER_HOST`, else `unix:/var/run/docker.sock`, else Podman's",
        where="containers",
        environment="DOCKER_HOST",
    ),
    Setting(
        "hermes_base_image",
        Text(),
        "what the image of Hermes is built upon; needs glibc, Python 3.11 to 3.13, a shell, coreutils, findutils and CA"
        " certificates. Name it by digest: a tag is not looked up again",
        default="a slim Python on Debian 12, by digest",
        where="containers",
        restarts="sandbox",
    ),
    Setting(
        "hermes_sidecar_image",
        Text(SIDECAR_IMAGE),
        "network sidecar that workerd puts beside the container",
        where="docker",
    ),
    Setting(
        "hermes_port",
        Port(DEFAULT_PORT),
        "port of the Worker on 127.0.0.1",
        where="workerd",
    ),
    Setting(
        "hermes_providers_port",
        Port(DEFAULT_PORT + PROVIDERS_PORT_OFFSET),
        "where Hermes reaches its providers, on 127.0.0.1",
        default="`hermes_port` + 10000",
        where="workerd",
        restarts="hermes",
    ),
    Setting(
        "hermes_dashboard",
        Flag(usual=True),
        "serve Hermes' dashboard; `false` closes its port",
    ),
    Setting(
        "hermes_dashboard_port",
        Port(DEFAULT_PORT + DASHBOARD_PORT_OFFSET),
        "port of Hermes' dashboard on 127.0.0.1",
        default="`hermes_port` + 1000",
        where="workerd",
    ),
    Setting(
        "hermes_state_dir",
        Text(".hermes"),
        "folder of the state folders, from where the play was started",
    ),
    Setting(
        "hermes_default_model",
        Text(REHEARSAL_MODEL, read_as="model"),
        "`provider/model`; decides Hermes' provider",
        default="`anthropic/claude-sonnet-4-5`; without any key `rehearsal/rehearsal`",
        worker="HERMES_DEFAULT_MODEL",
        restarts="hermes",
    ),
    Setting(
        "hermes_features",
        Some(FEATURE_NAMES, DEFAULT_FEATURES),
        "what Hermes can do besides: some of "
        + ", ".join(f"`{name}`" for name in FEATURE_NAMES)
        + " ([more](features.md))",
        restarts="sandbox",
    ),
    Setting(
        "hermes_packages",
        Lists(),
        "further packages beside Hermes, pinned: `{python: [pandas==2.2.3], debian: [jq=1.6-2.1+deb12u3]}`"
        " ([more](features.md#further-packages))",
        restarts="sandbox",
    ),
    Setting(
        "hermes_lazy_installs",
        Flag(),
        "let Hermes fetch packages that it asks for later, of a list of its own"
        " ([more](features.md#what-hermes-asks-for-later))",
        worker="HERMES_LAZY_INSTALLS",
        restarts="hermes",
    ),
    Setting(
        "hermes_version",
        Text(),
        "another Hermes of the registry than this release pins, as `0.18.2`; resolved and hashed when it is first asked"
        " for ([more](hermes.md))",
        default="the pinned one",
        restarts="sandbox",
    ),
    Setting(
        "hermes_source",
        Names(),
        "a Hermes that is in no registry: `{file: a wheel or an archive of sources, sha256: ...}`,"
        " `{git: address, commit: ..., ref: v0.20.1}` ([more](hermes.md#a-hermes-that-is-in-no-registry)), or"
        " `{image: name@sha256:...}` ([more](hermes.md#upstreams-image))",
        restarts="sandbox",
    ),
    Setting(
        "hermes_browser_url",
        Secret("BROWSER_URL"),
        "the browser in which Hermes opens pages: an address of the Chrome DevTools Protocol, `http://...:9222` or"
        " `wss://...`, with its key where it has one ([more](features.md#a-browser))",
        default="none",
    ),
    Setting(
        "hermes_accept_advisories",
        Texts(),
        "[known advisories](hermes.md#known-advisories) of that Hermes with which it is deployed all the same, by their"
        " ids",
    ),
    Setting(
        "hermes_models",
        Texts("model", as_json=True),
        "further models that a request may name in `model`; the answer's `X-Hermes-Model` says which one spoke",
        worker="HERMES_MODELS",
        restarts="hermes",
    ),
    Setting(
        "hermes_provider",
        Text(),
        "`rehearsal` makes the rehearsal model answer although keys are set",
    ),
    Setting(
        "hermes_provider_base_url",
        Text(read_as="httpUrl"),
        "any compatible endpoint, in place of the default model's provider; on `workerd` also on this machine, in the"
        " local network or in Tailscale's, by address or name. `http://` is for these only: a name is held to private"
        " addresses, and one that leads elsewhere is refused. Cloudflare reaches public names with `https://`",
        default="the provider's own",
        worker="HERMES_PROVIDER_BASE_URL",
        restarts="hermes",
    ),
    Setting(
        "hermes_context_length",
        Number(*CONTEXT_LENGTHS),
        "how many tokens of context the models behind `hermes_provider_base_url` have, as their server was started"
        " (Ollama: `OLLAMA_CONTEXT_LENGTH`). Hermes works with no fewer than 64000",
        default="200000 for `custom/` models",
        worker="HERMES_CONTEXT_LENGTH",
        restarts="hermes",
    ),
    *(
        Setting(
            variable,
            Secret(KEY_NAMES[variable]),
            "the provider's key; held by the Worker only",
            environment=KEY_NAMES[variable],
        )
        for variable in KEY_VARIABLES.values()
    ),
    Setting(
        "hermes_provider_keys",
        Choice(("sealed", "environment")),
        "`environment` gives Hermes the keys themselves, in memory, at each start: its tools can then read them",
        worker="HERMES_PROVIDER_KEYS",
        restarts="hermes",
    ),
    Setting(
        "hermes_ai_gateway",
        Text(read_as="httpUrl"),
        "Cloudflare's AI Gateway before the providers: `account-id/gateway-name`",
        worker="HERMES_AI_GATEWAY",
    ),
    Setting(
        "hermes_ai_gateway_token",
        Secret("AI_GATEWAY_TOKEN"),
        "for a gateway that asks for one; it may hold the providers' keys itself",
    ),
    Setting(
        "hermes_egress",
        Text("open", read_as="egress"),
        "what a container may reach besides the providers: nothing with `providers`, or a list of hosts"
        " (`.example.com`: everything below it). An empty list or `no` opens nothing: it is refused. Refused calls are"
        " logged with the host. A process cannot be held to it; with Docker it"
        " [holds TCP](docker-engine.md#what-the-sidecar-leaves-open)",
        worker="HERMES_EGRESS",
        restarts="sandbox",
    ),
    Setting(
        "hermes_api_token",
        Secret("API_TOKEN"),
        "what clients send as bearer token",
        default="generated once, kept in `<state>/<name>/api_token` (0600)",
    ),
    Setting(
        "hermes_gateway_token",
        Secret("GATEWAY_TOKEN"),
        "what the key between Worker and Hermes is made of, at least 32 characters; each start of Hermes makes another"
        " one of it, and no sandbox has the token itself ([more](rotation.md#a-key-that-you-can-tell))",
        default="a random key for each start",
    ),
    Setting(
        "hermes_allow_unauthenticated",
        Flag(),
        "go without a token: whoever reaches the port is in",
        worker="HERMES_ALLOW_UNAUTHENTICATED",
    ),
    Setting(
        "hermes_sleep_after",
        Duration(60, 6 * 3600, 4 * 3600),
        "idle time before Hermes is saved and stopped, at most 6h",
        worker="HERMES_SLEEP_AFTER",
    ),
    Setting(
        "hermes_drain_timeout",
        Duration(0, 600, 60),
        "how long a restart waits for requests under way",
        worker="HERMES_DRAIN_TIMEOUT",
        restarts="hermes",
    ),
    Setting(
        "hermes_token_overlap",
        Duration(0, 24 * 3600, 600),
        "how long a replaced API token is still taken after the first use of the new one, at most 24h; then it is"
        " refused for ever",
        worker="HERMES_TOKEN_OVERLAP",
    ),
    Setting(
        "hermes_token_vault_file",
        Text(),
        "where a [rotation](rotation.md) writes the API token that the inventory gives: a file of Ansible Vault's",
    ),
    Setting(
        "hermes_token_command",
        Texts(),
        "the same, by a command (a list) that takes the token on its standard input",
    ),
    Setting(
        "hermes_cors_origins",
        Texts("origin"),
        "pages that may call the API, by the origin that browsers and desktop programs send for them:"
        " `https://app.example.com`, `http://[::1]:3000`, `app://obsidian.md`, `tauri://localhost`,"
        " `chrome-extension://...`. `null` and `file://` stand for pages without an origin, which any site can make:"
        " not without a token",
        worker="HERMES_CORS_ORIGINS",
    ),
    Setting(
        "hermes_access_team_domain",
        Text(read_as="hostname"),
        "Cloudflare Access before the dashboard, in place of the sign-in page: the team's domain",
        worker="HERMES_ACCESS_TEAM_DOMAIN",
    ),
    Setting(
        "hermes_access_audiences",
        Texts("audience"),
        "the audience tags of its applications, as a list",
        worker="HERMES_ACCESS_AUDIENCES",
    ),
    Setting(
        "hermes_dashboard_origin",
        Text(read_as="ownOrigin"),
        "where people see the dashboard on `workerd` when [a proxy before it](reverse-proxy.md) does not pass the"
        " `Host` on: `https://hermes.example.com`",
        where="workerd",
        worker="HERMES_DASHBOARD_ORIGIN",
    ),
    Setting(
        "hermes_dashboard_idle",
        Duration(0, 24 * 3600, 3600),
        "how long what Hermes sends to an open dashboard keeps it awake, after the last sign of a person there",
        worker="HERMES_DASHBOARD_IDLE",
    ),
    Setting(
        "hermes_on_disconnect",
        Choice(("stop", "finish")),
        "what becomes of a turn whose client leaves: `stop` interrupts Hermes, `finish` lets it come to its end, which"
        " the session then holds ([more](gate.md#clients-that-leave))",
        worker="HERMES_ON_DISCONNECT",
    ),
    Setting(
        "hermes_after_reboot",
        Choice(("stay_down", "start", "start_with_keys")),
        "what becomes of the processes on this machine [after a reboot](lifecycle.md#after-a-reboot): `start` starts"
        " them again by systemd or launchd, without the keys of providers; `start_with_keys` keeps these in a file",
        where="workerd",
    ),
    Setting(
        "hermes_host_tools",
        Flag(),
        "give Hermes tools that touch this machine where nothing confines it",
        where="process",
        worker="HERMES_HOST_TOOLS",
        restarts="hermes",
    ),
    Setting(
        "hermes_env",
        Names(),
        "further settings in Hermes' environment",
        worker="HERMES_ENV",
        restarts="hermes",
    ),
    Setting(
        "hermes_secrets",
        Secret("HERMES_SECRETS"),
        "the same for secrets, e.g. messaging tokens; never in a file. A name stands in one of the two only",
        default="`{}`",
        restarts="hermes",
    ),
    Setting(
        "hermes_config",
        Declared(),
        "Hermes' own settings, as its `config.yaml` has them: `{pinned: {...}}`, which the agent cannot change, and"
        " `{initial: {...}}`, which it may ([more](agent.md))",
        restarts="hermes",
    ),
    Setting(
        "hermes_mcp_servers",
        Declared(),
        "servers of tools by their name: `{command: ..., args: [...], env: {...}}`, or `{url: ..., headers: {...}}`;"
        " secrets as `${NAME}` of `hermes_secrets`. They bring the feature `mcp` along",
        restarts="hermes",
    ),
    Setting(
        "hermes_soul",
        Declared(""),
        "who the agent is (`SOUL.md`): a text of several lines, or the path of a file, which may be a template (`.j2`)",
        restarts="content",
    ),
    Setting(
        "hermes_skills",
        Declared("[]"),
        "what it can: folders or archives with a `SKILL.md`, as a list of paths or as `NAME: path`",
        restarts="content",
    ),
    Setting(
        "hermes_cron_jobs",
        Declared(),
        "what it does by itself, by name: `{schedule: '0 7 * * *', prompt: ...}`",
        restarts="content",
    ),
    Setting(
        "hermes_memories",
        Declared(),
        "what it begins with in its memory: `{memory: ..., user: ...}`, each a text or the path of one; laid only"
        " where it has none yet",
        restarts="content",
    ),
    Setting(
        "hermes_take_over",
        Declared("[]"),
        "what is laid over what the agent or its owner made of it: `soul`, `skills/NAME`, `jobs/NAME`,"
        " `config/DOTTED.KEY`, or a whole kind",
        restarts="content",
    ),
    Setting(
        "hermes_channels",
        Secret("HERMES_CHANNELS"),
        "[by what people write to Hermes](channels.md) besides its API: `telegram: {token: ..., allow: [...]}`,"
        " `slack:`, `whatsapp_cloud:`, `sms:`, `discord:`, `email:`, and"
        " [webhooks](channels.md#webhooks): `hooks: {NAME: {kind: ..., secret: ...}}`. Their secrets are held by the"
        " Worker only",
        default="`{}`",
        restarts="hermes",
    ),
    Setting(
        "hermes_public_url",
        Text(read_as="httpUrl"),
        "where a Worker on this machine is reached from outside, by a tunnel or a reverse proxy: `https://...`. Without"
        " it messages are asked for, and no address is needed",
        where="workerd",
        worker="HERMES_PUBLIC_URL",
    ),
    Setting(
        "hermes_telegram_api_url",
        Text(read_as="httpUrl"),
        "a server of Telegram's Bot API of your own",
        default="Telegram's",
        worker="HERMES_TELEGRAM_API_URL",
    ),
    Setting(
        "hermes_verify",
        Choice(("auto", "full")),
        "`full` chats with an unchanged deployment as well",
    ),
    Setting(
        "hermes_serial",
        OfOnePlay(),
        "how many deployments at a time (`5`, `20%`); with `-e`",
        default="all at once",
    ),
    Setting(
        "hermes_max_fail_percentage",
        OfOnePlay(),
        "how many percent of them may fail before the play ends without those that follow (all of them always end it);"
        " with `-e`",
        default="go on with the others",
    ),
    Setting(
        "hermes_confirm",
        OfOnePlay(),
        "`destroy` does not ask; with `-e`, an inventory cannot say it",
        default="`false`",
    ),
    Setting(
        "hermes_keys",
        OfOnePlay(),
        "what the playbook `rotate_keys` rotates ([more](rotation.md)); with `-e`",
        default="all",
    ),
    Setting("hermes_forget", OfOnePlay(), "`destroy` keeps no last backup", default="`false`"),
    Setting(
        "hermes_action",
        OfOnePlay(),
        "what the playbook `lifecycle` does: `wake`, `sleep`, `sleep-by-force`, `restart`, `restart-gateway` or `stop`;"
        " with `-e`",
    ),
    Setting(
        "hermes_pair",
        OfOnePlay(),
        "the code of a person whom the playbook `pair` lets in ([more](channels.md#pairing)); with `-e`",
    ),
    Setting(
        "hermes_unpair",
        OfOnePlay(),
        "whom it lets in no longer: a channel, a colon, their id there; with `-e`",
    ),
    Setting(
        "hermes_backup_dir",
        OfOnePlay(),
        "where the playbook `backup` keeps its files",
        default="`<state>/backups`",
    ),
    Setting(
        "hermes_backup",
        OfOnePlay(),
        "what the playbook `restore` puts back: a file, or `newest`; with `-e`",
        default="`newest` with `make`",
    ),
    Setting(
        "hermes_log_lines",
        OfOnePlay(),
        "how many lines of each log the playbook `logs` shows ([more](operations.md#logs)); with `-e`",
        default="`40`",
    ),
    Setting(
        "hermes_log_level", OfOnePlay(), "the least level that it shows; with `-e`", default="all"
    ),
    Setting(
        "hermes_log_since", OfOnePlay(), "the earliest time that it shows; with `-e`", default="all"
    ),
    Setting(
        "hermes_log_raw",
        OfOnePlay(),
        "show the lines as they were written; with `-e`",
        default="`false`",
    ),
)


BY_NAME = {setting.variable: setting for setting in SETTINGS}
KNOWN_VARIABLES = frozenset(name for name in BY_NAME if name.startswith("hermes_"))
INPUTS = frozenset(BY_NAME)
"""Every inventory variable that this collection reads."""
ENVIRONMENT = {setting.variable: setting.environment for setting in SETTINGS if setting.environment}
"""Inventory variable -> the environment variable that is asked where the inventory does not mention it."""
SECRET_INPUTS = frozenset(
    setting.variable for setting in SETTINGS if isinstance(setting.kind, Secret)
)
"""Inventory variables whose values are never shown, and stand in no task's arguments."""
WORKER_SECRETS = (
    "API_TOKEN",
    "API_TOKEN_PREVIOUS",
    *KEY_NAMES.values(),
    "AI_GATEWAY_TOKEN",
    "GATEWAY_TOKEN",
    "BROWSER_URL",
    "HERMES_SECRETS",
    "HERMES_CHANNELS",
)
"""Names of the secrets that the Worker may hold, in the order of its proof."""
SECRET_VARIABLES = {
    setting.kind.of_worker: setting.variable
    for setting in SETTINGS
    if isinstance(setting.kind, Secret) and setting.kind.of_worker
} | {"API_TOKEN_PREVIOUS": "hermes_api_token (the one before)"}
"""Name of a Worker's secret -> the inventory variable that people know it by."""
VALUE_BYTES = 5120
"""Cloudflare's limit for a variable or a secret of a Worker."""
PORT_VARIABLES = {
    "http": "hermes_port",
    "providers": "hermes_providers_port",
    "dashboard": "hermes_dashboard_port",
}
"""Name of a socket -> the inventory variable with its port."""


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
OLD_NAMES = {"hermes_confirm": "confirm", "hermes_keys": "keys", "hermes_log_lines": "lines"}
"""What one play is told -> the name that it had before all had a prefix; with `-e` it is taken still."""
DECLARED = tuple(setting.variable for setting in SETTINGS if isinstance(setting.kind, Declared))
"""Inventory variables that say what the agent itself is to be."""
OF_ONE_PLAY = (
    "hermes_action",
    "hermes_backup",
    "hermes_backup_dir",
    "hermes_pair",
    "hermes_unpair",
)
"""What a playbook for an existing deployment hands on to its task."""
RESERVED_NAMES = ("backups",)
"""What lies beside the deployments in their state folder and could be a name; the rest begins with a dot."""
AI_GATEWAY = "https://gateway.ai.cloudflare.com/v1"
BATCHES: dict[str, tuple[Any, Callable[[Any], str], Any]] = {
    "hermes_serial": ("100%", serial_flaw, 10),
    "hermes_max_fail_percentage": (100, percentage_flaw, 25),
}
"""How a play goes through its hosts: variable -> what is without a word, what is wrong with a value, and an example."""

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rotation of keys has to do at one deployment; changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ...module_utils.cards import Card, Problem
from ...module_utils.settings.catalogue import KEY_NAMES
from ...module_utils.settings.settings import Settings
from ...module_utils.settings.values import duration
from ...module_utils.worker_client import WorkerClient
from ..plan import Change
from ..proof.health import health
from ..proof.in_force import outstanding
from ..proof.secrets import PREVIOUS, differing_secrets, variables_of
from ..state.folder import StateFolder, new_token

KEYS = ("api_token", "gateway_token", "provider_keys", "secrets", "channels", "dashboard_sessions")
PROVIDER_SECRETS = frozenset((*KEY_NAMES.values(), "AI_GATEWAY_TOKEN"))
FURTHER_SECRETS = frozenset(("HERMES_SECRETS", "BROWSER_URL"))
GATEWAY_SECRETS = frozenset(("GATEWAY_TOKEN",))
CHANNEL_SECRETS = frozenset(("HERMES_CHANNELS",))

LOOK_SECONDS = 90.0
"""How long the first look waits: a run that was interrupted may have left a Worker that is just being restarted."""
Connect = Callable[[str | None], WorkerClient]
"""Returns a client of the deployment with an API token."""


def read_keys(given: Any) -> tuple[set[str], list[Problem]]:
    """Return which keys to rotate, from a list or words separated by commas. Nothing is never taken for all."""
    words = given.split(",") if isinstance(given, str) else given
    words = words if isinstance(words, Iterable) else [given or ""]
    words = [str(word).strip() for word in words if str(word).strip()]
    if not words:
        remedy = f"say for example -e hermes_keys={KEYS[0]}, or leave it out for all."
        return set(), [Problem("hermes_keys", "names no key.", remedy, "rotation")]
    unknown = [word for word in words if word not in (*KEYS, "all")]
    if unknown:
        sentence = f"{', '.join(unknown)}: not among {', '.join(KEYS)}, all."
        remedy = f"say for example -e hermes_keys={KEYS[0]},{KEYS[2]}, or leave it out for all."
        return set(), [Problem("hermes_keys", sentence, remedy, "rotation")]
    return set(KEYS) if "all" in words else set(words), []


@dataclass
class Standing:
    """Where a deployment stands, as its Worker tells it."""

    client: WorkerClient | None = None
    """A client whose token the Worker takes; None when it does not answer, or takes none of ours."""
    health: dict[str, Any] = field(default_factory=dict)

    @property
    def which(self) -> str:
        """Which of the Worker's two tokens ours is: current, previous, or an empty text where it has none."""
        return str((self.health.get("token") or {}).get("which", ""))

    @property
    def awake(self) -> bool:
        """Whether a Hermes runs."""
        return bool(self.health.get("instance", {}).get("state", "asleep") != "asleep")

    @property
    def outdated(self) -> bool:
        """Whether a Hermes is known to run with other secrets than the Worker has now."""
        return bool(outstanding(self.health))


class Rotation:
    """One deployment's rotation, as it stands now."""

    def __init__(
        self,
        settings: Settings,
        deployment: StateFolder,
        given: dict[str, str],
        keys: set[str],
        connect: Connect,
    ) -> None:
        """given: the secrets of the inventory, by name; keys: some of KEYS."""
        self.settings = settings
        self.deployment = deployment
        self.given = given
        self.connect = connect
        self.record = deployment.rotation()
        """What a rotation that was interrupted had noted."""
        self.keys = set(keys)
        if self.record and self.record["token"]:
            self.keys.add("api_token")
        if settings.allow_unauthenticated:
            self.keys.discard("api_token")

    @cached_property
    def standing(self) -> Standing:
        """The deployment before this rotation."""
        return self.look(self._tokens())

    @property
    def client(self) -> WorkerClient:
        """The client of before this rotation. Raises a Card when there is none."""
        if self.standing.client is None:
            raise Card(self.problems())
        return self.standing.client

    def _tokens(self) -> list[str | None]:
        """The tokens that the Worker may take: first the one that was proved last."""
        if self.settings.allow_unauthenticated:
            return [None]
        pending = self.record["token"] if self.record else None
        known = (self.deployment.token(), self.given.get("API_TOKEN"), pending)
        return [token for token in dict.fromkeys(known) if token]

    def look(self, tokens: list[str | None]) -> Standing:
        """Ask the Worker, without waking Hermes."""
        for token in tokens:
            client = self.connect(token)
            answer = health(client, timeout=LOOK_SECONDS)
            if answer is not None and answer.status == 200:
                return Standing(client, answer.json())
        return Standing()

    def problems(self) -> list[Problem]:
        """Return everything that stands against it."""
        if self.standing.client is None:
            return [
                Problem(
                    self.settings.name,
                    "the Worker does not answer, or takes no API token that this machine or the inventory has.",
                    "run deploy first; a rotation changes the keys of what runs.",
                    "rotation",
                )
            ]
        return [*self._replaced_elsewhere(), *self._no_store()]

    def _replaced_elsewhere(self) -> list[Problem]:
        newer = (self.given.get("API_TOKEN"), self.record["token"] if self.record else None)
        if self.standing.which != "previous" or any(map(self._is_current, filter(None, newer))):
            return []
        return [
            Problem(
                "hermes_api_token",
                "was replaced by a rotation from elsewhere; the one that is known here is the old one.",
                "set hermes_api_token to the new one; or go back to the old one by a deploy, as long as it is valid.",
                "rotation",
            )
        ]

    def _is_current(self, token: str) -> bool:
        """Tell whether a token is the Worker's; it is not used for that, so that the old one gets no end."""
        differing = differing_secrets(self.standing.client, {"API_TOKEN": token})
        return differing is not None and "API_TOKEN" not in differing

    def _no_store(self) -> list[Problem]:
        """A new token that nobody would find again locks everybody out with the next deploy."""
        settings = self.settings
        given = self.given.get("API_TOKEN")
        generated = "api_token" in self.keys and self.new_token != given
        if not generated or not given or settings.token_vault_file or settings.token_command:
            return []
        return [
            Problem(
                "hermes_api_token",
                "the inventory gives it, and a rotation does not know where to write the new one.",
                "set hermes_token_vault_file or hermes_token_command; or put a new value into the inventory"
                " by yourself and run this again.",
                "token-store",
            )
        ]

    @cached_property
    def new_token(self) -> str | None:
        """The API token after the rotation; None when it stays."""
        if "api_token" not in self.keys:
            return None
        if self.record and self.record["token"]:
            return str(self.record["token"])
        given = self.given.get("API_TOKEN")
        # A new one that the owner wrote into the inventory has its home already.
        return given if given and given != self.client.token else new_token()

    @cached_property
    def values(self) -> dict[str, str]:
        """The secrets that the Worker has yet to be given, by name."""
        kinds = {
            "provider_keys": PROVIDER_SECRETS,
            "secrets": FURTHER_SECRETS,
            "gateway_token": GATEWAY_SECRETS,
            "channels": CHANNEL_SECRETS,
        }
        chosen = frozenset().union(*(kinds[key] for key in self.keys if key in kinds))
        wanted = {name: value for name, value in self.given.items() if name in chosen}
        if self.new_token:
            wanted["API_TOKEN"] = self.new_token
        differing = differing_secrets(self.standing.client, wanted)
        changes = {n: value for n, value in wanted.items() if differing is None or n in differing}
        if "API_TOKEN" in changes:
            changes[PREVIOUS] = self.client.token or ""
        return changes

    def values_of(self, names: Iterable[str]) -> dict[str, str]:
        """Return the values that a rotation gives to secrets, by name; also of an earlier, interrupted run."""
        wanted = self.given | ({"API_TOKEN": self.new_token} if self.new_token else {})
        return {name: wanted[name] for name in names if name in wanted}

    @property
    def restarts_hermes(self) -> bool:
        """Whether Hermes itself has to be started again, as far as can be told before."""
        changed = self.values.keys()
        environment = self.settings.provider_keys == "environment"
        told = bool(FURTHER_SECRETS & changed) or (environment and bool(PROVIDER_SECRETS & changed))
        standing = self.standing
        return standing.awake and ("gateway_token" in self.keys or told or standing.outdated)

    def changes(self) -> list[Change]:
        """Return the lines of the plan; none when there is nothing to do."""
        restarts = "Hermes" if self.restarts_hermes else ""
        found = []
        if self.new_token:
            overlap = duration(self.settings.token_overlap)
            words = f"a new one beside the old, which ends {overlap} after its first use"
            if self.record and self.record["token"]:
                words = "goes on where an earlier run was interrupted"
            found.append(Change("rotate", "api_token", words))
        shown = [
            name
            for name in variables_of(sorted(self.values))
            if not name.startswith("hermes_api_token")
        ]
        found += [Change("rotate", name, "the value of the inventory", restarts) for name in shown]
        if "gateway_token" in self.keys and self.standing.awake:
            words = "Hermes starts again with a new one; requests under way come first"
            found.append(Change("rotate", "gateway_token", words, "Hermes"))
        if "dashboard_sessions" in self.keys:
            found.append(Change("rotate", "dashboard_sessions", "everybody signs in again"))
        return found

    def rows(self, address: str) -> list[list[str]]:
        """Return what the plan's table says: what, value, source."""
        instance = self.standing.health.get("instance", {}).get("state", "not asked")
        return [
            ["name", self.settings.name, "found"],
            ["address", address, "found"],
            ["keys", ", ".join(key for key in KEYS if key in self.keys), "asked for"],
            ["Hermes", f"is {instance}", "found"],
        ]

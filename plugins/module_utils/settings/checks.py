# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment is told to be: every input read, by subjects; all problems collected, no secret ever shown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from ..cards import Problem
from .account import read_cloudflare
from .catalogue import (
    BATCHES,
    DASHBOARD_PORT_OFFSET,
    KNOWN_VARIABLES,
    NAME_LENGTH,
    OF_ONE_PLAY,
    PATH_BYTES,
    PROVIDERS_PORT_OFFSET,
    RESERVED_NAMES,
    ROLE_VARIABLES,
    SETTINGS,
)
from .credentials import note_heard_twice, read_environment, read_secrets, read_token_store
from .inputs import Inputs
from .kinds import Judged
from .models import read_ai_gateway, read_base_url, read_context_length, read_models
from .network import (
    note_open_to_every_page,
    read_access,
    read_addresses,
    read_docker,
    read_egress,
    read_origins,
    read_ports,
)
from .release import read_browser, read_lazy_installs, read_release
from .values import NAME, show


class Checker(Inputs):
    """Reads raw inputs into Settings and secrets."""

    def check(self) -> Checker:
        """Check everything; returns self."""
        self._each_by_itself()
        self._name()
        read_ports(self)
        read_secrets(self)
        read_browser(self)
        read_models(self)
        read_base_url(self)
        read_addresses(self)
        read_context_length(self)
        read_release(self)
        read_ai_gateway(self)
        read_egress(self)
        read_token_store(self)
        read_origins(self)
        read_access(self)
        note_open_to_every_page(self)
        self.settings.env = read_environment(self)
        read_lazy_installs(self)
        note_heard_twice(self)
        read_docker(self)
        read_cloudflare(self)
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
            self.text(variable, "inputs")

    def read_secrets(self) -> None:
        """Read the secrets alone."""
        read_secrets(self)

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

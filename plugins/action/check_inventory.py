# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that the hosts of one inventory do not take each other's place, and asks once about each account they are on.

Runs once for all hosts: what is an account's is asked once for all its deployments, not by each of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from ..module_utils.cards import Card, Problem
from ..module_utils.settings.channels import Channels, read_channels, shared_bots
from ..module_utils.settings.checks import Checker, collisions
from ..module_utils.settings.settings import Settings
from ..module_utils.settings.values import Reader
from ..plugin_utils.actions.card_action import CardAction
from ..plugin_utils.cloudflare import account as accounts
from ..plugin_utils.cloudflare.place import open_api
from ..plugin_utils.inputs import inventory
from ..plugin_utils.state.folder import StateFolder

VARIABLES = (
    "hermes_name",
    "hermes_port",
    "hermes_providers_port",
    "hermes_dashboard",
    "hermes_dashboard_port",
    "hermes_state_dir",
    "hermes_platform",
    "hermes_engine",
)
ACCOUNT = (
    "hermes_account_id",
    "hermes_dashboard_hostname",
    "hermes_name",
    "hermes_platform",
    "hermes_state_dir",
    "cloudflare_api_base_url",
    "cloudflare_api_token",
)
CHANNELS = ("hermes_name", "hermes_channels")
IDENTITY = ("hermes_account_id", "hermes_name", "hermes_platform")


class ActionModule(CardAction):
    """The action `hermes.workers.check_inventory`."""

    def execute(self, options: dict[str, Any]) -> dict[str, Any]:
        """Do the work and return the task's result. Raises Card."""
        found = {}
        for host in self.task_vars.get("ansible_play_hosts_all", []):
            raw = self._inputs_of(host, VARIABLES)
            if raw is None or raw.get("hermes_platform") != "workerd":
                continue
            settings = Checker(raw).check().settings
            folder = os.path.abspath(os.path.expanduser(settings.state_dir))
            name = settings.name or str(raw["hermes_name"])
            found[host] = (folder, name, settings.ports.values())
        channels = self._channels()
        problems = collisions(found) + shared_bots(channels)
        if problems:
            raise Card(problems)
        accounts_ = self._accounts(channels)
        return {
            "changed": False,
            "deployments": len(found),
            "batch": list(self.task_vars.get("ansible_play_batch", [])),
            "accounts": accounts_,
            "unlisted_deployments": self._unlisted_deployments(),
        }

    def _channels(self) -> dict[str, Channels]:
        """Return the channels of each host; what is wrong with them its own check tells."""
        found = {}
        for host in self.task_vars.get("ansible_play_hosts_all", []):
            raw = self._inputs_of(host, CHANNELS)
            if raw and raw.get("hermes_channels"):
                found[host] = read_channels(Reader(raw), on_cloudflare=True)
        return found

    def _inputs_of(self, host: str, names: Iterable[str]) -> dict[str, Any] | None:
        """Return variables of a host; None when one cannot be read, which the host's own check tells."""
        variables = self.task_vars["hostvars"][host]
        found = inventory.read(names, variables, variables.__getitem__)
        return None if found.problems else {"hermes_name": host} | found.values

    def _unlisted_deployments(self) -> list[dict[str, str]]:
        """Return the deployments of ours in these accounts that no host of the whole inventory is."""
        named = {one[:2] for one in self._identities}
        found = {}
        for (account_id, _token, _url), survey in self.surveys.items():
            for name in survey.ours:
                if not {(account_id, name), ("", name)} & named:
                    found[account_id, name] = {"name": name, "account_id": account_id}
        return [found[one] for one in sorted(found)]

    @cached_property
    def _identities(self) -> list[tuple[str, str, str]]:
        """Account (where it is known), name and platform of each host, also of those that this play leaves out."""
        return [self._identity(host) for host in self.task_vars.get("groups", {}).get("all", [])]

    def _identity(self, host: str) -> tuple[str, str, str]:
        raw = self._inputs_of(host, IDENTITY) or {"hermes_name": host}
        account = str(raw.get("hermes_account_id") or "").strip().lower()
        return account, str(raw["hermes_name"]), str(raw.get("hermes_platform") or "cloudflare")

    def _named_in(self, account_id: str) -> list[str]:
        """Return what the inventory's deployments in an account are called."""
        here = {(account_id, "cloudflare"), ("", "cloudflare")}
        return sorted(
            {name for account, name, where in self._identities if (account, where) in here}
        )

    def _accounts(self, channels: dict[str, Channels]) -> dict[str, dict[str, Any]]:
        """Return what each account of the inventory has, by accounts.key(). channels: of each host."""
        hostnames: dict[tuple[str, str, str], set[str]] = {}
        mails: dict[tuple[str, str, str], set[str]] = {}
        places: dict[tuple[str, str, str], Settings] = {}
        taken: dict[str, str] = {}
        problems = []
        for host in self.task_vars.get("ansible_play_hosts_all", []):
            checker = self._on_cloudflare(host)
            if checker is None:
                continue
            settings = checker.settings
            place = (settings.account_id, checker.cloudflare_token, settings.api_base_url)
            places[place] = settings
            names = hostnames.setdefault(place, set())
            mail = channels[host].mail[0] if host in channels else ""
            mails.setdefault(place, set()).update(filter(None, [mail]))
            if settings.dashboard_hostname:
                names.add(settings.dashboard_hostname)
                problems += _shared(taken, settings.dashboard_hostname, host)
        if problems:
            raise Card(problems)
        self.surveys = {
            place: self._survey(places[place], place[1], names, mails[place])
            for place, names in hostnames.items()
        }
        return {accounts.key(*place): found.as_dict() for place, found in self.surveys.items()}

    def _on_cloudflare(self, host: str) -> Checker | None:
        """Return the inputs of a host on Cloudflare that name an account and a token; its own check tells the rest."""
        raw = self._inputs_of(host, ACCOUNT)
        if raw is None or (raw.get("hermes_platform") or "cloudflare") != "cloudflare":
            return None
        checker = Checker(raw).check()
        known = checker.settings.account_id and checker.cloudflare_token
        return checker if known else None

    def _survey(
        self, settings: Settings, token: str, hostnames: set[str], mails: set[str]
    ) -> accounts.Account:
        deployment = StateFolder(settings.state_dir, settings.name or "unnamed")
        api = open_api(settings, token, deployment, self.progress)
        found = accounts.survey(api, hostnames, mails)
        found.named = self._named_in(settings.account_id)
        return found


def _shared(taken: dict[str, str], hostname: str, host: str) -> list[Problem]:
    """Return the problem of a hostname that another host of the inventory has."""
    other = taken.setdefault(hostname, host)
    if other == host:
        return []
    return [
        Problem(
            "hermes_dashboard_hostname",
            f"{other} and {host} both are {hostname}.",
            "give each host its own hostname.",
            "hostname",
        )
    ]

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory of the deployments that accounts on Cloudflare hold."""

from __future__ import annotations

DOCUMENTATION = r"""
name: deployments
short_description: Inventory of the deployments on Cloudflare
version_added: 1.0.0
author:
  - hermes.workers contributors (!UNKNOWN)
description:
  - Lists the deployments of one or more accounts by the tag that a deploy leaves on each Worker, so that a fleet needs
    no hand-written hosts.
  - The name of a file with its configuration ends in C(.hermes.yml) or C(.hermes.yaml).
  - Needs five calls for each account, and one or two for each deployment.
  - Holds no secret. Tokens and keys come from C(group_vars), for instance of the group of an account.
requirements:
  - requests
extends_documentation_fragment:
  - constructed
  - inventory_cache
options:
  plugin:
    description:
      - Name of this plugin.
    type: str
    required: true
    choices: [hermes.workers.deployments]
  account_id:
    description:
      - Id of the account, where there is only one.
    type: str
    env:
      - name: CLOUDFLARE_ACCOUNT_ID
  api_token:
    description:
      - API token that reads the account; the permissions C(Workers Scripts - Read) and C(Containers - Read) are enough.
      - Can be a template, such as a lookup.
    type: str
    env:
      - name: CLOUDFLARE_API_TOKEN
  accounts:
    description:
      - The accounts, where there are several. Overrides O(account_id).
    type: list
    elements: dict
    suboptions:
      account_id:
        description:
          - Id of the account.
        type: str
        required: true
      name:
        description:
          - What the account is called in names of groups; its id when not set.
        type: str
      api_token:
        description:
          - API token for this account; O(api_token) when not set. Can be a template.
        type: str
  api_base_url:
    description:
      - Address of the API.
    type: str
    default: https://api.cloudflare.com/client/v4
    env:
      - name: CLOUDFLARE_API_BASE_URL
  budget_dir:
    description:
      - Folder in which all processes of this machine count a token's calls together, to stay within Cloudflare's limit.
    type: path
"""

EXAMPLES = r"""
# fleet.hermes.yml, with CLOUDFLARE_ACCOUNT_ID and CLOUDFLARE_API_TOKEN in the environment
plugin: hermes.workers.deployments

---
# Two accounts, further groups, and a variable made of what the Worker is set to
plugin: hermes.workers.deployments
accounts:
  - name: acme
    account_id: 0123456789abcdef0123456789abcdef
    api_token: "{{ lookup('ansible.builtin.env', 'ACME_TOKEN') }}"
  - name: lab
    account_id: fedcba9876543210fedcba9876543210
    api_token: "{{ lookup('ansible.builtin.env', 'LAB_TOKEN') }}"
keyed_groups:
  - key: deployment.variables.HERMES_DEFAULT_MODEL.split('/')[0]
    prefix: provider
compose:
  hermes_default_model: deployment.variables.HERMES_DEFAULT_MODEL
cache: true
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

from ..module_utils.cloudflare.budget import Budget
from ..module_utils.cloudflare.client import Cloudflare, CloudflareError
from ..plugin_utils.cloudflare.fleet import survey

ALL = "hermes"
"""Group of all deployments."""


@dataclass(frozen=True)
class Account:
    """An account to list. label: in the names of groups."""

    id: str
    label: str
    token: str


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """One host for each deployment."""

    NAME = "hermes.workers.deployments"

    def verify_file(self, path: str) -> bool:
        """Whether the file's name is one of this plugin's."""
        return super().verify_file(path) and path.endswith((".hermes.yml", ".hermes.yaml"))

    def parse(
        self, inventory: InventoryData, loader: DataLoader, path: str, cache: bool = True
    ) -> None:
        """Read the configuration, ask the accounts or the cache, and fill the inventory."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        deployments = self._cached(path, cache)
        names = Counter(one["name"] for one in deployments)
        for deployment in deployments:
            self._add(deployment, unique=names[deployment["name"]] == 1)

    def _cached(self, path: str, may_read: bool) -> list[dict[str, Any]]:
        """Return the deployments: from the cache where that is wanted and it holds them."""
        key, caching = self.get_cache_key(path), self.get_option("cache")
        if caching and may_read:
            try:
                kept: list[dict[str, Any]] = self._cache[key]
                return kept
            except KeyError:
                pass  # not there yet, or expired
        found = [one for account in self._accounts() for one in self._survey(account)]
        if caching:
            self._cache[key] = found
        return found

    def _accounts(self) -> Iterator[Account]:
        entries = self.get_option("accounts") or [{"account_id": self.get_option("account_id")}]
        for entry in entries:
            account_id = self._text(entry.get("account_id"))
            token = self._text(entry.get("api_token") or self.get_option("api_token"))
            if not account_id or not token:
                raise AnsibleParserError(
                    "account_id and api_token: not both are set. Set them in the inventory's file, or set"
                    " CLOUDFLARE_ACCOUNT_ID and CLOUDFLARE_API_TOKEN."
                )
            yield Account(account_id, self._text(entry.get("name")) or account_id, token)

    def _text(self, value: Any) -> str:
        return str(self.templar.template(value)) if value else ""

    def _survey(self, account: Account) -> list[dict[str, Any]]:
        folder, base_url = self.get_option("budget_dir"), self.get_option("api_base_url")

        def connect() -> Cloudflare:
            budget = Budget(Path(folder).expanduser(), account.token) if folder else None
            return Cloudflare(account.token, account.id, base_url, budget, self.display.display)

        try:
            found = survey(connect)
        except CloudflareError as error:
            raise AnsibleParserError(
                f"account {account.label}: {error.message}. Do: {error.remedy}"
            ) from None
        return [{**deployment, "account": account.label} for deployment in found]

    def _add(self, deployment: dict[str, Any], unique: bool) -> None:
        """Add one host. Equal names of two accounts are told apart, so that no host has two tenants' variables."""
        name = deployment["name"]
        host = self.inventory.add_host(name if unique else f"{name}.{deployment['account']}")
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "hermes_platform": "cloudflare",
            "hermes_name": name,
            "hermes_account_id": deployment["account_id"],
            "deployment": deployment,
        }
        for key, value in variables.items():
            self.inventory.set_variable(host, key, value)
        self._group(host, deployment)
        strict = self.get_option("strict")
        known = self.inventory.get_host(host).get_vars()
        self._set_composite_vars(self.get_option("compose"), known, host, strict)
        self._add_host_to_composed_groups(self.get_option("groups"), known, host, strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), known, host, strict)

    def _group(self, host: str, deployment: dict[str, Any]) -> None:
        names = [ALL, f"account_{deployment['account']}", f"state_{deployment['state']}"]
        if deployment["instance_type"]:
            names.append(f"instance_type_{deployment['instance_type']}")
        for name in names:
            group = self.inventory.add_group(self._sanitize_group_name(name))
            self.inventory.add_host(host, group)

#!/usr/bin/python
# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be told about Workers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_info
short_description: Tell about the Workers of an account
description:
  - Returns the settings, the serving version and the addresses of Workers on Cloudflare; never a secret's value.
  - For a whole fleet, the inventory plugin P(hermes.workers.deployments#inventory) needs fewer calls.
options:
  name:
    description:
      - Name of the one Worker to tell about; the result is empty when there is none of that name.
      - Without it, all Workers that this collection deployed.
    type: str
extends_documentation_fragment:
  - hermes.workers.cloudflare
  - hermes.workers.cloudflare.action_group
  - hermes.workers.cloudflare.info
"""

EXAMPLES = r"""
- name: Ask which version serves
  hermes.workers.worker_info:
    name: alice
  register: found
"""

RETURN = r"""
workers:
  description: One entry for each Worker.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the Worker.
      type: str
    hermes_name:
      description: Name of the deployment, by the Worker's tags.
      type: str
    version_id:
      description: Id of the version that serves, empty when none does.
      type: str
    variables:
      description: The plain text variables.
      type: dict
    secrets:
      description: The names of the secrets.
      type: list
      elements: str
    tags:
      description: The Worker's tags.
      type: list
      elements: str
    hostnames:
      description: The custom domains.
      type: list
      elements: str
    url:
      description: An address that the Worker answers at, empty when there is none.
      type: str
  sample:
    - name: alice
      hermes_name: alice
      version_id: 8b4656e9-a91f-4207-8912-2739fc7c09ee
      variables: {WORKER_VERSION: 91ab03f7c2d4e560}
      secrets: [ANTHROPIC_API_KEY, API_TOKEN]
      tags: [hermes.workers, "hermes.workers:alice"]
      hostnames: [hermes.example.com]
      url: https://hermes.example.com
failure:
  description: What Cloudflare refused, or the module itself.
  returned: failed
  type: dict
  contains:
    code:
      description: Code of Cloudflare, or the name of a reason.
      type: raw
    message:
      description: The reason in one line.
      type: str
    details:
      description: Status, codes, call, and what to do about it.
      type: dict
  sample: {code: 10007, message: "Cloudflare answers: This Worker does not exist on your account. (code 10007)"}
"""

from typing import Any, ClassVar

from ..module_utils.cloudflare import domains, scripts
from ..module_utils.cloudflare.module import CloudflareModule


class WorkerInfo(CloudflareModule):
    """Facts about Workers."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = {"name": {"type": "str"}}

    def execute(self) -> None:
        """Read everything that is asked for."""
        name = self.options["name"]
        names = [name] if name else [one["id"] for one in scripts.deployed(self.api)]
        settings = {one: scripts.settings(self.api, one) for one in names}
        found = {one: known for one, known in settings.items() if known is not None}
        hostnames = domains.by_worker(self.api) if found else {}
        subdomain = scripts.account_subdomain(self.api) if found else ""
        self.result["workers"] = [
            self._facts(one, known, hostnames.get(one, []), subdomain)
            for one, known in found.items()
        ]

    def _facts(
        self, name: str, settings: dict[str, Any], hostnames: list[str], subdomain: str
    ) -> dict[str, Any]:
        tags = settings.get("tags") or []
        return {
            "name": name,
            "hermes_name": scripts.deployment_name({"id": name, "tags": tags}),
            "version_id": scripts.serving(self.api, name),
            "variables": scripts.variables(settings),
            "secrets": sorted(scripts.secret_names(settings)),
            "tags": tags,
            "hostnames": hostnames,
            "url": scripts.url(self.api, name, hostnames, subdomain),
        }


def main() -> None:
    """Run the module."""
    WorkerInfo.main()


if __name__ == "__main__":
    main()

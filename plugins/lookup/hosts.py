# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom a play of this collection is for; one that would be for nobody fails, where Ansible itself ends in silence."""

from __future__ import annotations

DOCUMENTATION = """
name: hosts
author: hermes.workers contributors (!UNKNOWN)
version_added: 1.0.0
short_description: The hosts that a play is for, or a failure when there are none
description:
  - Returns the pattern of all hosts of the inventory.
  - Fails when the inventory has no host, and when a source of it does not exist. Ansible warns of either, and ends a
    play for nobody with success.
"""

EXAMPLES = """
- name: Tell what the deployments do now
  hosts: "{{ lookup('hermes.workers.hosts') }}"
  gather_facts: false
  tasks: []
"""

RETURN = """
_raw:
  description: A pattern for the keyword C(hosts) of a play.
  type: list
  elements: str
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.hermes.workers.plugins.module_utils.errors import Card, Problem

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = (ROOT / "inventories" / "local", ROOT / "docs" / "sample" / "hosts.yml")
"""An inventory for a first try: that of a checkout, and the one that comes along in an installation."""


class LookupModule(LookupBase):
    """hermes.workers.hosts"""

    def run(self, terms, variables=None, **kwargs):
        """Return the pattern of all hosts. Raises AnsibleError with a card."""
        variables = variables or {}
        sources = variables.get("ansible_inventory_sources") or []
        problems = problems_of(sources, variables.get("groups") or {})
        if problems:
            raise AnsibleError(Card(problems).render())
        return ["all"]


def problems_of(sources: Iterable[str], groups: Mapping[str, Any]) -> list[Problem]:
    """Return what stands against a play for all hosts. sources: paths, or hosts with commas between them."""
    sources = list(sources)
    sample = next(filter(Path.exists, SAMPLES))
    remedy = (
        "name an inventory with a host for each deployment (`-i`, with make `INVENTORY=`);"
        f" {shown(str(sample))} is one."
    )
    missing = [source for source in sources if "," not in source and not os.path.exists(source)]
    if missing:
        return [
            Problem(shown(source), "there is no such inventory.", remedy, "hosts")
            for source in missing
        ]
    if groups.get("all"):
        return []
    names = ", ".join(map(shown, sources))
    return [Problem(names or "the inventory", "names no host.", remedy, "hosts")]


def shown(source: str) -> str:
    """Return a source the way a person would type it."""
    relative = source if "," in source else os.path.relpath(source)
    return source if relative.startswith("..") else relative

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a play goes through its hosts, where what was said of it can be used; what cannot is told by a card, later."""

from __future__ import annotations

DOCUMENTATION = """
name: batches
author: hermes.workers contributors (!UNKNOWN)
version_added: 1.0.0
short_description: The batches of a play, or all hosts at once when nothing usable is said
description:
  - Returns what V(hermes_serial) or V(hermes_max_fail_percentage) says, for the keyword of a play.
  - Ansible ends with a traceback when a keyword cannot be used. So what cannot is left out here, and refused by the
    first task of the play, before anything is changed.
options:
  _terms:
    description: C(serial) or C(max_fail_percentage).
    required: true
    type: list
    elements: str
"""

EXAMPLES = """
- name: Tell what the deployments do now
  hosts: all
  serial: "{{ lookup('hermes.workers.batches', 'serial') }}"
  gather_facts: false
  tasks: []
"""

RETURN = """
_raw:
  description: What was said, or what is without a word.
  type: list
  elements: raw
"""

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from ..module_utils.settings.catalogue import BATCHES


class LookupModule(LookupBase):
    """The lookup `hermes.workers.batches`."""

    def run(
        self, terms: list[str], variables: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        """Return the values of these keywords."""
        return [self._value(term, variables or {}) for term in terms]

    def _value(self, keyword: str, variables: Mapping[str, Any]) -> Any:
        name = f"hermes_{keyword}"
        default, flaw, _example = BATCHES[name]
        try:
            value = self._templar.template(variables.get(name))
        except AnsibleError:
            return default
        return default if value in (None, "") or flaw(value) else value

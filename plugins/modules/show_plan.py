# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action show_plan; the work is done in plugins/action/show_plan.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: show_plan
short_description: Show the plans of all hosts in one piece
description:
  - Shows each host's values with their sources, its changes, and the totals.
  - Run it once for all hosts.
attributes:
  diff_mode:
    description: Changes nothing that a diff could show.
    support: none
options:
  register:
    description:
      - Name of the variable in which each host registered the result of M(hermes.workers.preflight).
    type: str
    default: preflight_result
  unlisted_deployments:
    description:
      - Deployments that the inventory does not name, as M(hermes.workers.check_inventory) found them.
    type: list
    elements: dict
    default: []
extends_documentation_fragment:
  - hermes.workers.deployment
"""

EXAMPLES = r"""
- name: Show the plan
  hermes.workers.show_plan:
  run_once: true
"""

RETURN = r"""
changed:
  description: Always false.
  returned: always
  type: bool
shown:
  description: What was shown to people, line by line, without colours.
  returned: when something was
  type: list
  elements: str
  sample: ["Plan for alice"]
"""

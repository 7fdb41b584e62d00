# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action show_results; the work is done in plugins/action/show_results.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: show_results
short_description: Show what became of all deployments of a play
description:
  - Shows a table with the address, version, health, time to first token and error of each deployment, and totals.
  - Reads what the roles of this collection registered, from hosts that failed as well.
  - Run it once for all hosts, in the C(always) section of a block. A play of a single host shows no table.
options:
  batch:
    description:
      - Hosts of this batch (C(serial)), those that failed among them, which C(ansible_play_batch) leaves out.
    type: list
    elements: str
    default: []
  max_fail_percentage:
    description:
      - How many of O(batch) may fail, in percent, before the play ends without the batches that follow.
      - Stands in for the keyword of that name, which does not see failures in a block with an C(always) section.
    type: float
    default: 100
attributes:
  diff_mode:
    description: Changes nothing that a diff could show.
    support: none
extends_documentation_fragment:
  - hermes.workers.deployment
"""

EXAMPLES = r"""
- name: Show how it went
  hermes.workers.show_results:
  run_once: true
"""

RETURN = r"""
failed_deployments:
  description: The hosts that failed.
  returned: success
  type: list
  elements: str
  sample: [bob]
shown:
  description: What was shown to people, line by line, without colours.
  returned: when something was
  type: list
  elements: str
  sample: ["alice  ok, Hermes is awake"]
"""

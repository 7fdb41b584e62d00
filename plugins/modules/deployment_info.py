# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action deployment_info; the work is done in plugins/action/deployment_info.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment_info
short_description: Tell what a deployment on this machine does now
description:
  - Shows the state of processes, Worker and Hermes, or the ends of their logs.
  - Changes nothing and does not wake a sleeping Hermes.
attributes:
  diff_mode:
    description: Changes nothing that a diff could show.
    support: none
options:
  log_lines:
    description:
      - Number of lines to show of each log; without it the status is shown instead.
      - The variables V(hermes_log_lines), V(hermes_log_level), V(hermes_log_since) and V(hermes_log_raw) say more.
    type: raw
extends_documentation_fragment:
  - hermes.workers.deployment
  - hermes.workers.deployment.existing
"""

EXAMPLES = r"""
- name: Show the status
  hermes.workers.deployment_info:
    name: alice
"""

RETURN = r"""
running:
  description: Whether its supervisor runs.
  returned: success
  type: bool
health:
  description: What C(/api/health) answers, or empty.
  returned: success
  type: dict
status:
  description: What C(/api/instance/status) answers, or empty.
  returned: success
  type: dict
shown:
  description: What was shown to people, line by line, without colours.
  returned: when something was
  type: list
  elements: str
  sample: ["alice: awake"]
"""

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action workerd_destroy; the work is done in plugins/action/workerd_destroy.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: workerd_destroy
short_description: Take a deployment on this machine away
description:
  - Saves Hermes' state, stops the deployment's own processes, leaves a last backup, removes the state folder.
  - Removes its containers, their sidecars, its snapshots and, when no other deployment uses it, the image.
  - Removes the shared runtime when no other deployment uses it.
extends_documentation_fragment:
  - hermes.workers.deployment
  - hermes.workers.deployment.existing
  - hermes.workers.deployment.destroy
"""

EXAMPLES = r"""
- name: Remove a deployment and keep a backup
  hermes.workers.workerd_destroy:
    name: alice
    confirmed: true
"""

RETURN = r"""
exists:
  description: Whether there is anything to remove.
  returned: when O(only_plan=true)
  type: bool
backup:
  description: Path of the last backup, or null.
  returned: changed
  type: str
  sample: /home/me/.hermes/backups/alice-20261123-120000-4f5a8b3c.hermes
shown:
  description: What was shown to people, line by line, without colours.
  returned: when something was
  type: list
  elements: str
  sample: ["alice: destroyed"]
"""

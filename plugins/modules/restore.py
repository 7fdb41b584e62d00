# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action restore; the work is done in plugins/action/restore.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore
short_description: Put a backup in the place of a deployment's state
description:
  - Uploads a backup that M(hermes.workers.backup) or C(destroy) kept. The Worker checks it whole before it stops
    anything, saves today's state, and starts Hermes with the backup. Where that fails, Hermes runs on as before.
  - The backup may come from another deployment; that is how one is cloned or moved to Cloudflare and back.
attributes:
  check_mode:
    description: Checks that the file and the deployment are there and writes nothing.
    support: full
  diff_mode:
    description: There is nothing that a diff could show.
    support: none
options:
  backup:
    description:
      - Path of the file, or V(newest), the newest of this deployment in C(backups) of O(state_dir).
    type: str
    required: true
extends_documentation_fragment:
  - hermes.workers.deployment
  - hermes.workers.deployment.existing
"""

EXAMPLES = r"""
- name: Go back to the newest backup that was downloaded
  hermes.workers.restore:
    name: alice
    backup: newest
"""

RETURN = r"""
path:
  description: The file that was restored.
  returned: success
  type: str
backup:
  description: What the Worker says of it.
  returned: success, not in check mode
  type: dict
shown:
  description: What was shown to people, line by line, without colours.
  returned: when something was
  type: list
  elements: str
  sample: ["alice: restored, Hermes runs with .hermes/backups/alice-20261123-120000-4f5a8b3c.hermes"]
"""

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action backup; the work is done in plugins/action/backup.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup
short_description: Keep a backup of a deployment's Hermes on the controller
description:
  - Has the Worker save Hermes' state now, verified, and downloads it into a file of mode 0600.
  - The backup of a sleeping Hermes is its state at the time it fell asleep; it is not woken.
  - A backup holds conversations, memories, skills and cron jobs, no key and no sign-in. Files in Hermes' workspace are
    not in it.
attributes:
  check_mode:
    description: Writes nothing and always predicts a change, since only a save tells whether the state differs.
    support: partial
  diff_mode:
    description: There is nothing that a diff could show.
    support: none
options:
  folder:
    description:
      - Where the file goes; C(backups) in O(state_dir) by default, which outlives the deployment.
    type: path
    default: ""
extends_documentation_fragment:
  - hermes.workers.deployment
  - hermes.workers.deployment.existing
"""

EXAMPLES = r"""
- name: Keep a backup off this machine
  hermes.workers.backup:
    name: alice
    folder: /mnt/backups/hermes
"""

RETURN = r"""
path:
  description: The file. Its name tells when the state was saved and begins with the deployment's.
  returned: success, not in check mode
  type: str
  sample: /home/me/.hermes/backups/alice-20261124-190000-1f2e3d4c.hermes
backup:
  description: What the Worker says of the backup.
  returned: success, not in check mode
  type: dict
  sample: {"id": 7, "created": "2026-11-24T19:00:00.000Z", "bytes": 71234, "state": "good"}
shown:
  description: What was shown to people, line by line, without colours.
  returned: when something was
  type: list
  elements: str
  sample: ["alice: backed up"]
"""

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action cloudflare_destroy; the work is done in plugins/action/cloudflare_destroy.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cloudflare_destroy
short_description: Take a deployment away from Cloudflare
description:
  - Downloads a last backup, then deletes hostname, container application and Worker, and removes the state folder.
  - What was not made by this collection stays.
options:
  prune_images:
    description:
      - Whether images of Hermes that no other Worker names are deleted from the registry; yes or no, like O(confirmed).
    type: raw
    default: false
extends_documentation_fragment:
  - hermes.workers.deployment
  - hermes.workers.deployment.existing
  - hermes.workers.deployment.destroy
  - hermes.workers.deployment.secrets
"""

EXAMPLES = r"""
- name: Remove a deployment and keep a backup
  hermes.workers.cloudflare_destroy:
    name: alice
    confirmed: true
  vars:
    hermes_account_id: "{{ account_id }}"
    cloudflare_api_token: "{{ vaulted_cloudflare_api_token }}"
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
  sample: /home/me/.hermes/backups/alice-20261123-120000.hermes
shown:
  description: What was shown to people, line by line, without colours.
  returned: when something was
  type: list
  elements: str
  sample: ["alice: destroyed"]
"""

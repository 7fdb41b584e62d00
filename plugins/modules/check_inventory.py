# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action check_inventory; the work is done in plugins/action/check_inventory.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_inventory
short_description: Check that the hosts of an inventory do not take each other's name or port
description:
  - Compares C(hermes_name), C(hermes_state_dir) and C(hermes_port) of all hosts in the play.
  - Asks Cloudflare once for each account and token what is the whole account's.
  - Run it once for all hosts.
attributes:
  diff_mode:
    description: Changes nothing that a diff could show.
    support: none
extends_documentation_fragment:
  - hermes.workers.deployment
"""

EXAMPLES = r"""
- name: Check that the hosts do not take each other's place
  hermes.workers.check_inventory:
  run_once: true
"""

RETURN = r"""
deployments:
  description: Number of hosts that were compared.
  returned: success
  type: int
  sample: 2
batch:
  description: The hosts of this batch (C(serial)), before any of them can have failed.
  returned: success
  type: list
  elements: str
  sample: [alice, bob]
accounts:
  description: What each account on Cloudflare has, under a name that tells nothing of its token.
  returned: success
  type: dict
  sample: {0e7fd2c59c1b64aa: {subdomain: acme, scripts: {alice: 5e0f7a1c}}}
unlisted_deployments:
  description: Deployments of this collection in these accounts that no host of the inventory is.
  returned: success
  type: list
  elements: dict
  sample: [{name: bob, account_id: 0123456789abcdef0123456789abcdef}]
"""

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action cloudflare_secrets; the work is done in plugins/action/cloudflare_secrets.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cloudflare_secrets
short_description: Bring the secrets of a Worker on Cloudflare to what the inventory says
description:
  - Compares by the Worker's own proof, and writes what differs in one call, which makes one new version.
  - Secrets that nobody asked for are deleted.
attributes:
  diff_mode:
    description: Names only, never a value.
    support: full
options:
  planned:
    description:
      - Whether the plan says that this has to be done.
    type: bool
    default: false
extends_documentation_fragment:
  - hermes.workers.deployment
  - hermes.workers.deployment.settings
  - hermes.workers.deployment.secrets
"""

EXAMPLES = r"""
- name: Change the secrets that differ
  hermes.workers.cloudflare_secrets:
    settings: "{{ preflight_result.settings }}"
    planned: true
"""

RETURN = r"""
names:
  description: Inventory variables of the secrets that were written or deleted.
  returned: success
  type: list
  elements: str
  sample: [anthropic_api_key]
"""

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action workerd_secrets; the work is done in plugins/action/workerd_secrets.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: workerd_secrets
short_description: Bring the secrets of a Worker on this machine to what the inventory says
description:
  - Asks the Worker for HMAC-SHA256 of each value under a fresh nonce and compares.
  - So nothing is stored, and drift is seen.
  - Only names are ever reported.
attributes:
  diff_mode:
    description: Shows the names of the secrets that differ.
    support: full
options:
  delivered:
    description:
      - Whether the processes were started in this play, and so with today's secrets.
    type: bool
    default: false
extends_documentation_fragment:
  - hermes.workers.deployment
  - hermes.workers.deployment.settings
  - hermes.workers.deployment.secrets
"""

EXAMPLES = r"""
- name: Change the secrets that differ
  hermes.workers.workerd_secrets:
    settings: "{{ preflight_result.settings }}"
"""

RETURN = r"""
names:
  description: Names of the secrets that were changed.
  returned: success
  type: list
  elements: str
  sample: [anthropic_api_key]
"""

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action cloudflare_routes; the work is done in plugins/action/cloudflare_routes.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cloudflare_routes
short_description: Give a deployment on Cloudflare its hostname
description:
  - Makes a custom domain, or a route with a proxied DNS record, and waits for its certificate.
  - Removes what the inventory no longer names, as far as a tag of the Worker tells that it is ours.
  - Never takes a hostname or a record of somebody else's without C(hermes_take_over_hostname).
attributes:
  diff_mode:
    description: Changes nothing that a diff could show.
    support: none
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
- name: Settle the hostname
  hermes.workers.cloudflare_routes:
    settings: "{{ preflight_result.settings }}"
    planned: true
"""

RETURN = r"""
steps:
  description: What was done, in words.
  returned: changed, outside check mode
  type: list
  elements: str
  sample: [custom domain hermes.example.com]
"""

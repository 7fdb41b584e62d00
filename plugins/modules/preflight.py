# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action preflight; the work is done in plugins/action/preflight.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Check every input of a deployment and this machine, and plan it
description:
  - Collects all problems of the inputs, of this machine, of ports and disk in one error card.
  - Compares what the deployment should be with what it is, by digests and by the Worker's proof of its secrets.
  - Changes nothing and does not wake a sleeping Hermes.
  - Reads the inputs by itself from the host's variables; P(hermes.workers.preflight#role) lists them.
attributes:
  diff_mode:
    description: Changes nothing that a diff could show.
    support: none
options:
  accounts:
    description:
      - What M(hermes.workers.check_inventory) found out about Cloudflare, or else it is asked for again.
    type: dict
    default: {}
  rotate:
    description:
      - Plan a rotation of these keys instead of a deploy; a list, or words separated by commas.
    type: raw
  purpose:
    description:
      - What the check is for. V(compare) and V(prove) look at what is there already, so that no port has to be free.
      - With V(prove), or O(rotate), the ports that the running deployment has are taken in place of the inventory's.
    type: str
    choices: [deploy, compare, prove]
    default: deploy
extends_documentation_fragment:
  - hermes.workers.deployment
  - hermes.workers.deployment.secrets
"""

EXAMPLES = r"""
- name: Check and plan
  hermes.workers.preflight:
  vars:
    hermes_name: alice
    hermes_platform: workerd
    hermes_port: 8787
    anthropic_api_key: "{{ vaulted_anthropic_api_key }}"
  register: preflight_result
"""

RETURN = r"""
settings:
  description: The checked settings, without secrets; input of the other actions. Durations are in seconds.
  returned: success
  type: dict
  sample: {name: alice, port: 8787, default_model: anthropic/claude-sonnet-4-5}
changes:
  description: What a deploy will change, in its order.
  returned: success
  type: list
  elements: dict
  sample: [{action: create, what: image, detail: Hermes 0.19.0, restarts: false}]
left_asleep:
  description: Whether a Hermes that sleeps is not woken, for only content that it wakes with is changed.
  returned: success, not with O(rotate)
  type: bool
  sample: false
chosen_keys:
  description: The keys that a rotation is for.
  returned: when O(rotate) is given
  type: list
  elements: str
  sample: [api_token]
notes:
  description: What was said and does nothing, a line each.
  returned: success, not with O(rotate)
  type: list
  elements: str
  sample: ["hermes_instance_type: without effect on workerd."]
rows:
  description: The plan's table of value and source.
  returned: success
  type: list
  elements: list
  sample: [[port, "8787", default]]
"""

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action rotate_keys; the work is done in plugins/action/rotate_keys.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rotate_keys
short_description: Rotate the keys of a deployment without a failed request
description:
  - Gives the Worker a new API token beside the old one, and the provider keys and further secrets of the inventory, in
    one change for which requests under way are waited for; proves them by a chat; only then keeps the new token.
  - The new token is noted in the state folder, readable by its owner only, before the Worker learns of it. A run that
    is cut off anywhere is finished by the next one, with the same token; until then one of the two is always valid.
  - Keys that do not pass the chat are taken back, and the task fails.
attributes:
  diff_mode:
    description: Names only, never a value.
    support: full
options:
  keys:
    description:
      - Which keys to rotate.
      - V(api_token), V(gateway_token) and V(dashboard_sessions) are made anew each time.
      - V(provider_keys), V(secrets) and V(channels) are changed to the inventory's values, where the Worker has others.
    type: list
    elements: str
    choices: [api_token, gateway_token, provider_keys, secrets, channels, dashboard_sessions]
    required: true
extends_documentation_fragment:
  - hermes.workers.deployment
  - hermes.workers.deployment.settings
  - hermes.workers.deployment.secrets
"""

EXAMPLES = r"""
- name: Rotate the API token
  hermes.workers.rotate_keys:
    settings: "{{ preflight_result.settings }}"
    keys: [api_token]
  register: rotate_result
"""

RETURN = r"""
rotated:
  description: What was rotated; provider keys by their inventory variable.
  returned: success
  type: list
  elements: str
  sample: [api_token, anthropic_api_key]
url:
  description: Address of the API.
  returned: success
  type: str
  sample: https://alice.acme.workers.dev
version:
  description: The Worker's version.
  returned: success
  type: str
health:
  description: Its health in a few words.
  returned: success
  type: str
  sample: ok, Hermes is awake
left:
  description: What differs from the inventory besides keys, which a rotation does not bring.
  returned: success
  type: str
  sample: nothing
seconds_to_first_token:
  description: Until the first text of the chat that proved the keys.
  returned: when there was something to prove
  type: float
shown:
  description: What was shown to people, line by line, without colours.
  returned: when something was
  type: list
  elements: str
  sample: ["alice: rotated api_token"]
"""

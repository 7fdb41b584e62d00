# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action verify_deployment; the work is done in plugins/action/verify_deployment.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: verify_deployment
short_description: Prove a deployment by real chats and show its summary
description:
  - Checks the version in C(/api/health), a chat and a streamed chat.
  - Checks that requests without a token, and with a wrong one, are refused.
  - An unchanged deployment that was proved before is checked by its health only, and a sleeping Hermes is not woken.
  - Nor is one that sleeps when only content was changed that it wakes with.
  - A refusal by the model's provider is reported with the variable to mend.
attributes:
  diff_mode:
    description: Changes nothing that a diff could show.
    support: none
options:
  changed_before:
    description:
      - Whether this play changed anything.
    type: bool
    default: false
  left_asleep:
    description:
      - Whether a Hermes that sleeps is not woken, for only content that it wakes with was changed since its last chat.
    type: bool
    default: false
extends_documentation_fragment:
  - hermes.workers.deployment
  - hermes.workers.deployment.settings
  - hermes.workers.deployment.secrets
"""

EXAMPLES = r"""
- name: Prove it by a chat
  hermes.workers.verify_deployment:
    settings: "{{ preflight_result.settings }}"
    changed_before: true
"""

RETURN = r"""
version:
  description: Version of the Worker that answered.
  returned: success
  type: str
  sample: 91ab03f7c2d4e560
url:
  description: Where it is.
  returned: success
  type: str
  sample: http://127.0.0.1:8787
health:
  description: Its health in a few words.
  returned: success
  type: str
  sample: ok, Hermes is awake
verified:
  description: V(chat), or V(health) for an unchanged deployment, and one whose Hermes was left asleep.
  returned: success
  type: str
  sample: chat
model:
  description: Model that spoke.
  returned: when RV(verified=chat)
  type: str
  sample: anthropic/claude-sonnet-4-5
seconds_to_first_token:
  description: Seconds from the request to the first text of a streamed chat.
  returned: when RV(verified=chat)
  type: float
  sample: 0.42
shown:
  description: What was shown to people, line by line, without colours.
  returned: when something was
  type: list
  elements: str
  sample: ["alice: deployed and verified"]
"""

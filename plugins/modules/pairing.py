# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action pairing; the work is done in plugins/action/pairing.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pairing
short_description: Let people write to a deployment's Hermes whom a channel gave a code
description:
  - Where a channel of C(hermes_channels) has C(pairing), a stranger who writes to its bot is given a code. Whoever says
    that code here lets them in.
  - Without O(code) and O(remove) it tells who asks, and who was let in.
attributes:
  diff_mode:
    description: There is nothing that a diff could show.
    support: none
options:
  code:
    description: The code that somebody was given. It is good for an hour.
    type: str
    default: ""
  remove:
    description: Whom to let in no longer; the channel's name, a colon, their id there.
    type: str
    default: ""
extends_documentation_fragment:
  - hermes.workers.deployment
  - hermes.workers.deployment.existing
"""

EXAMPLES = r"""
- name: Let in whoever was given this code
  hermes.workers.pairing:
    name: alice
    code: K7MWQ2ZT
- name: Let somebody in no longer
  hermes.workers.pairing:
    name: alice
    remove: telegram:123456789
"""

RETURN = r"""
people:
  description: Who may write by a code, and who has one, by channel.
  returned: success
  type: dict
  sample:
    telegram:
      paired: [{"user": "123456789", "name": "Ann", "since": "2026-11-24T19:00:00.000Z"}]
      asking: []
shown:
  description: What was shown to people, line by line, without colours.
  returned: when something was
  type: list
  elements: str
  sample: ["alice: 123456789 (Ann) may write by telegram"]
"""

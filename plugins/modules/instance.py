# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action instance; the work is done in plugins/action/instance.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: instance
short_description: Wake, put to sleep, restart or stop a deployment's Hermes
description:
  - Asks the Worker of a deployment, on this machine or on Cloudflare.
  - Nothing is lost by any of it; the state is saved before a sandbox ends, and requests under way are waited for.
attributes:
  diff_mode:
    description: There is nothing that a diff could show.
    support: none
options:
  action:
    description:
      - V(wake) boots Hermes without a chat.
      - V(sleep) saves its state, verifies that and ends the sandbox.
      - V(sleep-by-force) does so although the state cannot be saved. What was not is left in a snapshot alone; where
        there are none, it is lost.
      - V(restart) is V(sleep), then a boot from the current image.
      - V(restart-gateway) restarts Hermes alone; streams under way finish.
      - V(stop) stops Hermes alone; the sandbox stays, and the next request starts Hermes again.
    type: str
    required: true
    choices: [wake, sleep, sleep-by-force, restart, restart-gateway, stop]
extends_documentation_fragment:
  - hermes.workers.deployment
  - hermes.workers.deployment.existing
"""

EXAMPLES = r"""
- name: Put it to sleep for the night
  hermes.workers.instance:
    name: alice
    action: sleep
"""

RETURN = r"""
instance:
  description: What C(/api/health) says of the instance afterwards; in check mode, before.
  returned: success
  type: dict
  sample: {"state": "asleep", "since": "2026-11-24T19:00:00.000Z", "bootId": null, "image": null, "gateway": null}
shown:
  description: What was shown to people, line by line, without colours.
  returned: when something was
  type: list
  elements: str
  sample: ["alice: Hermes is asleep"]
"""

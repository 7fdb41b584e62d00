# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action refresh_instance; the work is done in plugins/action/refresh_instance.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: refresh_instance
short_description: Bring a running Hermes to the deployed settings
description:
  - Asks the Worker whether its Hermes was started with the settings that are deployed now.
  - Where it was not, Hermes is restarted, alone or in a new sandbox, whichever is enough. Requests under way come to
    their end, and its state is kept.
  - A sleeping Hermes is left alone; it takes them when it wakes.
attributes:
  diff_mode:
    description: The plan of the deploy shows what restarts, and why.
    support: none
options:
  planned:
    description:
      - Whether the plan said that Hermes restarts.
    type: bool
    default: false
extends_documentation_fragment:
  - hermes.workers.deployment
  - hermes.workers.deployment.settings
"""

EXAMPLES = r"""
- name: Bring the running Hermes to the deployed settings
  hermes.workers.refresh_instance:
    settings: "{{ preflight_result.settings }}"
"""

RETURN = r"""
restarted:
  description: What was restarted.
  returned: when not in check mode
  type: str
  choices: [nothing, hermes, sandbox]
  sample: hermes
"""

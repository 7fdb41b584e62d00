# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action process_image; the work is done in plugins/action/process_image.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: process_image
short_description: Install the image that the process engine runs Hermes from
description:
  - Installs Hermes from its hashed lock with the sandbox's scripts, into a folder named by the digest of both.
  - Deployments with the same state folder share it.
  - An installation that was cut short is seen and done again.
attributes:
  diff_mode:
    description: Changes nothing that a diff could show.
    support: none
options:
  planned:
    description:
      - Whether the plan said that the image is missing; then the task reports a change for every host that shares it.
    type: bool
    default: false
extends_documentation_fragment:
  - hermes.workers.deployment
  - hermes.workers.deployment.settings
"""

EXAMPLES = r"""
- name: Install Hermes
  hermes.workers.process_image:
    settings: "{{ preflight_result.settings }}"
"""

RETURN = r"""
digest:
  description: Digest that names the image.
  returned: success
  type: str
  sample: 5e0f7a1c9b2d4e68
hermes_version:
  description: Release of Hermes in it.
  returned: success
  type: str
  sample: 0.19.0
"""

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action workerd_service; the work is done in plugins/action/workerd_service.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: workerd_service
short_description: Bring a deployment's processes to what they should be
description:
  - Starts a supervisor that holds the listening sockets and keeps workerd and the process engine running.
  - A new configuration restarts workerd while clients wait; a new engine has Hermes' state saved first.
  - Where Hermes runs in a container, the container outlives workerd's restart.
  - Touches only what it started itself.
attributes:
  diff_mode:
    description: Changes nothing that a diff could show.
    support: none
extends_documentation_fragment:
  - hermes.workers.deployment
  - hermes.workers.deployment.settings
  - hermes.workers.deployment.secrets
"""

EXAMPLES = r"""
- name: Start or restart the processes
  hermes.workers.workerd_service:
    settings: "{{ preflight_result.settings }}"
"""

RETURN = r"""
detail:
  description: Why the processes are started or restarted.
  returned: changed
  type: str
  sample: workerd and engine on 127.0.0.1:8787
secrets_changed:
  description: Names of the secrets that a restart brought up to date.
  returned: success
  type: list
  elements: str
  sample: [anthropic_api_key]
"""

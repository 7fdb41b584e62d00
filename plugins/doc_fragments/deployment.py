# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation that this collection's actions share."""

from __future__ import annotations


class ModuleDocFragment:
    """What every action of this collection has in common."""

    DOCUMENTATION = r"""
author:
  - hermes.workers contributors (!UNKNOWN)
version_added: 1.0.0
requirements:
  - Linux or macOS on the controller
notes:
  - Runs on the controller, whatever the host's connection is.
  - A failure's RV(ignore:msg) is an error card - the cause, what was changed, what to do, where to read on.
attributes:
  check_mode:
    description: Predicts what would change and writes nothing.
    support: full
  action_group:
    description: Use C(group/hermes.workers.deployment) in C(module_defaults) to set the shared options once.
    support: full
    membership:
      - hermes.workers.deployment
"""

    SETTINGS = r"""
options:
  settings:
    description:
      - The settings that M(hermes.workers.preflight) returned.
    type: dict
    required: true
"""

    # Ansible takes no fragment without options.
    SECRETS = r"""
options: {}
notes:
  - Reads keys and tokens by itself from the host's variables, such as C(anthropic_api_key), and has no option for them,
    so that nothing that prints a task's arguments shows one. They are never logged or written to a file, except for
    the API token in the state folder.
"""

    EXISTING = r"""
options:
  name:
    description:
      - Name of the deployment; by default what C(hermes_name) says, or else the host's name.
    type: str
  state_dir:
    description:
      - Folder of the state folders, relative to where the play was started; by default what C(hermes_state_dir) says.
    type: path
"""

    DESTROY = r"""
attributes:
  diff_mode:
    description: Changes nothing that a diff could show.
    support: none
options:
  confirmed:
    description:
      - Whether somebody agreed to the removal, yes or no; other words are refused. Without it nothing is removed.
    type: raw
    default: false
  forget:
    description:
      - Whether Hermes' memory may go without a last backup; yes or no, like O(confirmed).
    type: raw
    default: false
  only_plan:
    description:
      - Show what would be removed, and do nothing.
    type: bool
    default: false
"""

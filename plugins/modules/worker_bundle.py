# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action worker_bundle; the work is done in plugins/action/worker_bundle.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_bundle
short_description: Build a deployment's Worker and render its configuration
description:
  - Installs workerd and the bundler from npm, bundles the Worker once, renders the deployment's workerd configuration.
  - The configuration holds no secret.
attributes:
  diff_mode:
    description: Shows the difference of the rendered configuration.
    support: full
extends_documentation_fragment:
  - hermes.workers.deployment
  - hermes.workers.deployment.settings
"""

EXAMPLES = r"""
- name: Build the Worker
  hermes.workers.worker_bundle:
    settings: "{{ preflight_result.settings }}"
"""

RETURN = r"""
version:
  description: Digest of the code and of the configuration; the Worker shows it in C(/api/health).
  returned: success
  type: str
  sample: 91ab03f7c2d4e560
config:
  description: Path of the rendered configuration.
  returned: success
  type: str
  sample: /home/me/.hermes/alice/build/config.capnp
"""

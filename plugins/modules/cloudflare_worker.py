# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action cloudflare_worker; the work is done in plugins/action/cloudflare_worker.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cloudflare_worker
short_description: Deploy a Worker on Cloudflare with its secrets
description:
  - Renders C(wrangler.toml) and has wrangler upload code, configuration and secrets as one version.
  - Secrets travel on the standard input of wrangler, the account's token in the environment of that one process.
  - Waits for requests under way before, and until the new version answers after.
attributes:
  diff_mode:
    description: Shows the configuration before and after; it holds no secret.
    support: full
options:
  planned:
    description:
      - Whether the plan says that this has to be done.
    type: bool
    default: false
  image:
    description:
      - The image by its digest in the account's registry.
    type: str
    default: ''
extends_documentation_fragment:
  - hermes.workers.deployment
  - hermes.workers.deployment.settings
  - hermes.workers.deployment.secrets
"""

EXAMPLES = r"""
- name: Deploy the Worker
  hermes.workers.cloudflare_worker:
    settings: "{{ preflight_result.settings }}"
    planned: true
    image: "{{ image_result.reference }}"
"""

RETURN = r"""
version:
  description: Version that marks code and configuration.
  returned: changed
  type: str
  sample: 91ab03f7c2d4e560
version_id:
  description: Cloudflare's id of the version.
  returned: changed, outside check mode
  type: str
  sample: 8b4656e9-a91f-4207-8912-2739fc7c09ee
"""

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action cloudflare_image; the work is done in plugins/action/cloudflare_image.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cloudflare_image
short_description: Find or push the image of Hermes in an account of Cloudflare
description:
  - Looks in the registry for the image of these sources; when it is there, nothing else happens.
  - Otherwise builds it in the container engine of this machine and pushes it.
  - The credentials for that live for minutes and never reach a file.
  - Deployments of an account share the image; only one of them builds it.
attributes:
  diff_mode:
    description: Changes nothing that a diff could show.
    support: none
options:
  planned:
    description:
      - Whether the plan says that this has to be done.
    type: bool
    default: false
extends_documentation_fragment:
  - hermes.workers.deployment
  - hermes.workers.deployment.settings
  - hermes.workers.deployment.secrets
"""

EXAMPLES = r"""
- name: Make sure that the image is in the registry
  hermes.workers.cloudflare_image:
    settings: "{{ preflight_result.settings }}"
    planned: true
"""

RETURN = r"""
reference:
  description: The image by its digest; empty when check mode would have to push it.
  returned: success
  type: str
  sample: registry.cloudflare.com/0123/hermes-workers@sha256:ab12
hermes_version:
  description: Release of Hermes in it.
  returned: success
  type: str
  sample: 0.19.0
"""

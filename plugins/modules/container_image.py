# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action container_image; the work is done in plugins/action/container_image.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_image
short_description: Build the image that containers run Hermes from
description:
  - Builds C(hermes-workers:DIGEST), named by the digest of its sources, in the container engine of this machine.
  - Speaks the API that Docker and Podman serve on a unix socket; no C(docker) command is needed.
  - The packages are installed from the hashed lock on the controller; the build itself uses no network.
  - Pulls the base image, for a build, and the image of the network sidecar when the engine lacks them.
  - Deployments that share an engine share the image; each claims it by a tag of its own.
attributes:
  diff_mode:
    description: Changes nothing that a diff could show.
    support: none
extends_documentation_fragment:
  - hermes.workers.deployment
  - hermes.workers.deployment.settings
"""

EXAMPLES = r"""
- name: Build the image of Hermes
  hermes.workers.container_image:
    settings: "{{ preflight_result.settings }}"
"""

RETURN = r"""
digest:
  description: Digest of the sources, which is the image's tag.
  returned: success
  type: str
  sample: 5e0f7a1c9b2d4e68
image:
  description: Name of the image.
  returned: success
  type: str
  sample: hermes-workers:5e0f7a1c9b2d4e68
hermes_version:
  description: Release of Hermes in it.
  returned: success
  type: str
  sample: 0.19.0
"""

#!/usr/bin/python
# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What images Cloudflare's registry has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_image_info
short_description: Tell about the images in Cloudflare's registry
description:
  - Lists the repositories of the account's registry with their tags and digests.
options:
  repository:
    description:
      - Name of the one repository to tell about.
    type: str
extends_documentation_fragment:
  - hermes.workers.cloudflare
  - hermes.workers.cloudflare.action_group
  - hermes.workers.cloudflare.info
"""

EXAMPLES = r"""
- name: Ask for the digest of an image
  hermes.workers.registry_image_info:
    repository: hermes-workers
  register: found
"""

RETURN = r"""
images:
  description: One entry for each tag.
  returned: success
  type: list
  elements: dict
  contains:
    repository:
      description: Name of the repository, without registry and account.
      type: str
    tag:
      description: The tag.
      type: str
    reference:
      description: The reference by which a Worker names the image.
      type: str
  sample:
    - repository: hermes-workers
      tag: 5e0f7a1c9b2d4e68
      reference: registry.cloudflare.com/0123456789abcdef0123456789abcdef/hermes-workers@sha256:8d38779d
failure:
  description: What Cloudflare refused, or the module itself.
  returned: failed
  type: dict
  contains:
    code:
      description: Code of Cloudflare, or the name of a reason.
      type: raw
    message:
      description: The reason in one line.
      type: str
    details:
      description: Status, codes, call, and what to do about it.
      type: dict
  sample: {code: 10007, message: "Cloudflare answers: This Worker does not exist on your account. (code 10007)"}
"""

from typing import Any, ClassVar

from ..module_utils.cloudflare.module import CloudflareModule
from ..module_utils.cloudflare.registry import Registry


class RegistryImageInfo(CloudflareModule):
    """Facts about images."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = {"repository": {"type": "str"}}

    def execute(self) -> None:
        """Read the catalogue, and the digest of each tag."""
        registry = Registry(self.api)
        wanted = self.options["repository"]
        self.result["images"] = [
            {
                "repository": repository,
                "tag": tag,
                "reference": registry.reference(repository, registry.digest(repository, tag)),
            }
            for repository, tags in registry.repositories().items()
            if wanted in (None, repository)
            for tag in tags
        ]


def main() -> None:
    """Run the module."""
    RegistryImageInfo.main()


if __name__ == "__main__":
    main()

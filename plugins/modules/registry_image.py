#!/usr/bin/python
# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image in Cloudflare's registry."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_image
short_description: Remove images from Cloudflare's registry
description:
  - Deletes tags of a repository in the account's registry, and frees the space of their layers.
  - An image that a container application names, or a version of any Worker's latest deployments, is never deleted.
  - Images get there by M(hermes.workers.container_image), C(docker push) or C(wrangler containers push).
options:
  repository:
    description:
      - Name of the repository, without registry and account.
    type: str
    required: true
  tag:
    description:
      - The tag to delete, with O(state=absent).
    type: str
  keep:
    description:
      - Tags that stay in any case, with O(state=pruned).
    type: list
    elements: str
    default: []
  state:
    description:
      - With V(absent), O(tag) is not there; it is an error if the image is in use.
      - With V(pruned), only images in use and O(keep) are there.
    type: str
    choices: [absent, pruned]
    default: absent
extends_documentation_fragment:
  - hermes.workers.cloudflare
  - hermes.workers.cloudflare.action_group
  - hermes.workers.cloudflare.changes
"""

EXAMPLES = r"""
- name: Delete the images that nothing uses
  hermes.workers.registry_image:
    repository: hermes-workers
    state: pruned
"""

RETURN = r"""
deleted:
  description: The tags that were deleted.
  returned: success
  type: list
  elements: str
  sample: [5e0f7a1c9b2d4e68]
kept:
  description: The tags that are still there.
  returned: success
  type: list
  elements: str
  sample: [91ab03f7c2d4e560]
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

from ..module_utils.cloudflare import containers
from ..module_utils.cloudflare.module import CloudflareModule, Refused
from ..module_utils.cloudflare.registry import Registry


class RegistryImage(CloudflareModule):
    """The tags of one repository."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = {
        "repository": {"type": "str", "required": True},
        "tag": {"type": "str"},
        "keep": {"type": "list", "elements": "str", "default": []},
        "state": {"type": "str", "choices": ["absent", "pruned"], "default": "absent"},
    }
    RULES: ClassVar[dict[str, Any]] = {"required_if": [("state", "absent", ("tag",))]}

    def execute(self) -> None:
        """Look which tags are there and in use, then delete the others."""
        self.repository = self.options["repository"]
        self.registry = Registry(self.api, ("pull",) if self.check_mode else ("pull", "push"))
        tags = self.registry.repositories().get(self.repository, [])
        unwanted = self._unwanted(tags)
        named = containers.images_in_use(self.api) if unwanted else set()
        used = self.registry.used(self.repository, unwanted, named)
        if used and self.options["state"] == "absent":
            raise Refused(
                "in_use",
                f"{self.repository}:{self.options['tag']}: a Worker or a container application still"
                " names this image. Deploy those with another one first.",
            )
        deleted = sorted(set(unwanted) - used)
        self.result = {"deleted": deleted, "kept": sorted(set(tags) - set(deleted))}
        self.differences.add("tags", sorted(tags), self.result["kept"])
        if deleted and not self.check_mode:
            for tag in deleted:
                self.registry.delete(self.repository, tag)
            self.registry.collect()

    def _unwanted(self, tags: list[str]) -> list[str]:
        if self.options["state"] == "absent":
            return [tag for tag in tags if tag == self.options["tag"]]
        return [tag for tag in tags if tag not in self.options["keep"]]


def main() -> None:
    """Run the module."""
    RegistryImage.main()


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The secrets of a Worker."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_secrets
short_description: Bring the secrets of a Worker on Cloudflare to what is declared
description:
  - Cloudflare never tells the value of a secret, so the Worker itself proves what it holds - it answers the HMAC of
    each value under a fresh nonce, and the module compares. Nothing is stored for that, and a change made by hand is
    seen.
  - All changes go out in one call and make one new version, which restarts the Worker's Durable Objects.
  - A Worker that does not exist is an error, not made as an empty stub.
options:
  name:
    description:
      - Name of the Worker.
    type: str
    required: true
  secrets:
    description:
      - Value of each secret by its name; an empty value (V(null)) deletes the secret.
      - Values are never shown, logged or returned.
    type: dict
    required: true
  purge:
    description:
      - Whether secrets that O(secrets) does not name are deleted.
    type: bool
    default: false
  update:
    description:
      - When secrets are written that the Worker already has.
      - With V(on_change), those that differ; those that cannot be compared count as changed, with a warning.
      - With V(always), all of them; with V(on_create), none.
    type: str
    choices: [on_change, always, on_create]
    default: on_change
  url:
    description:
      - Address of the Worker, to ask it for proofs. Needed by O(update=on_change) to see that nothing differs.
    type: str
  worker_token:
    description:
      - The Worker's own API token, for the same purpose.
    type: str
extends_documentation_fragment:
  - hermes.workers.cloudflare
  - hermes.workers.cloudflare.action_group
  - hermes.workers.cloudflare.changes
"""

EXAMPLES = r"""
- name: Set the provider's key
  hermes.workers.worker_secrets:
    name: alice
    secrets:
      ANTHROPIC_API_KEY: "{{ vaulted_anthropic_api_key }}"
    url: https://alice.example.workers.dev
    worker_token: "{{ lookup('file', '.hermes/alice/api_token') }}"
  no_log: true

- name: Delete one secret
  hermes.workers.worker_secrets:
    name: alice
    secrets:
      OPENAI_API_KEY: null
"""

RETURN = r"""
created:
  description: Names of the secrets that the Worker did not have.
  returned: success
  type: list
  elements: str
  sample: [OPENAI_API_KEY]
updated:
  description: Names of the secrets that got another value.
  returned: success
  type: list
  elements: str
  sample: [ANTHROPIC_API_KEY]
deleted:
  description: Names of the secrets that were deleted.
  returned: success
  type: list
  elements: str
  sample: []
unproved:
  description: Names among RV(updated) that could not be compared.
  returned: success
  type: list
  elements: str
  sample: []
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

import re
from typing import Any, ClassVar

from ..module_utils.cloudflare import secrets
from ..module_utils.cloudflare.client import CloudflareError
from ..module_utils.cloudflare.module import CloudflareModule, Refused

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


class WorkerSecrets(CloudflareModule):
    """The secrets of one Worker."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = {
        "name": {"type": "str", "required": True},
        "secrets": {"type": "dict", "required": True, "no_log": True},
        "purge": {"type": "bool", "default": False},
        "update": {
            "type": "str",
            "choices": ["on_change", "always", "on_create"],
            "default": "on_change",
        },
        "url": {"type": "str"},
        "worker_token": {"type": "str", "no_log": True},
    }
    RULES: ClassVar[dict[str, Any]] = {"required_together": [("url", "worker_token")]}

    def execute(self) -> None:
        """Compare by name and by proof, then write what differs in one call."""
        wanted, unwanted = self._declared()
        present = self._present()
        created = sorted(wanted.keys() - present)
        updated, unproved = self._updated(wanted, present)
        if self.options["purge"]:
            unwanted |= present - wanted.keys()
        deleted = sorted(unwanted & present)
        self.result = {"created": created, "updated": updated, "deleted": deleted}
        self.result["unproved"] = unproved
        self._note(created, updated, deleted)
        changes = {name: wanted[name] for name in created + updated} | dict.fromkeys(deleted)
        if changes and not self.check_mode:
            secrets.write(self.api, self.options["name"], changes)

    def _declared(self) -> tuple[dict[str, str], set[str]]:
        """Return the values to have and the names to be without. Raises Refused."""
        wanted, unwanted = {}, set()
        for name, value in self.options["secrets"].items():
            if not NAME.fullmatch(str(name)):
                raise Refused("bad_name", f"secrets: {name!r} cannot name a secret.")
            if value is None:
                unwanted.add(name)
            elif isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
                wanted[name] = str(value)
            else:
                what = f"secrets.{name} is empty or no text (the value is not shown)"
                raise Refused("bad_value", f"{what}. Set it as text, or to null to delete it.")
        return wanted, unwanted

    def _present(self) -> set[str]:
        try:
            return secrets.names(self.api, self.options["name"])
        except CloudflareError as error:
            if not error.missing:
                raise
            message = (
                f"there is no Worker {self.options['name']} on this account. Deploy it first:"
                " a secret for a missing Worker would make an empty one."
            )
            raise Refused("no_worker", message, **error.failure()["details"]) from None

    def _updated(self, wanted: dict[str, str], present: set[str]) -> tuple[list[str], list[str]]:
        """Return the names to write again, and those among them that could not be compared."""
        there = {name: value for name, value in wanted.items() if name in present}
        if self.options["update"] == "on_create" or not there:
            return [], []
        if self.options["update"] == "always":
            return sorted(there), []
        nonce = secrets.nonce()
        proven, reason = self._proofs(nonce)
        updated, unproved = secrets.outdated(there, present, proven, nonce)
        if unproved:
            self.module.warn(
                f"{', '.join(unproved)}: counted as changed, because {reason or 'it proves none of that name'}."
            )
        return updated, unproved

    def _proofs(self, nonce: str) -> tuple[dict[str, str], str]:
        """Return the Worker's proofs, and why there are none."""
        url = self.options["url"]
        if not url:
            return {}, "without url and worker_token the Worker cannot be asked for proofs"
        try:
            return secrets.proofs(url, self.options["worker_token"], nonce), ""
        except secrets.Unproved as error:
            return {}, f"the Worker at {url} proves nothing: {error}"

    def _note(self, created: list[str], updated: list[str], deleted: list[str]) -> None:
        for name in created:
            self.differences.add(name, None, "set")
        for name in updated:
            self.differences.add(name, "another value", "set")
        for name in deleted:
            self.differences.add(name, "set", None)


def main() -> None:
    """Run the module."""
    WorkerSecrets.main()


if __name__ == "__main__":
    main()

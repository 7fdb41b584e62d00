#!/usr/bin/python
# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A route of a zone that leads to a Worker."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_route
short_description: Lead the requests of a pattern of addresses to a Worker
description:
  - Makes, changes or removes a route of a zone on Cloudflare.
  - A route gets requests only where a DNS record with Cloudflare's proxy exists for the hostname, see
    M(hermes.workers.dns_record).
  - A route of the same pattern that leads elsewhere is left alone unless O(take_over) allows it.
options:
  pattern:
    description:
      - Hostname and path, with V(*) at the ends only.
    type: str
    required: true
  worker:
    description:
      - Name of the Worker.
    type: str
    required: true
  state:
    description:
      - With V(present), the route leads to the Worker.
      - With V(absent), it does not; a route of the pattern that leads elsewhere stays.
    type: str
    choices: [present, absent]
    default: present
  take_over:
    description:
      - Whether a route of the same pattern that leads elsewhere may be changed.
    type: bool
    default: false
extends_documentation_fragment:
  - hermes.workers.cloudflare
  - hermes.workers.cloudflare.zone
  - hermes.workers.cloudflare.action_group
  - hermes.workers.cloudflare.changes
"""

EXAMPLES = r"""
- name: Serve a hostname by a route
  hermes.workers.worker_route:
    pattern: hermes.example.com/*
    worker: alice
"""

RETURN = r"""
route:
  description: The route as Cloudflare has it; without RV(ignore:id) where it is only predicted.
  returned: O(state=present)
  type: dict
  sample: {id: e7a57d8746e74ae49c25994dadb421b1, pattern: "hermes.example.com/*", script: alice}
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

from ..module_utils.cloudflare import routes
from ..module_utils.cloudflare.module import CloudflareModule, Refused


class WorkerRoute(CloudflareModule):
    """One route of one Worker."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = {
        "pattern": {"type": "str", "required": True},
        "worker": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "take_over": {"type": "bool", "default": False},
        "zone": {"type": "str"},
    }

    def execute(self) -> None:
        """Look where the pattern leads, then make, change or remove its route."""
        self.pattern, self.worker = self.options["pattern"], self.options["worker"]
        self.zone_id = self.zone_of(_hostname(self.pattern))["id"]
        route = routes.find(self.api, self.zone_id, self.pattern)
        if self.options["state"] == "absent":
            self._absent(route)
        elif route and route.get("script") == self.worker:
            self.result["route"] = route
        else:
            self._lead(route)

    def _lead(self, route: dict[str, Any] | None) -> None:
        before = _leads_to(route) if route else None
        if route and not self.options["take_over"]:
            raise Refused(
                "other_worker",
                f"{self.pattern}: the route of this pattern leads to {before}. Choose another pattern,"
                " or set take_over to change it.",
                worker=before,
            )
        self.differences.add("worker", before, self.worker)
        self.result["route"] = {"pattern": self.pattern, "script": self.worker}
        if self.check_mode:
            return
        if route is None:
            made = routes.create(self.api, self.zone_id, self.pattern, self.worker)
        else:
            made = routes.update(self.api, self.zone_id, route["id"], self.pattern, self.worker)
        self.result["route"] |= made or {}

    def _absent(self, route: dict[str, Any] | None) -> None:
        if route is None or route.get("script") != self.worker:
            return
        self.differences.add("worker", self.worker, None)
        if not self.check_mode:
            routes.delete(self.api, self.zone_id, route["id"])


def _hostname(pattern: str) -> str:
    """Return the hostname of a pattern, without the wildcard it may begin with."""
    return pattern.split("://")[-1].split("/")[0].lstrip("*").lstrip(".")


def _leads_to(route: dict[str, Any]) -> str:
    return route.get("script") or "no Worker"


def main() -> None:
    """Run the module."""
    WorkerRoute.main()


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hostname that leads to a Worker."""

from __future__ import annotations

DOCUMENTATION = r"""
module: worker_domain
short_description: Let a Worker serve a hostname as a custom domain
description:
  - Attaches a hostname of a zone on Cloudflare to a Worker, or detaches it. Cloudflare makes the DNS record and the
    certificate for it, and removes them with it.
  - A hostname that belongs to another Worker, or that has DNS records, is left alone unless O(take_over) allows it.
options:
  hostname:
    description:
      - The hostname.
    type: str
    required: true
  worker:
    description:
      - Name of the Worker.
    type: str
    required: true
  state:
    description:
      - With V(present), the Worker serves the hostname.
      - With V(absent), it does not; a hostname that another Worker serves stays.
    type: str
    choices: [present, absent]
    default: present
  take_over:
    description:
      - Whether the hostname may be taken from another Worker, and DNS records of its name be deleted for it.
    type: bool
    default: false
extends_documentation_fragment:
  - hermes.workers.cloudflare
  - hermes.workers.cloudflare.zone
  - hermes.workers.cloudflare.action_group
  - hermes.workers.cloudflare.changes
"""

EXAMPLES = r"""
- name: Serve a hostname
  hermes.workers.worker_domain:
    hostname: hermes.example.com
    worker: alice
"""

RETURN = r"""
domain:
  description: The custom domain as Cloudflare has it; without RV(ignore:id) where it is only predicted.
  returned: O(state=present)
  type: dict
  sample: {id: 7634cb0509bc47b2bf20bd0567bb9d59, hostname: hermes.example.com, service: alice}
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

from ..module_utils.cloudflare import dns, domains
from ..module_utils.cloudflare.module import CloudflareModule, Refused


class WorkerDomain(CloudflareModule):
    """One hostname of one Worker."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = {
        "hostname": {"type": "str", "required": True},
        "worker": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "take_over": {"type": "bool", "default": False},
        "zone": {"type": "str"},
    }

    def execute(self) -> None:
        """Look whose the hostname is, then attach or detach it."""
        self.hostname = self.options["hostname"].rstrip(".").lower()
        self.worker = self.options["worker"]
        domain = domains.find(self.api, self.hostname)
        if self.options["state"] == "absent":
            self._absent(domain)
        elif domain and domain["service"] == self.worker:
            self.result["domain"] = domain
        else:
            self._attach(domain)

    def _attach(self, domain: dict[str, Any] | None) -> None:
        if domain and not self.options["take_over"]:
            raise Refused(
                "other_worker",
                f'{self.hostname}: belongs to Worker "{domain["service"]}". Choose another hostname,'
                " or set take_over to take it from that Worker.",
                worker=domain["service"],
            )
        zone = self.zone_of(self.hostname)
        in_the_way = [] if domain else self._records(zone["id"])
        self.differences.add("worker", domain and domain["service"], self.worker)
        self.differences.add("records", [_short(one) for one in in_the_way], [])
        self.result["domain"] = {"hostname": self.hostname, "service": self.worker}
        if self.check_mode:
            return
        take_over = self.options["take_over"]
        self.result["domain"] = domains.attach_over(
            self.api, self.hostname, self.worker, zone["id"], in_the_way, take_over=take_over
        )

    def _records(self, zone_id: str) -> list[dict[str, Any]]:
        """Return the records that a custom domain would replace. Raises Refused when they must stay."""
        found = dns.listing(self.api, zone_id, self.hostname)
        found = [one for one in found if one["type"] in dns.EXCLUSIVE]
        if found and not self.options["take_over"]:
            raise Refused(
                "record_exists",
                f"{self.hostname}: has DNS records ({', '.join(map(_short, found))}). Remove them,"
                " choose another hostname, or set take_over to have them replaced.",
                records=[_short(one) for one in found],
            )
        return found

    def _absent(self, domain: dict[str, Any] | None) -> None:
        if domain is None or domain["service"] != self.worker:
            return
        self.differences.add("worker", self.worker, None)
        if not self.check_mode:
            domains.detach(self.api, domain["id"])


def _short(record: dict[str, Any]) -> str:
    return f"{record['type']} {record['content']}"


def main() -> None:
    """Run the module."""
    WorkerDomain.main()


if __name__ == "__main__":
    main()

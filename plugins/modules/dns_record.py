#!/usr/bin/python
# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A DNS record of a zone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dns_record
short_description: Keep a DNS record in a zone on Cloudflare
description:
  - Makes or removes one record.
  - A record that is in the way and not equal is never changed unless O(take_over) allows it. In the way of an A, AAAA
    or CNAME record is each of these types of the same name; of any other record, one with the same content.
options:
  name:
    description:
      - Full name of the record.
    type: str
    required: true
  type:
    description:
      - Type of the record.
    type: str
    choices: [A, AAAA, CNAME, TXT]
    default: AAAA
  content:
    description:
      - Content of the record.
      - The default leads nowhere; with O(proxied=true) that is what a route of a Worker needs.
    type: str
    default: '100::'
  proxied:
    description:
      - Whether requests go through Cloudflare; not for TXT records.
    type: bool
    default: true
  ttl:
    description:
      - Seconds that resolvers may keep the record; V(1) leaves it to Cloudflare.
      - Always V(1) where O(proxied=true).
    type: int
    default: 1
  comment:
    description:
      - Comment for people who see the record in the dashboard.
    type: str
  state:
    description:
      - With V(present), the record is there.
      - With V(absent), no record of this name, type and content is.
    type: str
    choices: [present, absent]
    default: present
  take_over:
    description:
      - Whether a record that is in the way may be changed, and further ones removed.
    type: bool
    default: false
extends_documentation_fragment:
  - hermes.workers.cloudflare
  - hermes.workers.cloudflare.zone
  - hermes.workers.cloudflare.action_group
  - hermes.workers.cloudflare.changes
"""

EXAMPLES = r"""
- name: Give the route of a Worker its requests
  hermes.workers.dns_record:
    name: hermes.example.com
"""

RETURN = r"""
record:
  description: The record as Cloudflare has it; without RV(ignore:id) where it is only predicted.
  returned: O(state=present)
  type: dict
  sample: {id: 372e67954025e0ba6aaa6d586b9e0b59, type: AAAA, name: hermes.example.com, content: "100::"}
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

from ..module_utils.cloudflare import dns
from ..module_utils.cloudflare.module import CloudflareModule, Refused


class DnsRecord(CloudflareModule):
    """One record."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = {
        "name": {"type": "str", "required": True},
        "type": {"type": "str", "choices": ["A", "AAAA", "CNAME", "TXT"], "default": "AAAA"},
        "content": {"type": "str", "default": "100::"},
        "proxied": {"type": "bool", "default": True},
        "ttl": {"type": "int", "default": 1},
        "comment": {"type": "str"},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "take_over": {"type": "bool", "default": False},
        "zone": {"type": "str"},
    }

    def execute(self) -> None:
        """Look what the name has, then make, change or remove the record."""
        wanted = self._wanted()
        self.zone_id = self.zone_of(wanted["name"])["id"]
        found = dns.listing(self.api, self.zone_id, wanted["name"])
        same = [one for one in found if _identity(one) == _identity(wanted)]
        equal = next((one for one in same if dns.equal(one, wanted)), None)
        if self.options["state"] == "absent":
            self._absent(same)
        elif equal:
            self.result["record"] = equal
        else:
            exclusive = wanted["type"] in dns.EXCLUSIVE
            in_the_way = (
                [one for one in found if one["type"] in dns.EXCLUSIVE] if exclusive else same
            )
            self._make(wanted, in_the_way)

    def _wanted(self) -> dict[str, Any]:
        fields = ("name", "type", "content", "ttl", "comment")
        wanted = {name: self.options[name] for name in fields if self.options[name] is not None}
        wanted["proxied"] = self.options["proxied"] and wanted["type"] != "TXT"
        return dns.normal(wanted, wanted)

    def _make(self, wanted: dict[str, Any], in_the_way: list[dict[str, Any]]) -> None:
        if in_the_way and not self.options["take_over"]:
            shown = [f"{one['type']} {one['content']}" for one in in_the_way]
            raise Refused(
                "record_exists",
                f"{wanted['name']}: has another record ({', '.join(shown)}). Remove it, choose another"
                " name, or set take_over to have it changed.",
                records=shown,
            )
        first = in_the_way[0] if in_the_way else None
        rest = in_the_way[1:]
        before = dns.normal(first, wanted) if first else {}
        for field, value in wanted.items():
            self.differences.add(field, before.get(field), value)
        self.differences.add("further records", [one["content"] for one in rest], [])
        self.result["record"] = wanted
        if not self.check_mode:
            self._write(wanted, first, rest)

    def _write(
        self, wanted: dict[str, Any], first: dict[str, Any] | None, rest: list[dict[str, Any]]
    ) -> None:
        for record in rest:
            dns.delete(self.api, self.zone_id, record["id"])
        if first is None:
            self.result["record"] = dns.create(self.api, self.zone_id, wanted)
        else:
            self.result["record"] = dns.update(self.api, self.zone_id, first["id"], wanted)

    def _absent(self, records: list[dict[str, Any]]) -> None:
        for record in records:
            self.differences.add("content", record["content"], None)
            if not self.check_mode:
                dns.delete(self.api, self.zone_id, record["id"])


def _identity(record: dict[str, Any]) -> tuple[Any, ...]:
    fields = ("name", "type", "content")
    return tuple(dns.normal(record, dict.fromkeys(fields)).items())


def main() -> None:
    """Run the module."""
    DnsRecord.main()


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Rules of Email Routing: what is refused, and one whose answer was lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import email_routing
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import (
    Cloudflare,
    CloudflareError,
)

from tests.cloudflare import ControlPlane
from tests.cloudflare.accounts import Zone
from tests.cloudflare.uploading import upload

Make = Callable[..., Cloudflare]
ADDRESS = "hermes@example.com"


@pytest.fixture
def api(client: Make) -> Cloudflare:
    """A client of an account with one Worker, named box."""
    upload(client())
    return client()


@pytest.fixture
def zone(plane: ControlPlane) -> Zone:
    """The account's zone, which takes mails."""
    found = next(iter(plane.state.zones.values()))
    found.takes_mails = True
    return found


def test_a_rule_whose_answer_was_lost_is_made_once(
    api: Cloudflare, plane: ControlPlane, zone: Zone
) -> None:
    plane.faults.on("POST", "/email/routing/rules$", "cut-after")
    made = email_routing.create(api, zone.id, ADDRESS, "box", "ours")
    (rule,) = email_routing.listing(api, zone.id)
    assert rule == made
    assert (email_routing.address_of(rule), email_routing.worker_of(rule)) == (ADDRESS, "box")
    assert email_routing.delete(api, zone.id, rule["id"])
    assert not email_routing.delete(api, zone.id, rule["id"])


def test_what_cannot_be_routed_is_refused(api: Cloudflare, zone: Zone) -> None:
    for address, worker in (("hermes@example.org", "box"), (ADDRESS, "nobody")):
        with pytest.raises(CloudflareError):
            email_routing.create(api, zone.id, address, worker, "ours")
    zone.takes_mails = False
    with pytest.raises(CloudflareError):
        email_routing.create(api, zone.id, ADDRESS, "box", "ours")
    assert zone.mail_rules == []


def test_only_addresses_whose_owners_agreed_may_be_sent_to(
    api: Cloudflare, plane: ControlPlane
) -> None:
    account = next(iter(plane.state.accounts.values()))
    account.destinations |= {"Ann@x.test": "2026-01-01T00:00:00Z", "bob@x.test": None}
    assert email_routing.verified(api) == ["ann@x.test"]

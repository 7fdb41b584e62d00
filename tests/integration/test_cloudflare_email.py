# SPDX-License-Identifier: Apache-2.0
"""E-mail by Cloudflare's Email Routing: from an inventory to an answer in the thread of a mail, and back."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from clouds import ACCOUNT, TOKEN, Cloud, cloud, home_of
from plays import wait_until

from tests.cloudflare.accounts import PERMISSIONS, Zone, now

__all__ = ["cloud"]

ADDRESS = "hermes@example.com"
ANN, BOB = "ann@people.test", "bob@work.test"
EMAIL: dict[str, Any] = {"address": ADDRESS, "allow": [ANN, BOB]}
DECLARED = {"hermes_channels": {"email": EMAIL}}
PROVED = "dmarc=pass header.from={domain} policy.dmarc=none"


def mail(
    sender: str,
    body: str,
    name: str,
    *,
    results: str = PROVED,
    head: tuple[str, ...] = (),
) -> bytes:
    """A mail as Cloudflare's server took it. results: what it found out about its sender."""
    domain = sender.rpartition("@")[2]
    lines = [
        f"Received: from mx.{domain} (192.0.2.1)",
        "        by cloudflare-email.net (cloudflare) id x",
        f"        for <{ADDRESS}>; Sun, 14 Jun 2026 21:02:54 +0000",
        "Authentication-Results: mx.cloudflare.net;",
        f"\tdkim=pass header.d={domain} header.s=s header.b=b;",
        f"\t{results.format(domain=domain)};",
        f"\tspf=pass (mx.cloudflare.net: domain of {sender} designates it) smtp.mailfrom={sender}",
        f"From: A Person <{sender}>",
        f"To: {ADDRESS}",
        "Subject: Dinner",
        f"Message-ID: <{name}@{domain}>",
        *head,
        "",
        body,
    ]
    return "\r\n".join(lines).encode()


@pytest.fixture(scope="module")
def zone(cloud: Cloud) -> Zone:
    """The zone, which takes mails, and people who agreed to be sent to."""
    (found,) = cloud.plane.state.zones.values()
    found.takes_mails = True
    agreed: dict[str, str | None] = {ANN: now(), BOB: now()}
    cloud.plane.state.accounts[ACCOUNT].destinations.update(agreed)
    return found


@pytest.fixture(scope="module")
def deployed(cloud: Cloud, zone: Zone) -> str:
    """A deployment with an address."""
    play = cloud.deploy("mailed", **DECLARED)
    assert f"write to {ADDRESS}" in play.output
    return "mailed"


def leading(zone: Zone) -> list[tuple[str, bool, dict[str, Any]]]:
    """Whose mails of a zone go where."""
    return [
        (one["matchers"][0]["value"], one["enabled"], one["actions"][0]) for one in zone.mail_rules
    ]


def to_worker(name: str, address: str = ADDRESS) -> tuple[str, bool, dict[str, Any]]:
    return address, True, {"type": "worker", "value": [name]}


def answers(cloud: Cloud, count: int) -> list[dict[str, Any]]:
    """What the Worker sent, once it is so much."""
    sent = cloud.plane.edge.outbox.sent
    wait_until(lambda: len(sent) >= count, "so many answers", 300)
    return sent


def test_a_mail_wakes_hermes_and_is_answered_in_its_thread_once(
    cloud: Cloud, deployed: str, zone: Zone
) -> None:
    assert leading(zone) == [to_worker(deployed)]
    assert cloud.deployment(deployed).call("POST", "/api/instance/sleep?force=true").status == 200
    head = ("In-Reply-To: <zero@example.com>", "References: <zero@example.com>")
    one = mail(ANN, "Where shall we eat?\r\n", "one", head=head)
    assert cloud.plane.deliver(one, ANN, ADDRESS) == 250
    assert cloud.plane.deliver(one, ANN, ADDRESS) == 250, "what comes twice is taken"
    assert cloud.plane.deliver(mail(ANN, "And when?", "two"), ANN, ADDRESS) == 250
    first, second = answers(cloud, 2)
    assert first["to"] == second["to"] == ANN
    assert first["from"] == {"name": "Hermes", "email": ADDRESS}
    assert (first["subject"], second["subject"]) == ("Re: Dinner", "Re: Dinner")
    assert first["text"] and "html" not in first
    assert first["headers"] == {
        "Auto-Submitted": "auto-replied",
        "In-Reply-To": "<one@people.test>",
        "References": "<zero@example.com> <one@people.test>",
    }
    assert second["headers"]["In-Reply-To"] == "<two@people.test>", "one after the other"
    wait_until(lambda: told(cloud, deployed)["waiting"] == 0, "an end", 300)
    assert len(cloud.plane.edge.outbox.sent) == 2
    assert "email" in cloud.play("status", deployed).output


def test_a_file_comes_with_a_mail_and_goes_with_an_answer(cloud: Cloud, deployed: str) -> None:
    count, paper = len(cloud.plane.edge.outbox.sent), b"a paper of one's own"
    parts = [
        "--b",
        "Content-Type: text/plain",
        "",
        "Read this.",
        "--b",
        "Content-Type: text/plain",
        'Content-Disposition: attachment; filename="report.txt"',
        "Content-Transfer-Encoding: base64",
        "",
        base64.b64encode(paper).decode(),
        "--b--",
    ]
    head = ("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=b")
    letter = mail(ANN, "\r\n".join(parts), "with-a-file", head=head)
    assert cloud.plane.deliver(letter, ANN, ADDRESS) == 250
    # Its model says where the file is, which has Hermes send it.
    said, shown = answers(cloud, count + 2)[count:]
    (kept,) = home_of(cloud, deployed).rglob("*report.txt")
    assert kept.read_bytes() == paper
    assert "report.txt" in said["text"]
    assert "attachments" not in said
    (file,) = shown["attachments"]
    assert base64.b64decode(file["content"]) == paper
    assert file["filename"].endswith("report.txt")
    assert shown["headers"]["In-Reply-To"] == "<with-a-file@people.test>"
    wait_until(lambda: told(cloud, deployed)["waiting"] == 0, "an end", 300)


def told(cloud: Cloud, name: str) -> dict[str, Any]:
    """What the owner sees of the channel."""
    return dict(cloud.told(name, "instance/channels")["channels"]["email"])


def test_nobody_else_is_heard_or_wakes_anybody_or_is_told(cloud: Cloud, deployed: str) -> None:
    wait_until(lambda: told(cloud, deployed)["waiting"] == 0, "an end", 300)
    assert cloud.deployment(deployed).call("POST", "/api/instance/sleep?force=true").status == 200
    before = cloud.told(deployed, "instance/status")["boots"], told(cloud, deployed)["lastIn"]
    sent = len(cloud.plane.edge.outbox.sent)
    strangers = [
        ("eve@people.test", mail("eve@people.test", "hello", "e1")),
        (ANN, mail(ANN, "not mine", "e2", results="dmarc=fail header.from={domain}")),
        (ANN, mail(ANN, "nor this", "e3", results="dmarc=pass header.from=evil.test")),
        (ANN, mail(ANN, "I am away", "e4", head=("Auto-Submitted: auto-replied",))),
        (ANN, mail(ANN, "to all", "e5", head=("List-Id: <all.people.test>",))),
        ("", mail(ANN, "it came back", "e6")),
    ]
    for envelope, raw in strangers:
        assert cloud.plane.deliver(raw, envelope, ADDRESS) == 250, "and no bounce tells them"
    status = cloud.told(deployed, "instance/status")
    assert (status["state"], status["boots"]) == ("asleep", before[0])
    assert told(cloud, deployed)["lastIn"] == before[1]
    assert len(cloud.plane.edge.outbox.sent) == sent


def test_an_answer_that_cloudflare_does_not_take_yet_comes_later_and_once(
    cloud: Cloud, deployed: str
) -> None:
    outbox = cloud.plane.edge.outbox
    sent = len(outbox.sent)
    outbox.refusals += ["E_SENDER_NOT_VERIFIED"]
    assert cloud.plane.deliver(mail(BOB, "Hello", "later"), BOB, ADDRESS) == 250
    wait_until(lambda: not outbox.refusals, "a refusal to be met", 300)
    # What waits is Cloudflare's to take, not Hermes'.
    assert cloud.deployment(deployed).call("POST", "/api/instance/sleep?force=true").status == 200
    last = answers(cloud, sent + 1)[-1]
    assert (last["to"], last["headers"]["In-Reply-To"]) == (BOB, "<later@work.test>")
    assert len(outbox.sent) == sent + 1


def test_an_unchanged_deploy_writes_nothing_and_a_broken_rule_is_put_right(
    cloud: Cloud, deployed: str, zone: Zone
) -> None:
    start = len(cloud.plane.calls)
    assert "No changes. 0 calls written." in cloud.deploy(deployed, **DECLARED).output
    assert cloud.writes(start) == []
    zone.mail_rules[0]["enabled"] = False
    check = cloud.play("deploy", deployed, "--check", **DECLARED)
    assert re.search(rf"update +routes +rule that hands mails to {ADDRESS}", check.output)
    assert cloud.plane.writes(start) == []
    cloud.deploy(deployed, **DECLARED)
    assert leading(zone) == [to_worker(deployed)]


def bound(cloud: Cloud, name: str) -> list[tuple[str, list[str], list[str]]]:
    """By what a Worker sends mails, to whom, and as whom."""
    return [
        (one["name"], one["allowed_destination_addresses"], one["allowed_sender_addresses"])
        for one in cloud.worker(name).current.bindings
        if one["type"] == "send_email"
    ]


def test_the_binding_sends_to_those_who_may_write_alone_and_goes_with_the_channel(
    cloud: Cloud, deployed: str, zone: Zone
) -> None:
    """By wrangler and by plain calls."""
    assert bound(cloud, deployed) == [("EMAIL", [ANN, BOB], [ADDRESS])]
    plain = {"hermes_uploader": "plain"}
    email = {"address": "Plain@Example.com", "allow": [ANN.upper()]}
    cloud.deploy("plain", hermes_channels={"email": email}, **plain)
    assert bound(cloud, "plain") == [("EMAIL", [ANN], ["plain@example.com"])]
    assert to_worker("plain", "plain@example.com") in leading(zone)
    cloud.deploy("plain", **plain)
    assert bound(cloud, "plain") == []
    assert to_worker("plain", "plain@example.com") not in leading(zone)
    assert not [tag for tag in cloud.worker("plain").tags if "@" in tag]


@pytest.fixture
def spoilt(cloud: Cloud, zone: Zone) -> Iterator[Zone]:
    """The zone, to be spoilt for one test."""
    account = cloud.plane.state.accounts[ACCOUNT]
    before = zone.takes_mails, zone.mail_status, list(zone.mail_rules), dict(account.destinations)
    token = cloud.plane.state.token(TOKEN)
    assert token is not None
    yield zone
    zone.takes_mails, zone.mail_status, zone.mail_rules = before[0], before[1], before[2]
    account.destinations.clear()
    account.destinations.update(before[3])
    token.permissions = set(PERMISSIONS)


def off(cloud: Cloud, zone: Zone) -> None:
    zone.takes_mails = False


def misconfigured(cloud: Cloud, zone: Zone) -> None:
    zone.mail_status = "misconfigured"


def unverified(cloud: Cloud, zone: Zone) -> None:
    cloud.plane.state.accounts[ACCOUNT].destinations[ANN] = None


def unknown(cloud: Cloud, zone: Zone) -> None:
    del cloud.plane.state.accounts[ACCOUNT].destinations[ANN]


def anothers(cloud: Cloud, zone: Zone) -> None:
    matcher = {"type": "literal", "field": "to", "value": "new@example.com"}
    action = {"type": "forward", "value": [BOB]}
    zone.mail_rules.append(
        {
            "id": "f" * 32,
            "name": "Mine",
            "enabled": True,
            "matchers": [matcher],
            "actions": [action],
        }
    )


def without(permission: str) -> Callable[[Cloud, Zone], None]:
    def change(cloud: Cloud, zone: Zone) -> None:
        token = cloud.plane.state.token(TOKEN)
        assert token is not None
        token.permissions = set(PERMISSIONS) - {permission}

    return change


NEW = {"address": "new@example.com", "allow": [ANN]}


@pytest.mark.parametrize(
    ("spoils", "email", "said"),
    [
        (off, NEW, "Email Routing is not enabled for example.com"),
        (misconfigured, NEW, "Email Routing is misconfigured for example.com"),
        (unverified, NEW, f"Cloudflare may not send to {ANN}"),
        (unknown, NEW, f"Cloudflare may not send to {ANN}"),
        (anothers, NEW, 'mails to new@example.com have a rule already, "Mine": forward'),
        (None, NEW | {"address": "new@example.org"}, "lies in no zone of this account"),
        (without("Email Routing Rules Write"), NEW, "Email Routing Rules: Edit"),
        (without("Email Routing Addresses Read"), NEW, "Email Routing Addresses: Read"),
        (without("Zone Settings Read"), NEW, "Zone Settings: Read"),
        (without("Zone Read"), NEW, "lacks the permission Zone: Read"),
    ],
)
def test_what_stands_against_it_is_said_before_anything_is_changed(
    cloud: Cloud,
    spoilt: Zone,
    spoils: Callable[[Cloud, Zone], None] | None,
    email: dict[str, Any],
    said: str,
) -> None:
    if spoils:
        spoils(cloud, spoilt)
    start, rules = len(cloud.plane.calls), leading(spoilt)
    play = cloud.play("deploy", "refused", hermes_channels={"email": email})
    assert play.code != 0
    assert said in re.sub(r"\s+", " ", play.output), play.output
    assert "Nothing was changed." in play.output
    assert cloud.plane.writes(start) == []
    assert leading(spoilt) == rules and not (cloud.home / "refused").exists()


def test_a_rotation_tells_that_whom_mails_are_sent_to_is_a_deploys(
    cloud: Cloud, deployed: str
) -> None:
    fewer = {"hermes_channels": {"email": EMAIL | {"allow": [ANN]}}}
    play = cloud.play("rotate_keys", deployed, "-e", "hermes_keys=channels", **fewer)
    assert play.code == 0, play.output
    assert bound(cloud, deployed) == [("EMAIL", [ANN, BOB], [ADDRESS])]
    assert re.search(r"left +more than keys differs from the inventory: run .*deploy", play.output)
    cloud.deploy(deployed, **fewer)
    assert bound(cloud, deployed) == [("EMAIL", [ANN], [ADDRESS])]
    play = cloud.play("rotate_keys", deployed, "-e", "hermes_keys=channels", **fewer)
    assert re.search(r"left +nothing", play.output)


def test_a_destroyed_deployment_gets_no_mails(cloud: Cloud, deployed: str, zone: Zone) -> None:
    play = cloud.play("destroy", deployed, "-e", "hermes_confirm=yes", **DECLARED)
    assert play.code == 0, play.output
    assert f"rule of Email Routing for {ADDRESS}" in play.output
    assert to_worker(deployed) not in leading(zone)
    assert cloud.plane.deliver(mail(ANN, "hello", "gone"), ANN, ADDRESS) == 550

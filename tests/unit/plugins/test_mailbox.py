# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A deployment's mail address at Cloudflare: what is planned, what stands against it, and that others' rules stay."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare import mailbox
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.account import Account
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.hostname import tag_problems
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.upload import metadata
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.wrangler_config import (
    render,
)

OURS = ["hermes.workers", "hermes.workers:alice"]
NEW, OLD = "hermes@example.com", "old@example.com"
NOTED = [*OURS, f"hermes.workers.mail:{OLD}"]


def rule(address: str, worker: str = "alice", **more: Any) -> dict[str, Any]:
    """A rule as an account's survey has it."""
    made = {"id": f"id of {address}", "name": "Mine", "address": address, "worker": worker}
    return made | {"action": "worker" if worker else "forward", "enabled": True} | more


def account(*rules: dict[str, Any], **mail: Any) -> Account:
    """An account with a zone that takes mails."""
    zone = {"id": "z", "name": "example.com", "status": "active", "type": "full", "paused": False}
    told = {"enabled": True, "status": "ready", "rules": list(rules)} | mail
    return Account(zones=[zone], mail={"z": told}, mail_verified=["ann@x.test"])


def settings(address: str = NEW, *people: str) -> Settings:
    return Settings(
        name="alice",
        platform="cloudflare",
        engine="cloudflare",
        mail_address=address,
        mail_people=list(people or ["ann@x.test"]),
    )


@dataclass
class Api:
    """Notes what it is asked to change."""

    asked: list[tuple[str, ...]] = field(default_factory=list)

    def account(self, path: str) -> str:
        return f"/{path}"

    def post(self, path: str, body: dict[str, Any]) -> Any:
        self.asked.append(
            ("POST", path, body["matchers"][0]["value"], body["actions"][0]["value"][0])
        )

    def put(self, path: str, body: dict[str, Any]) -> Any:
        self.asked.append(("PUT", path, body["matchers"][0]["value"], str(body["enabled"])))

    def delete(self, path: str) -> bool:
        self.asked.append(("DELETE", path))
        return True

    def patch(self, path: str, body: dict[str, Any], **_: Any) -> Any:
        self.asked.append(("tags", *(tag for tag in body["tags"] if "@" in tag)))


RULES = "/zones/z/email/routing/rules"


@pytest.mark.parametrize(
    ("wanted", "there", "tags", "planned", "asked"),
    [
        (
            NEW,
            [],
            OURS,
            ["create"],
            [("tags", f"hermes.workers.mail:{NEW}"), ("POST", RULES, NEW, "alice")],
        ),
        (
            NEW,
            [rule(OLD)],
            NOTED,
            ["create", "delete"],
            [
                ("tags", f"hermes.workers.mail:{OLD}", f"hermes.workers.mail:{NEW}"),
                ("POST", RULES, NEW, "alice"),
                ("DELETE", f"{RULES}/id%20of%20old%40example.com"),
                ("tags", f"hermes.workers.mail:{NEW}"),
            ],
        ),
        (OLD, [rule(OLD)], NOTED, [], []),
        (
            OLD,
            [rule(OLD, enabled=False)],
            NOTED,
            ["update"],
            [("PUT", f"{RULES}/id%20of%20old%40example.com", OLD, "True")],
        ),
        (OLD, [rule(OLD)], OURS, ["update"], [("tags", f"hermes.workers.mail:{OLD}")]),
        (
            "",
            [rule(OLD), rule("info@example.com", "blog")],
            NOTED,
            ["delete"],
            [("DELETE", f"{RULES}/id%20of%20old%40example.com"), ("tags",)],
        ),
        # Somebody has led it elsewhere since.
        ("", [rule(OLD, "blog")], NOTED, ["delete"], [("tags",)]),
        ("", [], OURS, [], []),
    ],
)
def test_a_rule_comes_and_goes_with_its_address(
    wanted: str,
    there: list[dict[str, Any]],
    tags: list[str],
    planned: list[str],
    asked: list[tuple[str, ...]],
) -> None:
    it = settings(wanted)
    assert [one.action for one in mailbox.steps(it, account(*there), tags)] == planned
    api: Any = Api()
    mailbox.Mailbox(api, it, account(*there), tags, lambda _: None).settle()
    assert api.asked == asked


def said(it: Settings, found: Account) -> str:
    return " ".join(one.sentence for one in mailbox.problems(it, found))


def test_a_rule_of_somebody_else_is_left_alone() -> None:
    assert mailbox.problems(settings(), account(rule(NEW), rule("info@example.com", ""))) == []
    assert 'have a rule already, "Mine": forward' in said(settings(), account(rule(NEW, "")))
    assert 'Worker "blog"' in said(settings(), account(rule(NEW, "blog")))
    assert 'Worker "blog"' in said(settings(), account(rule(NEW), rule(NEW, "blog")))


def test_whom_cloudflare_may_not_send_to_is_said() -> None:
    (problem,) = mailbox.problems(settings(NEW, "ann@x.test", "bob@x.test"), account())
    assert problem.subject == "hermes_channels.email.allow"
    assert "bob@x.test" in problem.sentence and "ann@x.test" not in problem.sentence


def test_a_zone_that_takes_no_mails_is_said_and_a_subdomains_own_setting_is_not_known() -> None:
    assert "is not enabled for example.com" in said(settings(), account(enabled=False))
    assert "is misconfigured for" in said(settings(), account(status="misconfigured"))
    assert mailbox.problems(settings(), account(status="unlocked")) == []
    assert mailbox.problems(settings("a@sub.example.com"), account(enabled=False)) == []
    assert "lies in no zone" in said(settings("a@example.org"), account())
    assert mailbox.problems(settings(""), account(enabled=False)) == []


def test_an_address_needs_room_for_its_tag() -> None:
    """While one moves, both are noted."""
    owners = [f"own-{number}" for number in range(4)]
    assert tag_problems(settings(), [*NOTED, *owners]) == []
    (problem,) = tag_problems(settings(), [*NOTED, *owners, "own-4"])
    assert "has 5 tags of others, this deployment needs 4" in problem.sentence


def test_the_binding_sends_to_those_who_may_write_and_to_nobody_else() -> None:
    it = settings(NEW, "ann@x.test", "bob@x.test")
    limits = {
        "allowed_destination_addresses": ["ann@x.test", "bob@x.test"],
        "allowed_sender_addresses": [NEW],
    }
    (bound,) = (one for one in metadata(it, {}, {}, "", "")["bindings"] if one["name"] == "EMAIL")
    assert bound == {"name": "EMAIL", "type": "send_email", **limits}
    written = tomllib.loads(render(it, Sources(), "", ()).text)
    assert written["send_email"] == [{"name": "EMAIL", **limits}]
    bare = tomllib.loads(render(settings(""), Sources(), "", ()).text)
    assert "send_email" not in bare
    names = [one["name"] for one in metadata(settings(""), {}, {}, "", "")["bindings"]]
    assert "EMAIL" not in names
    versions = {told["vars"]["WORKER_VERSION"] for told in (written, bare)}
    assert len(versions) == 2, "who may be written to is part of the version"

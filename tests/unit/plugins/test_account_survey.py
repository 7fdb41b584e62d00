# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What a token lacks is named by the dashboard's words, against those deployments alone that need it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import client
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import (
    Cloudflare,
    CloudflareError,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare import account as accounts
from api_server import ApiServer, Call, Reply, ok, refused
from fake_account import ZONE, FakeAccount

NAME, MAIL = "a.example.com", "hermes@example.com"


def survey(api: Cloudflare) -> accounts.Account:
    """Ask as for two deployments: one with a hostname and one with a mail address."""
    return accounts.survey(api, [NAME], [MAIL])


def sentences(problems: list[dict[str, str]]) -> list[str]:
    return [one["sentence"] for one in problems]


def test_what_is_found_where_nothing_is_wrong(api: Cloudflare, account: FakeAccount) -> None:
    account.secrets["blog"] = {}
    account.applications = [{"id": "n", "name": "alice-hermes"}]
    account.domains["d"] = {"id": "d", "hostname": "B.example.com", "service": "blog"}
    account.domains["d"]["zone_id"] = ZONE
    account.routes["r"] = {"id": "r", "pattern": "c.example.com/*"}
    account.rules["m"] = {
        "id": "m",
        "matchers": [{"type": "literal", "value": "Info@example.com"}],
        "actions": [{"type": "forward", "value": ["ann@x.test"]}],
    }
    found = survey(api)
    assert found.problems == []
    assert found.problems_of(NAME) == found.problems_of_mail(MAIL) == []
    assert found.subdomain == "acme"
    assert found.ours == ["alice"]
    assert set(found.scripts) == {"alice", "blog"}
    assert found.applications == {"alice-hermes": "n"}
    assert found.domains == {"b.example.com": {"id": "d", "service": "blog", "zone_id": ZONE}}
    assert found.routes == {ZONE: [{"id": "r", "pattern": "c.example.com/*", "script": ""}]}
    assert found.mail[ZONE]["enabled"] is True
    (rule,) = found.mail[ZONE]["rules"]
    assert rule["address"] == "info@example.com"
    assert (rule["worker"], rule["action"], rule["enabled"]) == ("", "forward", True)
    assert found.mail_verified == ["ann@x.test"]


def test_nobody_asks_for_zones_and_mails_that_has_neither(
    api: Cloudflare, server: ApiServer
) -> None:
    found = accounts.survey(api, [])
    assert found.problems == []
    assert (found.zones, found.zone_problems, found.mail_problems) == ([], {}, {})
    assert not [call.path for call in server.calls if "/zones" in call.path or "mail" in call.path]


@pytest.mark.parametrize(
    ("denied", "against", "words"),
    [
        ({"all_scripts"}, "all", "lacks the permission Workers Scripts: Edit, to upload the"),
        ({"limits"}, "all", "Containers are refused"),
        ({"all_scripts", "limits"}, "all", "the token sees nothing of this account"),
        ({"list_zones"}, "both", "lacks the permission Zone: Read, to find the zone of a hostname"),
        ({"all_routes"}, "hostname", "Workers Routes: Edit, to see and set the routes of example"),
        ({"all_records"}, "hostname", "DNS: Edit, to see and make records of example.com"),
        ({"all_rules"}, "mail", "Email Routing Rules: Edit, to see and set the rules for mails of"),
        ({"mail_settings"}, "mail", "Zone Settings: Read, to see whether example.com takes mails"),
        ({"mail_addresses"}, "mail", "Email Routing Addresses: Read, to see to whom mails may be"),
    ],
)
def test_a_permission_that_is_missing_is_told_to_those_who_need_it(
    api: Cloudflare, account: FakeAccount, denied: set[str], against: str, words: str
) -> None:
    account.denied = denied
    found = survey(api)
    told = {
        "all": sentences(found.problems),
        "hostname": sentences(found.problems_of(NAME)),
        "mail": sentences(found.problems_of_mail(MAIL)),
    }
    concerned = ["hostname", "mail"] if against == "both" else [against]
    for whose, problems in told.items():
        assert [words in one for one in problems] == ([True] if whose in concerned else [])
    assert found.problems_of("") == found.problems_of_mail("") == []
    if against != "all":
        assert found.subdomain == "acme", "the others are gone on with"


def test_nobody_asks_for_mails_for_a_hostname(api: Cloudflare, server: ApiServer) -> None:
    found = accounts.survey(api, [NAME])
    assert found.routes == {ZONE: []}
    assert (found.mail, found.mail_problems) == ({}, {})
    assert not [call.path for call in server.calls if "email" in call.path]


def test_a_mail_address_alone_names_itself(api: Cloudflare, account: FakeAccount) -> None:
    account.denied = {"list_zones"}
    found = accounts.survey(api, [], [MAIL])
    (told,) = sentences(found.problems_of_mail(MAIL))
    assert "to find the zone of a mail address" in told
    assert found.zone_problems == {}


def test_a_permission_of_which_it_has_the_reading_half(
    api: Cloudflare, account: FakeAccount
) -> None:
    account.groups = [
        f"{one} Read" for one in ("Workers Scripts", "Workers Routes", "DNS", "Email Routing Rules")
    ]
    found = survey(api)
    half = "of which it has the reading half only"
    assert sentences(found.problems) == [f"lacks the permission Workers Scripts: Edit, {half}."]
    assert [half in one for one in sentences(found.problems_of(NAME))] == [True, True]
    assert sentences(found.problems_of_mail(MAIL)) == [
        f"lacks the permission Email Routing Rules: Edit, {half}."
    ]
    assert found.subdomain == "", "what is no use to anybody is not read"


@pytest.mark.parametrize("status", ["disabled", "expired"])
def test_a_token_that_is_not_active(
    api: Cloudflare, server: ApiServer, account: FakeAccount, status: str
) -> None:
    server.script = [ok({"id": "t", "status": status})]
    found = survey(api)
    assert sentences(found.problems) == [f"the token is {status}, not active."]
    assert len(server.calls) == 1, "nothing else is asked with it"


def test_a_token_that_nobody_knows(api: Cloudflare, account: FakeAccount) -> None:
    account.denied = {"verify"}
    (problem,) = survey(api).problems
    assert problem["subject"] == "cloudflare_api_token"
    assert problem["sentence"].startswith("not valid: ")
    assert "make an API token at" in problem["remedy"]


DOWN = ["verify", "all_scripts", "policies", "all_records", "subdomain"]


@pytest.mark.parametrize("down", DOWN)
def test_trouble_of_cloudflares_is_no_word_against_the_token(
    api: Cloudflare,
    server: ApiServer,
    account: FakeAccount,
    monkeypatch: pytest.MonkeyPatch,
    down: str,
) -> None:
    monkeypatch.setattr(client.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(account, down, lambda *_: refused(503, 7010, "Service unavailable"))
    (problem,) = survey(api).problems
    assert problem["subject"] == "preflight"
    assert "Service unavailable" in problem["sentence"]
    assert "GET /" in problem["sentence"], "by what it was asked"


def test_a_refusal_that_comes_late_is_the_tokens(api: Cloudflare, account: FakeAccount) -> None:
    account.denied = {"all_domains"}
    (problem,) = survey(api).problems
    assert problem["subject"] == "cloudflare_api_token"
    assert "workers/domains" in problem["sentence"]


def test_an_account_without_a_subdomain_is_told_of_by_the_place(
    api: Cloudflare, account: FakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = refused(404, 10007, "workers.dev subdomain not found")
    monkeypatch.setattr(account, "subdomain", lambda *_: missing)
    found = survey(api)
    assert (found.subdomain, found.problems) == ("", [])


def test_a_step_asks_for_what_decides_about_its_own_addresses(
    api: Cloudflare, server: ApiServer, account: FakeAccount
) -> None:
    account.routes["r"] = {"id": "r", "pattern": f"{NAME}/*", "script": "alice"}
    found = accounts.of_hostnames(api, [NAME, "b.example.com"], [MAIL])
    assert list(found.routes) == list(found.mail) == [ZONE]
    assert len([call for call in server.calls if call.path.endswith("/routes")]) == 1, "each once"
    account.denied = {"all_rules"}
    with pytest.raises(CloudflareError):
        accounts.of_hostnames(api, [NAME], [MAIL])


def test_a_token_for_some_zones_is_asked_by_their_names(
    api: Cloudflare, server: ApiServer, account: FakeAccount
) -> None:
    """It may not list: Cloudflare refuses the question for all, and that for the parents that are not its own."""

    def answer(call: Call) -> Reply:
        if call.path == "/zones" and call.query.get("name") != "example.com":
            return refused(403, 9109, "Unauthorized to access requested resource")
        return account(call)

    server.answer = answer
    found = accounts.of_hostnames(api, ["a.b.example.com"])
    assert [zone["id"] for zone in found.zones] == [ZONE]
    with pytest.raises(CloudflareError, match="9109"):
        accounts.of_hostnames(api, ["a.example.org"])


def test_trouble_with_the_list_of_zones_is_no_reason_to_ask_by_names(
    api: Cloudflare,
    server: ApiServer,
    account: FakeAccount,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(account, "list_zones", lambda _call: refused(400, 1001, "Invalid query"))
    with pytest.raises(CloudflareError, match="Invalid query"):
        accounts.of_hostnames(api, [NAME])
    assert len(server.calls) == 1

    def by_name(call: Call) -> Reply:
        told: dict[str, Any] = {True: refused(400, 1001, "Invalid name")}
        return told.get("name" in call.query, refused(403, 9109, "Unauthorized"))

    monkeypatch.setattr(account, "list_zones", by_name)
    with pytest.raises(CloudflareError, match="Invalid name"):
        accounts.of_hostnames(api, [NAME])

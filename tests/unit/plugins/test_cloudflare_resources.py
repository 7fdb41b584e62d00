# SPDX-License-Identifier: Apache-2.0
"""What the resource functions make of Cloudflare's answers, and what they do when an answer is lost."""

from __future__ import annotations

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import (
    containers,
    dns,
    permissions,
    routes,
    scripts,
    secrets,
    zones,
)
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import (
    Cloudflare,
    CloudflareError,
)
from ansible_collections.hermes.workers.plugins.module_utils.digests import proof
from api_server import ApiServer, Call, Reply, ok, refused
from fake_account import ACCOUNT, ZONE, FakeAccount


def test_settings_tell_variables_and_secrets_in_one_call(
    api: Cloudflare, server: ApiServer
) -> None:
    found = scripts.settings(api, "alice")
    assert scripts.variables(found)["WORKER_VERSION"] == "91ab03f7c2d4e560"
    assert scripts.secret_names(found) == {"API_TOKEN"}
    assert len(server.calls) == 1
    assert scripts.settings(api, "nobody") is None


def test_only_what_carries_our_tag_is_ours(api: Cloudflare, account: FakeAccount) -> None:
    account.secrets |= {"blog": {}, "bob-2": {}}
    account.tags["bob-2"] = ["team", *scripts.our_tags("bob")]
    found = scripts.deployed(api)
    assert [scripts.deployment_name(one) for one in found] == ["alice", "bob"]


def test_a_listing_without_tags_is_completed(api: Cloudflare, server: ApiServer) -> None:
    server.script = [ok([{"id": "alice"}])]
    assert scripts.deployed(api)[0]["tags"] == scripts.our_tags("alice")


def test_the_version_that_serves_is_the_one_with_most_requests(
    api: Cloudflare, server: ApiServer
) -> None:
    shares = [{"version_id": "a", "percentage": 10}, {"version_id": "b", "percentage": 90}]
    server.script = [ok({"deployments": [{"versions": shares}]})]
    assert scripts.serving(api, "alice") == "b"
    assert scripts.serving(api, "nobody") == ""


def test_secrets_are_written_and_deleted_in_one_call(
    api: Cloudflare, server: ApiServer, account: FakeAccount
) -> None:
    secrets.write(api, "alice", {"API_TOKEN": None, "OPENAI_API_KEY": "canary"})
    assert account.secrets["alice"] == {"OPENAI_API_KEY": "canary"}
    (written,) = server.writes
    assert written.headers["content-type"] == "application/merge-patch+json", "the rest stays"


def test_a_refused_secret_is_not_quoted(api: Cloudflare, server: ApiServer) -> None:
    server.script = [refused(400, 10021, "binding text 'canary-value' is too long")]
    with pytest.raises(CloudflareError) as caught:
        secrets.write(api, "alice", {"A": "canary-value"})
    assert "canary" not in str(caught.value.failure())


def test_proofs_tell_what_is_outdated() -> None:
    nonce = secrets.nonce()
    proven = {"SAME": proof("1", nonce), "OTHER": proof("2", nonce)}
    wanted = {"SAME": "1", "OTHER": "3", "NEW": "4", "UNKNOWN": "5"}
    present = {"SAME", "OTHER", "UNKNOWN"}
    assert secrets.outdated(wanted, present, proven, nonce) == (
        ["NEW", "OTHER", "UNKNOWN"],
        ["UNKNOWN"],
    )


def test_a_worker_is_asked_for_proofs_with_its_token() -> None:
    def answer(call: Call) -> Reply:
        if call.headers["authorization"] != "Bearer worker-token":
            return Reply(401, {})
        return Reply(200, {"proofs": {"API_TOKEN": proof("v", call.body["nonce"])}})

    with ApiServer(answer) as server:
        server.holds = "worker-token"
        url = server.url.removesuffix("/client/v4")
        nonce = secrets.nonce()
        assert secrets.proofs(url, "worker-token", nonce) == {"API_TOKEN": proof("v", nonce)}
        with pytest.raises(secrets.Unproved, match="401"):
            secrets.proofs(url, "wrong", nonce)
    with pytest.raises(secrets.Unproved, match="cannot be asked"):
        secrets.proofs(url, "worker-token", nonce)


def test_the_zone_of_a_hostname_is_the_most_exact(api: Cloudflare) -> None:
    found = [{"name": "example.com"}, {"name": "lab.example.com"}]
    assert zones.covering("a.lab.example.com", found) == {"name": "lab.example.com"}
    assert zones.covering("a.b.example.com.", found) == {"name": "example.com"}
    assert zones.covering("notexample.com", found) is None
    assert zones.find(api, "a.b.example.com")["id"] == ZONE
    assert zones.find(api, "example.org") is None


def test_zones_are_asked_for_and_looked_at_by_their_account(
    api: Cloudflare, server: ApiServer
) -> None:
    """A token may see those of several accounts: what it is not asked about is somebody else's."""
    theirs = {"id": "theirs", "name": "example.com", "account": {"id": "f" * 32}}
    ours = {"id": "ours", "name": "example.com", "account": {"id": ACCOUNT}}
    both = ok([theirs, ours], total_pages=1)
    server.script = [both, ok([theirs]), ok([theirs]), both, both]
    assert zones.find(api, "example.com") == ours
    assert zones.find(api, "a.example.com") is None
    assert zones.listing(api) == [ours]
    assert zones.of_hostnames(api, ["a.example.com"]) == [ours]
    assert [call.query.get("account.id") for call in server.calls] == [ACCOUNT] * 5


def test_spellings_are_no_differences() -> None:
    record = {"type": "CNAME", "name": "a.example.com", "content": "B.example.com", "ttl": 1}
    record |= {"proxied": True, "comment": None}
    wanted = {"type": "CNAME", "name": "A.example.com.", "content": "b.example.com.", "ttl": 300}
    wanted |= {"proxied": True, "comment": ""}
    assert dns.equal(record, wanted)
    assert not dns.equal(record, wanted | {"content": "c.example.com"})


@pytest.mark.parametrize("lost", [Reply(drop=True), Reply(502)])
def test_a_lost_answer_makes_nothing_twice(
    api: Cloudflare, server: ApiServer, account: FakeAccount, lost: Reply
) -> None:
    def lose(call: Call) -> Reply:
        reply = account(call)
        return lost if call.method == "POST" else reply

    server.answer = lose
    wanted = {"name": "a.example.com", **dns.PLACEHOLDER}
    assert dns.create(api, ZONE, wanted)["id"] in account.records
    assert routes.create(api, ZONE, "a.example.com/*", "alice")["id"] in account.routes
    assert len(account.records) == len(account.routes) == 1


def test_a_refusal_to_make_something_stays_a_refusal(api: Cloudflare, server: ApiServer) -> None:
    server.script = [Reply(502), ok([])]
    with pytest.raises(CloudflareError):
        routes.create(api, ZONE, "a.example.com/*", "alice")
    server.script = [refused(400, 81053, "An A, AAAA, or CNAME record already exists")]
    with pytest.raises(CloudflareError) as caught:
        dns.create(api, ZONE, {"name": "a.example.com", **dns.PLACEHOLDER})
    assert "taken over" in caught.value.remedy


def test_images_of_applications_and_versions_are_in_use(
    api: Cloudflare, account: FakeAccount
) -> None:
    account.images["alice"] = {"hermes": "registry/a/hermes@sha256:1"}
    account.applications = [
        {"id": "x", "configuration": {"image": "registry/a/other@sha256:2"}},
        {"id": "y", "configuration": {}},
    ]
    assert containers.images_in_use(api) == {
        "registry/a/hermes@sha256:1",
        "registry/a/other@sha256:2",
    }


def test_a_token_that_reads_its_own_policies_tells_what_it_may_only_read(
    api: Cloudflare, server: ApiServer
) -> None:
    named = [{"name": "Workers Scripts Write"}, {"name": "Workers Containers Read"}]
    policies = [{"effect": "allow", "permission_groups": named}]
    server.script = [ok({"policies": policies})]
    groups = permissions.granted(api, "t")
    needed = (permissions.SCRIPTS, permissions.CONTAINERS, permissions.DNS)
    assert permissions.read_only(groups, needed) == [permissions.CONTAINERS]
    server.script = [refused(403, 9109, "Unauthorized"), refused(403, 9109, "Unauthorized")]
    assert permissions.granted(api, "t") is None


def test_an_account_token_is_verified_at_its_account(api: Cloudflare, server: ApiServer) -> None:
    server.script = [refused(401, 1000, "Invalid API Token"), ok({"id": "t", "status": "active"})]
    assert permissions.verify(api)["status"] == "active"
    assert server.calls[1].path == f"/accounts/{ACCOUNT}/tokens/verify"
    server.script = [refused(401, 1000, "Invalid API Token")] * 2
    with pytest.raises(CloudflareError, match="Invalid API Token"):
        permissions.verify(api)

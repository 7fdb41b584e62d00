# SPDX-License-Identifier: Apache-2.0
"""What the resource functions make of Cloudflare's answers, and what they do when an answer is lost."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import (
    containers,
    dns,
    domains,
    email_routing,
    permissions,
    registry,
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
from api_server import NO_WORKER, ApiServer, Call, Reply, ok, refused
from fake_account import ACCOUNT, ZONE, FakeAccount, Images


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


SERVED = {"version_id": "v1", "percentage": 100}
OUTDEPLOYED = refused(
    400, 10215, "Secret edit failed. You attempted to modify a secret, but the latest version"
)


def test_a_refusal_that_is_no_absence_is_told(api: Cloudflare, server: ApiServer) -> None:
    """What is there, and may not be seen, is not taken for what is gone."""
    for ask in (
        lambda: scripts.settings(api, "alice"),
        lambda: scripts.deployments(api, "alice"),
        lambda: scripts.account_subdomain(api),
        lambda: containers.application(api, "n"),
        lambda: api.delete("/accounts/x"),
        lambda: secrets.write(api, "alice", {"A": "1"}),
    ):
        server.script = [refused(400, 7003, "Could not route")]
        with pytest.raises(CloudflareError, match="7003"):
            ask()
        assert server.script == []


@pytest.mark.parametrize(
    ("told", "patched"),
    [({"logs": {"enabled": False}}, False), ({"logs": {"enabled": True}}, True), (None, True)],
)
def test_what_containers_print_lies_in_no_log(
    api: Cloudflare, server: ApiServer, account: FakeAccount, told: Any, patched: bool
) -> None:
    account.applications = [{"id": "n", "observability": told}]
    containers.ensure_application(api, "alice-hermes", "n")
    assert [call.body for call in server.writes] == (
        [{"observability": containers.UNLOGGED}] if patched else []
    )


@pytest.mark.parametrize("lost", [Reply(502), refused(400, 1000, containers.TAKEN)])
@pytest.mark.parametrize("namespace", ["n", "another"])
def test_an_application_that_another_run_made_is_one(
    api: Cloudflare,
    server: ApiServer,
    account: FakeAccount,
    lost: Reply,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    account.applications = [{"id": "x", "durable_objects": {"namespace_id": namespace}}]
    server.answer = lambda call: lost if call.method == "POST" else account(call)
    if namespace == "n":
        containers.create_application(api, "alice-hermes", "n")
    else:
        with pytest.raises(CloudflareError):
            containers.create_application(api, "alice-hermes", "n")
    assert len(server.writes) == 1


def test_an_application_that_is_refused_is_not_looked_for(
    api: Cloudflare, server: ApiServer
) -> None:
    server.script = [refused(400, 1000, "Containers are not available")]
    with pytest.raises(CloudflareError, match="not available"):
        containers.create_application(api, "alice-hermes", "n")
    assert len(server.calls) == 1


def test_a_deletion_tells_whether_there_was_anything(api: Cloudflare, server: ApiServer) -> None:
    assert containers.delete_application(api, "gone") is False
    server.script = [NO_WORKER]
    assert scripts.delete(api, "alice") is False


def test_images_that_nobody_tells_of_keep_all_from_being_deleted(
    api: Cloudflare, server: ApiServer, account: FakeAccount
) -> None:
    account.applications = [
        {
            "id": "n",
            "scheduling_policy": "durable_object",
            "durable_objects": {"namespace_id": "n"},
        }
    ]
    with pytest.raises(CloudflareError, match="does not tell which images version alice-v1"):
        containers.images_in_use(api)
    # A variable names it as well: ours do. Any other text is none.
    digest = f"r.example/hermes@sha256:{'0' * 64}"
    account.tags["alice"] = []

    def told(call: Call) -> Reply:
        if call.path.endswith("/versions/alice-v1"):
            texts = (digest, "no image", "r.example/hermes@sha256:0")
            bindings = [{"type": "plain_text", "name": one, "text": one} for one in texts]
            return ok({"resources": {"bindings": bindings}})
        return account(call)

    server.answer = told
    assert containers.images_in_use(api) == {digest}


def test_a_record_whose_making_nobody_confirms_is_looked_for(
    api: Cloudflare, server: ApiServer, account: FakeAccount
) -> None:
    other = {"id": "1", "name": "a.example.com", "type": "AAAA", "content": "100::1"}
    account.records["1"] = other | {"proxied": True, "ttl": 1}
    server.answer = lambda call: Reply(502) if call.method == "POST" else account(call)
    with pytest.raises(CloudflareError):
        dns.create(api, ZONE, {"name": "a.example.com", **dns.PLACEHOLDER})


def test_records_that_gave_way_for_nothing_are_made_again(
    api: Cloudflare, server: ApiServer, account: FakeAccount
) -> None:
    record = {"id": "1", "name": "a.example.com", "type": "CNAME", "content": "b.example.com"}
    account.records["1"] = record | {"proxied": False, "ttl": 300, "modified_on": "yesterday"}
    kept = dict(account.records["1"])
    answers = [
        refused(409, domains.RECORD_EXISTS, "externally managed DNS records"),
        refused(400, 100114, "the zone is on hold"),
    ]

    def answer(call: Call) -> Reply:
        return answers.pop(0) if call.method == "PUT" else account(call)

    server.answer = answer
    with pytest.raises(CloudflareError, match="on hold"):
        domains.attach_over(api, "a.example.com", "alice", ZONE, [kept])
    (made,) = account.records.values()
    assert {name: made[name] for name in ("type", "content", "proxied", "ttl")} == {
        name: kept[name] for name in ("type", "content", "proxied", "ttl")
    }
    # Where even that is refused, it is the first refusal that is told.
    answers += [refused(409, domains.RECORD_EXISTS, "x"), refused(400, 100114, "on hold")]
    server.answer = lambda call: (
        refused(400, 1004, "Validation") if call.method == "POST" else answer(call)
    )
    with pytest.raises(CloudflareError, match="on hold"):
        domains.attach_over(api, "a.example.com", "alice", ZONE, [made])


def test_a_mail_rule_whose_answer_was_lost_counts_when_it_is_there(
    api: Cloudflare, server: ApiServer, account: FakeAccount
) -> None:
    def lose(call: Call) -> Reply:
        reply = account(call)
        return Reply(502) if call.method == "POST" else reply

    server.answer = lose
    made = email_routing.create(api, ZONE, "a@example.com", "alice", "ours")
    assert list(account.rules) == [made["id"]]
    server.answer = lambda call: Reply(502) if call.method == "POST" else account(call)
    with pytest.raises(CloudflareError):
        email_routing.create(api, ZONE, "b@example.com", "alice", "ours")
    with pytest.raises(CloudflareError):
        email_routing.create(api, ZONE, "a@example.com", "bob", "ours")


@pytest.mark.parametrize("known", ["by Cloudflare", "by its variables", "by nobody"])
def test_secrets_of_what_serves_come_with_its_images_or_not_at_all(
    api: Cloudflare, server: ApiServer, account: FakeAccount, known: str
) -> None:
    """A newer version does not serve: what serves is uploaded again, and its containers have to come along."""
    images = {"containers": [{"class_name": "HermesInstance", "image": "of-cloudflare"}]}
    told = {"resources": {"script_runtime": images if known == "by Cloudflare" else {}}}
    stored = {
        "main_module": "worker.js",
        "bindings": [
            {"name": "A", "type": "secret_text"},
            {"name": "IMAGE", "type": "plain_text", "text": "of-variables"},
        ],
        "containers": [{"class_name": "HermesInstance"}],
        "modules": [
            {
                "name": "worker.js",
                "content_base64": "eA==",
                "content_type": "application/javascript+module",
            }
        ],
    }
    server.script = [
        OUTDEPLOYED,
        ok({"deployments": [{"versions": [SERVED]}]}),
        ok(told),
        ok(stored),
    ]
    declared = (lambda texts: [{"image": texts["IMAGE"]}]) if known == "by its variables" else None
    if known == "by nobody":
        with pytest.raises(CloudflareError, match="does not tell which images version v1 of alice"):
            secrets.write(api, "alice", {"A": "new", "B": None}, declared)
        assert account.uploads == []
        return
    secrets.write(api, "alice", {"A": "new", "B": None}, declared)
    (upload,) = account.uploads
    kept = {"type": "inherit", "name": "IMAGE", "version_id": "v1"}
    assert upload["bindings"] == [kept, {"type": "secret_text", "name": "A", "text": "new"}]
    assert upload["containers"] == (
        images["containers"] if known == "by Cloudflare" else [{"image": "of-variables"}]
    )


def test_a_list_that_goes_on_is_read_to_its_end(api: Cloudflare, server: ApiServer) -> None:
    server.script = [ok(["a"], next_page_token="t2"), ok(["b"])]
    assert list(api.pages("/things")) == ["a", "b"]
    assert server.calls[1].query["page_token"] == "t2"


def test_a_refusal_without_the_usual_words_is_quoted(api: Cloudflare, server: ApiServer) -> None:
    server.script = [Reply(400, {"error": "DURABLE_OBJECT_NOT_FOUND"})]
    with pytest.raises(CloudflareError, match="DURABLE_OBJECT_NOT_FOUND"):
        api.get("/things")


def test_a_registry_that_refuses_or_is_not_there_is_told(
    api: Cloudflare, images: Images, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = registry.Registry(api)
    with ApiServer() as broken:
        broken.script = [Reply(503), Reply(drop=True)]
        monkeypatch.setenv("CLOUDFLARE_CONTAINER_REGISTRY", broken.url.split("/")[2])
        refusing = registry.Registry(api)
        with pytest.raises(CloudflareError, match="HTTP 503") as caught:
            refusing.digest("hermes", "new")
        assert caught.value.status == 503
        with pytest.raises(CloudflareError, match="no answer from"):
            refusing.digest("hermes", "new")
    assert found.digest("hermes", "gone") == "", "what is not there is no refusal"
    assert found.delete("hermes", "gone") is False

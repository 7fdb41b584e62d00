# SPDX-License-Identifier: Apache-2.0
"""Each module up the same ladder: missing arguments, check mode, create, again, update, delete; and its refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import client
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import Cloudflare
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.registry import Registry
from ansible_collections.hermes.workers.plugins.module_utils.digests import proof
from api_server import ApiServer, Call, Reply, ok, refused
from fake_account import ACCOUNT, TOKEN, ZONE, FakeAccount, Images
from run_module import run_module

CANARY = "canary-secret-value"
RECORD = {"name": "a.example.com", "type": "CNAME", "content": "b.example.com"}


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", TOKEN)
    monkeypatch.setenv("CLOUDFLARE_ACCOUNT_ID", ACCOUNT)
    monkeypatch.setenv("CLOUDFLARE_API_BASE_URL", server.url)
    monkeypatch.setattr(client.time, "sleep", lambda _seconds: None)
    return run_module


@dataclass
class Worker:
    """A Worker that proves its secrets, as worker/src/gate/secret-proof.ts does."""

    held: dict[str, str]
    token: str = "worker-token"
    known: set[str] = field(default_factory=lambda: {"API_TOKEN", "OPENAI_API_KEY"})

    def __call__(self, call: Call) -> Reply:
        if call.headers.get("authorization") != f"Bearer {self.token}":
            return Reply(401, {"error": {"code": "wrong_token"}})
        shown = {name: value for name, value in self.held.items() if name in self.known}
        nonce = call.body["nonce"]
        return Reply(200, {"proofs": {name: proof(value, nonce) for name, value in shown.items()}})


@pytest.fixture
def proving(account: FakeAccount) -> Iterator[dict[str, str]]:
    """The options that let the module ask the Worker "alice"."""
    with ApiServer(Worker(account.secrets["alice"])) as worker:
        url = worker.url.removesuffix("/client/v4")
        worker.holds = "worker-token"
        yield {"url": url, "worker_token": "worker-token"}


LADDER = [
    pytest.param(
        "worker_domain",
        {"hostname": "a.example.com", "worker": "alice"},
        {"worker": "bob", "take_over": True},
        "domains",
        id="worker_domain",
    ),
    pytest.param(
        "worker_route",
        {"pattern": "a.example.com/*", "worker": "alice"},
        {"worker": "bob", "take_over": True},
        "routes",
        id="worker_route",
    ),
    pytest.param(
        "dns_record",
        RECORD,
        {"content": "c.example.com", "take_over": True},
        "records",
        id="dns_record",
    ),
]


@pytest.mark.parametrize(("module", "wanted", "update", "kept_in"), LADDER)
def test_the_ladder(
    run: Run,
    server: ApiServer,
    account: FakeAccount,
    module: str,
    wanted: dict[str, Any],
    update: dict[str, Any],
    kept_in: str,
) -> None:
    kept = getattr(account, kept_in)

    first, *_ = wanted
    missing = run(module, **{key: value for key, value in wanted.items() if key != first})
    assert missing["failed"]
    assert first in missing["msg"]

    predicted = run(module, check=True, **wanted)
    assert predicted["changed"]
    assert not server.writes
    assert not kept

    created = run(module, **wanted)
    assert created["changed"]
    assert created["diff"] == predicted["diff"]
    assert created["diff"]["before"] == {}
    assert len(kept) == 1

    server.calls.clear()
    for check in (True, False):
        assert not run(module, check=check, **wanted)["changed"]
    assert not server.writes

    refusal = run(module, **wanted | update | {"take_over": False})
    assert refusal["failed"]
    assert refusal["failure"]["code"] in ("other_worker", "record_exists")
    assert "take_over" in refusal["msg"]
    assert not server.writes

    predicted = run(module, check=True, **wanted | update)
    assert not server.writes
    updated = run(module, **wanted | update)
    assert updated["changed"]
    assert updated["diff"] == predicted["diff"]
    assert not run(module, **wanted | update)["changed"]
    assert len(kept) == 1

    others = run(module, **wanted, state="absent")
    assert not others["changed"], "what is another's stays"

    gone = wanted | update | {"state": "absent"}
    assert run(module, check=True, **gone)["changed"]
    assert len(kept) == 1
    assert run(module, **gone)["changed"]
    assert not kept
    assert not run(module, **gone)["changed"]


def test_a_hostname_with_records_is_not_taken(
    run: Run, server: ApiServer, account: FakeAccount
) -> None:
    run("dns_record", **RECORD)
    run("dns_record", name="a.example.com", type="TXT", content="v=spf1 -all")
    server.calls.clear()
    wanted = {"hostname": "A.example.com.", "worker": "alice"}
    refusal = run("worker_domain", **wanted)
    assert refusal["failure"]["code"] == "record_exists"
    assert "CNAME b.example.com" in refusal["msg"]
    assert not server.writes
    run("worker_domain", check=True, take_over=True, **wanted)
    assert not server.writes
    account.domains.clear()
    # The stand-in refuses while any record has the name, as Cloudflare does only for these types.
    text = next(one for one in account.records.values() if one["type"] == "TXT")
    del account.records[text["id"]]
    taken = run("worker_domain", take_over=True, **wanted)
    assert taken["changed"]
    assert taken["diff"]["before"]["records"] == ["CNAME b.example.com"]
    assert not account.records


@pytest.mark.parametrize("module", ["worker_domain", "worker_route", "dns_record"])
def test_a_hostname_without_a_zone_is_refused(run: Run, module: str) -> None:
    name = {"worker_domain": "hostname", "worker_route": "pattern", "dns_record": "name"}[module]
    more = {} if module == "dns_record" else {"worker": "alice"}
    answer = run(module, **{name: "a.example.org"}, **more)
    assert answer["failure"]["code"] == "no_zone"
    assert "a.example.org" in answer["msg"]
    answer = run(module, **{name: "a.example.com"}, **more, zone="b.example.com")
    assert answer["failure"]["code"] == "no_zone", "a zone that is named is meant exactly"


def test_a_difference_is_told_to_who_asked_for_it(run: Run) -> None:
    assert "diff" not in run("dns_record", check=True, diff=False, **RECORD)
    assert run("dns_record", check=True, **RECORD)["diff"]["before"] == {}


def test_records_beside_each_other_are_left(run: Run, account: FakeAccount) -> None:
    one = {"name": "a.example.com", "type": "TXT", "content": "one"}
    run("dns_record", **one)
    assert run("dns_record", **one | {"content": "two"})["changed"]
    assert {record["content"] for record in account.records.values()} == {"one", "two"}
    assert not run("dns_record", **one)["changed"]


def test_what_is_taken_over_is_alone_afterwards(run: Run, account: FakeAccount) -> None:
    for number in (1, 2):
        record = {"id": str(number), "name": "a.example.com", "type": "A", "ttl": 1}
        account.records[str(number)] = record | {"content": f"192.0.2.{number}", "proxied": False}
    changed = run("dns_record", take_over=True, **RECORD)
    assert changed["diff"]["before"]["further records"] == ["192.0.2.2"]
    assert [one["content"] for one in account.records.values()] == ["b.example.com"]


def test_secrets_up_the_ladder(
    run: Run, server: ApiServer, account: FakeAccount, proving: dict[str, str]
) -> None:
    held = account.secrets["alice"]
    wanted = {"name": "alice", "secrets": {"API_TOKEN": "old", "OPENAI_API_KEY": CANARY}}
    missing = run("worker_secrets", name="alice")
    assert "secrets" in missing["msg"]

    predicted = run("worker_secrets", check=True, **wanted, **proving)
    assert not server.writes
    created = run("worker_secrets", **wanted, **proving)
    assert created["created"] == ["OPENAI_API_KEY"]
    assert created["updated"] == []
    assert (
        created["diff"] == predicted["diff"] == {"before": {}, "after": {"OPENAI_API_KEY": "set"}}
    )
    assert held == wanted["secrets"]

    server.calls.clear()
    assert not run("worker_secrets", **wanted, **proving)["changed"]
    assert not server.writes

    held["OPENAI_API_KEY"] = "changed by hand"
    mended = run("worker_secrets", **wanted, **proving)
    assert mended["updated"] == ["OPENAI_API_KEY"]
    assert held == wanted["secrets"]

    held["OTHER"] = "1"
    assert not run("worker_secrets", **wanted, **proving)["changed"], "purging is asked for"
    assert run("worker_secrets", **wanted, **proving, purge=True)["deleted"] == ["OTHER"]
    gone = {"name": "alice", "secrets": {"OPENAI_API_KEY": None}}
    assert run("worker_secrets", **gone, **proving)["deleted"] == ["OPENAI_API_KEY"]
    assert not run("worker_secrets", **gone, **proving)["changed"]
    assert held == {"API_TOKEN": "old"}


def test_all_secrets_change_in_one_call(
    run: Run, server: ApiServer, proving: dict[str, str]
) -> None:
    values = {"API_TOKEN": "new", "OPENAI_API_KEY": CANARY, "ANTHROPIC_API_KEY": "k"}
    run("worker_secrets", name="alice", secrets=values, **proving)
    assert [call.method for call in server.writes] == ["PATCH"]


def test_without_a_proof_a_secret_counts_as_changed(
    run: Run, account: FakeAccount, proving: dict[str, str]
) -> None:
    wanted = {"name": "alice", "secrets": {"API_TOKEN": "old"}}
    for more in ({}, proving | {"worker_token": "wrong"}):
        answer = run("worker_secrets", **wanted, **more)
        assert answer["unproved"] == ["API_TOKEN"]
        assert answer["changed"]
        assert "API_TOKEN: counted as changed" in json.dumps(answer["warnings"])
    account.secrets["alice"]["MY_OWN"] = "1"
    answer = run("worker_secrets", name="alice", secrets={"MY_OWN": "1"}, **proving)
    assert answer["unproved"] == ["MY_OWN"], "the Worker proves only what it knows"


def test_when_to_write_can_be_chosen(run: Run, server: ApiServer) -> None:
    wanted = {"name": "alice", "secrets": {"API_TOKEN": "old"}}
    assert not run("worker_secrets", update="on_create", **wanted)["changed"]
    assert run("worker_secrets", update="always", **wanted)["updated"] == ["API_TOKEN"]
    assert len(server.writes) == 1


def test_no_stub_is_made_for_a_missing_worker(run: Run, server: ApiServer) -> None:
    answer = run("worker_secrets", name="nobody", secrets={"A": CANARY})
    assert answer["failure"]["code"] == "no_worker"
    assert "Deploy it first" in answer["msg"]
    assert not server.writes


@pytest.mark.parametrize("value", ["", True, ["in a list"], {"in": "a mapping"}])
def test_a_value_that_is_no_secret_is_refused(run: Run, server: ApiServer, value: Any) -> None:
    answer = run("worker_secrets", name="alice", secrets={"A": value})
    assert answer["failure"]["code"] == "bad_value"
    assert not server.writes


def test_no_secret_is_in_any_answer(run: Run, server: ApiServer, proving: dict[str, str]) -> None:
    wanted = {"name": "alice", "secrets": {"API_TOKEN": CANARY, "NEW": f"{CANARY}-2"}}
    answers = [run("worker_secrets", check=True, **wanted, **proving)]
    server.script = [
        ok([]),
        refused(400, 10021, f"{CANARY}-2 is too long for {TOKEN}"),
    ]
    answers += [run("worker_secrets", **wanted, **proving) for _ in range(2)]
    assert answers[1]["failure"]["code"] == 10021
    assert answers[2]["changed"]
    shown = json.dumps(answers)
    assert "canary" not in shown
    assert "worker-token" not in shown
    assert "invocation" in answers[2], "the arguments are part of what is shown"


def test_a_refusal_of_cloudflare_has_its_code_and_remedy(run: Run, account: FakeAccount) -> None:
    account.denied = {"all_domains"}
    answer = run("worker_domain", hostname="a.example.com", worker="alice")
    assert answer["failure"]["code"] == 10000
    assert answer["failure"]["details"]["status"] == 403
    assert "api-tokens" in answer["msg"]


def test_a_control_plane_in_trouble_is_outlasted(run: Run, server: ApiServer) -> None:
    server.script = [Reply(502), refused(429, 971, "wait", Retry_After="3"), Reply(drop=True)]
    assert run("worker_domain", hostname="a.example.com", worker="alice")["changed"]
    assert len(server.writes) == 1


def test_the_budget_is_kept_where_it_is_asked_for(run: Run, tmp_path: Any) -> None:
    run("worker_info", budget_dir=str(tmp_path / "budget"))
    assert len(list((tmp_path / "budget").iterdir())) == 1


def test_facts_about_workers(run: Run, account: FakeAccount, server: ApiServer) -> None:
    account.secrets["blog"] = {}
    account.domains["1"] = {"id": "1", "hostname": "a.example.com", "service": "alice"}
    (alice,) = run("worker_info")["workers"]
    assert alice["hermes_name"] == "alice"
    assert alice["version_id"] == "alice-v1"
    assert alice["secrets"] == ["API_TOKEN"]
    assert alice["url"] == "https://a.example.com"
    (blog,) = run("worker_info", name="blog")["workers"]
    assert blog["url"] == "https://blog.acme.workers.dev"
    assert run("worker_info", name="nobody")["workers"] == []
    assert not server.writes


def test_a_tag_that_is_gone_by_now_is_in_nobodys_use(api: Cloudflare, images: Images) -> None:
    found = Registry(api).used("hermes", ["new", "gone"], {"r/hermes@sha256:new", "r/other:odd"})
    assert found == {"new"}


def test_only_images_that_nothing_names_are_pruned(run: Run, images: Images) -> None:
    wanted = {"repository": "hermes", "state": "pruned"}
    predicted = run("registry_image", check=True, **wanted)
    assert predicted["deleted"] == ["old"]
    assert set(images.tags) == {"old", "new", "odd"}
    assert not run("registry_image", **wanted, keep=["old"])["changed"]
    pruned = run("registry_image", **wanted)
    assert pruned["kept"] == ["new", "odd"]
    assert pruned["diff"] == predicted["diff"]
    assert set(images.tags) == {"new", "odd"}
    assert images.collected == 1
    assert not run("registry_image", **wanted)["changed"]


def test_one_image_is_removed_unless_it_is_in_use(run: Run, images: Images) -> None:
    assert "tag" in run("registry_image", repository="hermes")["msg"]
    for tag in ("new", "odd"):
        answer = run("registry_image", repository="hermes", tag=tag)
        assert answer["failure"]["code"] == "in_use"
    assert run("registry_image", repository="hermes", tag="old")["changed"]
    assert not run("registry_image", repository="hermes", tag="old")["changed"]
    assert set(images.tags) == {"new", "odd"}


def test_facts_about_images(run: Run, images: Images) -> None:
    answer = run("registry_image_info", repository="hermes")
    assert len(answer["images"]) == 3
    assert answer["images"][0]["reference"].endswith(f"/{ACCOUNT}/hermes@sha256:old")
    assert run("registry_image_info", repository="other")["images"] == []
    assert "canary" not in json.dumps(answer)


def test_the_zone_is_asked_for_once(run: Run, server: ApiServer) -> None:
    run("dns_record", **RECORD, zone="example.com")
    asked = [call.query["name"] for call in server.calls if call.path == "/zones"]
    assert asked == ["example.com"]
    assert server.writes[0].path == f"/zones/{ZONE}/dns_records"

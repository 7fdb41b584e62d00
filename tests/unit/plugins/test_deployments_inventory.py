# SPDX-License-Identifier: Apache-2.0
"""The inventory plugin through the real `ansible-inventory`, in front of accounts in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import ApiServer, Call, Reply, refused
from fake_account import ACCOUNT, TOKEN, FakeAccount

ROOT = Path(__file__).resolve().parents[3]
OTHER = "fedcba9876543210fedcba9876543210"
PLUGIN = "plugin: hermes.workers.deployments\n"


class Accounts:
    """Two accounts, each with a token of its own that the other refuses."""

    def __init__(self) -> None:
        self.by_id = {ACCOUNT: FakeAccount(), OTHER: FakeAccount()}
        self.tokens = {TOKEN: ACCOUNT, "canary-other-token": OTHER}

    def __call__(self, call: Call) -> Reply:
        account = call.path.split("/")[2]
        token = call.headers["authorization"].removeprefix("Bearer ")
        if self.tokens.get(token) != account:
            return refused(403, 10000, "Authentication error")
        call.path = call.path.replace(account, ACCOUNT)
        return self.by_id[account](call)


@pytest.fixture
def accounts() -> Accounts:
    return Accounts()


@pytest.fixture
def server(accounts: Accounts) -> Iterator[ApiServer]:
    with ApiServer(accounts) as running:
        yield running


@pytest.fixture
def env(server: ApiServer, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "none.cfg").touch()
    return os.environ | {
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections"),
        "ANSIBLE_INVENTORY_ENABLED": "hermes.workers.deployments",
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
        "ANSIBLE_HOME": str(tmp_path / "ansible"),
        "ANSIBLE_CONFIG": str(tmp_path / "none.cfg"),
        "CLOUDFLARE_API_TOKEN": TOKEN,
        "CLOUDFLARE_ACCOUNT_ID": ACCOUNT,
        "CLOUDFLARE_API_BASE_URL": server.url,
    }


def show(
    folder: Path,
    env: dict[str, str],
    text: str = PLUGIN,
    name: str = "fleet.hermes.yml",
    *more: str,
) -> subprocess.CompletedProcess[str]:
    """Run ansible-inventory on a configuration of the plugin."""
    (folder / name).write_text(text)
    program = Path(sys.executable).parent / "ansible-inventory"
    command = [str(program), "-i", str(folder / name), *(more or ("--list",))]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )


def listing(folder: Path, env: dict[str, str], text: str = PLUGIN) -> dict[str, Any]:
    done = show(folder, env, text)
    assert done.returncode == 0, done.stderr
    assert "canary" not in done.stdout + done.stderr
    return dict(json.loads(done.stdout, object_hook=plain))


def plain(value: dict[str, Any]) -> Any:
    """Undo the mark on texts that came from elsewhere, and so are never templates."""
    return value.get("__ansible_unsafe", value)


def test_each_deployment_is_a_host_that_plays_can_run_on(
    tmp_path: Path, env: dict[str, str], accounts: Accounts
) -> None:
    account = accounts.by_id[ACCOUNT]
    account.secrets["blog"] = {"KEY": "canary-key"}
    account.domains["1"] = {"id": "1", "hostname": "a.example.com", "service": "alice"}
    found = listing(tmp_path, env)
    assert found["hermes"]["hosts"] == ["alice"], "what is not ours is not listed"
    alice = found["_meta"]["hostvars"]["alice"]
    assert alice["hermes_name"] == "alice"
    assert alice["hermes_platform"] == "cloudflare"
    assert alice["hermes_account_id"] == ACCOUNT
    assert alice["ansible_connection"] == "local"
    assert alice["deployment"]["url"] == "https://a.example.com"
    assert alice["deployment"]["version"] == "91ab03f7c2d4e560"
    assert alice["deployment"]["state"] == "incomplete", "there is no container application"
    account.applications = [{"id": "n", "durable_objects": {"namespace_id": "n"}}]
    groups = listing(tmp_path, env)
    for group in ("account_" + ACCOUNT, "state_ready", "instance_type_standard_1"):
        assert groups[group]["hosts"] == ["alice"]


def test_accounts_stay_apart(tmp_path: Path, env: dict[str, str], accounts: Accounts) -> None:
    accounts.by_id[OTHER].secrets["bob"] = {}
    accounts.by_id[OTHER].tags["bob"] = ["hermes.workers", "hermes.workers:bob"]
    text = PLUGIN + (
        "accounts:\n"
        f"  - {{name: acme, account_id: {ACCOUNT}}}\n"
        f"  - {{name: lab, account_id: {OTHER}, api_token: \"{{{{ lookup('env', 'LAB') }}}}\"}}\n"
    )
    found = listing(tmp_path, env | {"LAB": "canary-other-token"}, text)
    assert found["account_acme"]["hosts"] == ["alice.acme"], "two tenants' alices are two hosts"
    assert found["account_lab"]["hosts"] == ["alice.lab", "bob"]
    assert found["_meta"]["hostvars"]["alice.lab"]["hermes_name"] == "alice"
    assert found["_meta"]["hostvars"]["alice.lab"]["hermes_account_id"] == OTHER
    refusal = show(tmp_path, env | {"LAB": TOKEN}, text)
    assert refusal.returncode != 0
    assert "account lab" in refusal.stderr
    assert "Authentication error" in refusal.stderr
    assert "canary" not in refusal.stderr


def test_groups_and_variables_can_be_composed(tmp_path: Path, env: dict[str, str]) -> None:
    text = PLUGIN + (
        "compose: {size: deployment.instance_type}\n"
        "groups: {small: deployment.instance_type == 'standard-1'}\n"
        "keyed_groups: [{key: 'deployment.version[:2]', prefix: version}]\n"
        "strict: true\n"
    )
    found = listing(tmp_path, env, text)
    assert found["_meta"]["hostvars"]["alice"]["size"] == "standard-1"
    assert found["small"]["hosts"] == found["version_91"]["hosts"] == ["alice"]
    wrong = show(tmp_path, env, PLUGIN + "compose: {size: no.such.thing}\nstrict: true\n")
    assert wrong.returncode != 0


def test_a_cache_saves_the_calls_and_holds_no_secret(
    tmp_path: Path, env: dict[str, str], server: ApiServer
) -> None:
    folder = tmp_path / "cache"
    text = PLUGIN + f"cache: true\ncache_plugin: jsonfile\ncache_connection: {folder}\n"
    first = listing(tmp_path, env, text)
    asked = len(server.calls)
    assert asked
    assert listing(tmp_path, env, text) == first
    assert len(server.calls) == asked
    (kept,) = folder.iterdir()
    assert "canary" not in kept.read_text()
    show(tmp_path, env, text, "fleet.hermes.yml", "--list", "--flush-cache")
    assert len(server.calls) == 2 * asked


def test_few_calls_are_made(
    tmp_path: Path, env: dict[str, str], accounts: Accounts, server: ApiServer
) -> None:
    account = accounts.by_id[ACCOUNT]
    for number in range(20):
        account.secrets[f"n{number}"] = {}
        account.tags[f"n{number}"] = ["hermes.workers", f"hermes.workers:n{number}"]
        domain = {"id": str(number), "hostname": f"n{number}.example.com", "service": f"n{number}"}
        account.domains[str(number)] = domain
    assert len(listing(tmp_path, env)["hermes"]["hosts"]) == 21
    assert len(server.calls) <= 5 + 2 + 20
    assert not server.writes


def test_without_a_token_it_says_what_to_set(tmp_path: Path, env: dict[str, str]) -> None:
    del env["CLOUDFLARE_API_TOKEN"]
    done = show(tmp_path, env)
    assert done.returncode != 0
    assert "CLOUDFLARE_API_TOKEN" in done.stderr


def test_only_files_of_its_name_are_its_own(tmp_path: Path, env: dict[str, str]) -> None:
    assert show(tmp_path, env, PLUGIN, "fleet.yml").returncode != 0
    assert show(tmp_path, env, PLUGIN, "fleet.hermes.yaml").returncode == 0


def test_the_fleet_as_a_graph(tmp_path: Path, env: dict[str, str]) -> None:
    done = show(tmp_path, env, PLUGIN, "fleet.hermes.yml", "--graph", "hermes")
    assert done.stdout.splitlines() == ["@hermes:", "  |--alice"]

# SPDX-License-Identifier: Apache-2.0
"""The page that walks through the example of many tenants, word for word, against the stand-in for Cloudflare."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from plays import ROOT, clean_environment, run

from tests.cloudflare import ControlPlane
from tests.cloudflare.accounts import Deployment
from tests.cloudflare.stub import WRONG_KEY, StubEdge
from tests.standins.ports import free_port

PAGE = (ROOT / "docs" / "multi-tenant.md").read_text()
ACME, GLOBEX = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
KEYS = {
    "ACME_CLOUDFLARE_API_TOKEN": "cf-canary-acme-" + secrets.token_hex(8),
    "ACME_ANTHROPIC_API_KEY": "sk-canary-acme-" + secrets.token_hex(8),
    "GLOBEX_CLOUDFLARE_API_TOKEN": "cf-canary-globex-" + secrets.token_hex(8),
    "GLOBEX_ANTHROPIC_API_KEY": "sk-canary-globex-" + secrets.token_hex(8),
}


class Walk:
    """A reader at the page, in a folder like a checkout."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self.folder = folder
        self.before = "set -eu"
        self.printed: list[str] = []
        self.env = clean_environment(
            **plane.env,
            **KEYS,
            ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"),
            ANSIBLE_HOME=str(folder / "ansible"),
            # Whatever Ansible can be told to keep may hold no secret.
            ANSIBLE_CACHE_PLUGIN="jsonfile",
            ANSIBLE_CACHE_PLUGIN_CONNECTION=str(folder / "kept" / "facts"),
            ANSIBLE_RETRY_FILES_ENABLED="true",
            ANSIBLE_RETRY_FILES_SAVE_PATH=str(folder / "kept" / "retry"),
            ANSIBLE_LOG_PATH=str(folder / "kept" / "log"),
        )
        (folder / "kept").mkdir()
        self.env["ANSIBLE_COLLECTIONS_PATH"] = str(ROOT / ".ansible" / "collections")

    def sections(self) -> Iterator[tuple[str, str]]:
        """Title and commands of each section that has any."""
        for section in re.split(r"^##? ", PAGE, flags=re.MULTILINE)[1:]:
            commands = "\n".join(
                re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
            )
            if commands:
                yield section.partition("\n")[0], commands

    def type(self, commands: str) -> str:
        """Type commands into the shell that the earlier ones were typed into; return what was printed."""
        exports = "\n".join(re.findall(r"^(?:export .*|\. .*)$", self.before, re.MULTILINE))
        words = ["bash", "-c", f"set -eu\n{exports}\n{commands}"]
        done = run(words, self.folder, self.env, seconds=900)
        self.before += f"\n{commands}"
        self.printed.append(done.stdout)
        assert done.returncode == 0, f"{commands}\n{done.stdout}"
        return done.stdout


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[Walk]:
    folder = tmp_path_factory.mktemp("walk")
    shutil.copytree(ROOT / "inventories" / "multi_tenant", folder / "inventories" / "multi_tenant")
    for name in ("dave", "erin"):
        # Ports of the page may be taken on this machine.
        path = folder / "inventories" / "multi_tenant" / "host_vars" / f"{name}.yml"
        ports = f"hermes_port: {free_port()}\nhermes_providers_port: {free_port()}\nhermes_dashboard: false"
        path.write_text(re.sub(r"hermes_port: \d+", ports, path.read_text()))
    (folder / ".venv").symlink_to(ROOT / ".venv")
    (folder / ".hermes").symlink_to(home)
    with ControlPlane(folder / "plane", edge=StubEdge) as plane:
        for account, who in ((ACME, "acme"), (GLOBEX, "globex")):
            token = KEYS[f"{who.upper()}_CLOUDFLARE_API_TOKEN"]
            plane.add_account(account, token, subdomain=who, zones=[f"{who}.example"])
            plane.registry.add_image(f"{account}/hermes-workers", Sources().container_image(""))
        yield Walk(plane, folder)


@pytest.fixture(scope="module")
def printed(walk: Walk, home: Path) -> Iterator[dict[str, str]]:
    """What each section's commands printed, typed one after the other."""
    found = {}
    try:
        for title, commands in walk.sections():
            if title == "See what was changed by hand":
                change_by_hand(walk)
            if title == "Rotate keys":
                found["before"] = (home / "alice" / "api_token").read_text()
            found[title] = walk.type(commands)
        yield found
    finally:
        # dave and erin are processes of this machine.
        forget = "-e hermes_confirm=yes -e hermes_forget=true"
        walk.type(f"ansible-playbook hermes.workers.destroy -i inventories/mine {forget}")


def change_by_hand(walk: Walk) -> None:
    """What somebody might do in the dashboard."""
    acme = walk.plane.state.accounts[ACME]
    bindings = acme.workers["alice"].current.bindings
    bindings[:] = [one for one in bindings if one["name"] != "ANTHROPIC_API_KEY"]
    bindings.append({"type": "secret_text", "name": "STRANGER", "text": "x"})
    for one in acme.workers["bob"].current.bindings:
        if one["name"] == "HERMES_SLEEP_AFTER":
            one["text"] = "5h"
    acme.workers["bob"].current.metadata |= {
        "compatibility_date": "2025-01-01",
        "compatibility_flags": ["nodejs_compat"],
    }
    globex = walk.plane.state.accounts[GLOBEX]
    carol = globex.workers["carol"]
    (module, *others) = carol.current.modules
    edited = replace(module, content=module.content + b"// another line")
    version = replace(carol.current, modules=[edited, *others], source="dash", id=str(uuid.uuid4()))
    carol.versions.append(version)
    carol.deployments.append(Deployment(version, "upload", "dash"))
    # Cloudflare takes a custom domain's record along.
    globex.domains.clear()
    for zone in walk.plane.state.zones.values():
        if zone.account == GLOBEX:
            zone.records.clear()
    stray = acme.workers["bob"].current
    worker = type(acme.workers["bob"])(
        "mallory", versions=[stray], tags=["hermes.workers", "hermes.workers:mallory"]
    )
    worker.namespaces = acme.workers["bob"].namespaces
    acme.workers["mallory"] = worker


def test_what_was_changed_by_hand_is_told_and_nothing_is_written(
    printed: dict[str, str], walk: Walk
) -> None:
    output = printed["See what was changed by hand"]
    assert "anthropic_api_key (missing)" in output
    assert "STRANGER (added by hand)" in output
    for what in ("HERMES_SLEEP_AFTER was", "compatibility date was", "compatibility flags were"):
        assert f"{what} changed by hand" in output
    assert "its code was changed by hand" in output
    assert re.search(r"create  routes +.*carol\.globex\.example", output)
    assert f"Not in this inventory: mallory (account {ACME}). Nothing is done to them." in output


def test_a_deploy_mends_it_and_leaves_strangers_alone(printed: dict[str, str], walk: Walk) -> None:
    output = walk.type(
        "ansible-playbook hermes.workers.deploy -i inventories/mine --limit cloudflare"
    )
    assert "3 deployments: 3 changed, 0 failed." in output
    acme, globex = (walk.plane.state.accounts[one] for one in (ACME, GLOBEX))
    alice = acme.workers["alice"].current
    assert "STRANGER" not in alice.secrets()
    assert alice.secrets()["ANTHROPIC_API_KEY"] == KEYS["ACME_ANTHROPIC_API_KEY"]
    alice, bob = (acme.workers[name].current for name in ("alice", "bob"))
    assert bob.variables()["HERMES_SLEEP_AFTER"] == "1h"
    for name in ("compatibility_date", "compatibility_flags"):
        assert bob.metadata[name] == alice.metadata[name]
    assert set(globex.domains) == {"carol.globex.example"}
    assert "mallory" in acme.workers
    start = len(walk.plane.calls)
    again = walk.type(
        "ansible-playbook hermes.workers.deploy -i inventories/mine --limit cloudflare"
    )
    assert "No changes. 0 calls written." in again
    assert walk.plane.writes(start) == []

    for binding in bob.bindings:
        if binding["name"] == "WORKER_VERSION":
            binding["text"] = "of-an-older-one"
    status = "ansible-playbook hermes.workers.status -i inventories/mine --check --limit bob"
    assert "version of-an-older-one (changed by hand) -> " in walk.type(status)
    walk.type("ansible-playbook hermes.workers.deploy -i inventories/mine --limit bob")
    assert acme.workers["bob"].current.variables()["WORKER_VERSION"] != "of-an-older-one"


def test_the_page_rotates_a_token_and_takes_one_away(
    printed: dict[str, str], walk: Walk, home: Path
) -> None:
    assert printed["Rotate keys"].count("2 deployments: 2 would change, 0 failed.") == 1
    assert printed["Rotate keys"].count("2 deployments: 2 changed, 0 failed.") == 1
    assert (home / "alice" / "api_token").read_text() != printed["before"]
    assert not (home / "erin").exists()
    assert (home / "dave").exists()


def test_the_play_ends_with_a_row_for_each(printed: dict[str, str]) -> None:
    table = printed["Deploy"].rpartition("\ndeployment ")[2]
    assert re.search(
        r"^alice +https://alice\.acme\.workers\.dev +[0-9a-f]{16} +no +ok, Hermes is awake +-$",
        table,
        re.MULTILINE,
    ), table
    for name in ("bob", "carol", "dave", "erin"):
        row = rf"^{name} +https?://\S+ +[0-9a-f]{{16}} +yes +ok, Hermes is awake +\d+\.\d+ s$"
        assert re.search(row, table, re.MULTILINE), table
    assert "5 deployments: 4 changed, 0 failed." in table


def test_a_key_that_fails_its_proof_is_taken_back_with_the_version_of_before(
    printed: dict[str, str], walk: Walk, home: Path
) -> None:
    alice = walk.plane.state.accounts[ACME].workers["alice"]
    version, secrets_before = alice.current.id, alice.current.secrets()
    token = (home / "alice" / "api_token").read_text()
    play = "ansible-playbook hermes.workers.rotate_keys -i inventories/mine --limit alice"
    output = walk.type(
        f"{play} -e hermes_keys=api_token,provider_keys -e anthropic_api_key={WRONG_KEY} && exit 1 || true"
    )
    taken_back = "Taken back: anthropic_api_key, hermes_api_token. The keys of before are in use."
    assert taken_back in output, output
    assert alice.current.id == version
    assert alice.current.secrets() == secrets_before
    assert (home / "alice" / "api_token").read_text() == token
    assert not (home / "alice" / "rotation.json").exists()
    # Cloudflare refuses to change secrets now: the version that serves is not the newest.
    start = len(alice.deployments)
    walk.type(f"{play} -e hermes_keys=api_token")
    new = (home / "alice" / "api_token").read_text()
    assert new.strip() == alice.current.secrets()["API_TOKEN"]
    assert new != token
    served = [one.version.secrets()["ANTHROPIC_API_KEY"] for one in alice.deployments[start:]]
    assert set(served) == {secrets_before["ANTHROPIC_API_KEY"]}, "the rejected key stays away"
    assert alice.is_latest_deployed


def test_one_account_that_is_suspended_does_not_stop_the_others(
    printed: dict[str, str], walk: Walk
) -> None:
    account = walk.plane.state.accounts[GLOBEX]
    play = "ansible-playbook hermes.workers.deploy -i inventories/mine -e hermes_sleep_after=20m"
    account.suspended = True
    output = walk.type(f"{play} --limit cloudflare -vvv || true")
    account.suspended = False
    assert "3 deployments: 2 changed, 1 failed." in output
    refused = re.search(r"^carol .*", output, re.MULTILINE)
    assert refused and "worker of carol: Cloudflare answers: " in refused[0]
    assert "3 deployments: 1 changed, 0 failed." in walk.type(f"{play} --limit cloudflare")
    row = (
        r"^alice +https://alice\.acme\.workers\.dev +[0-9a-f]{16} +yes +ok, Hermes is awake +\S+ s$"
    )
    assert re.search(row, output, re.MULTILINE)


def test_a_batch_in_which_too_many_fail_is_the_last(
    printed: dict[str, str], walk: Walk, home: Path
) -> None:
    names = ("alice", "bob", "carol")

    def tokens() -> list[str]:
        return [(home / name / "api_token").read_text() for name in names]

    # Alice is in the first batch of two, and her input is refused.
    overlap = "{{ (inventory_hostname == 'alice') | ternary('soon', '1h') }}"
    (walk.folder / "overlap.json").write_text(json.dumps({"hermes_token_overlap": overlap}))
    play = "ansible-playbook hermes.workers.rotate_keys -i inventories/mine --limit cloudflare"
    play += " -e hermes_keys=api_token -e hermes_serial=2 -e @overlap.json"
    before = tokens()
    output = walk.type(f"{play} -e hermes_max_fail_percentage=49 || true")
    assert "2 deployments: 1 changed, 1 failed." in output
    assert "1 of the 2 deployments of this batch failed, and 49% may." in output
    assert "Not begun: carol." in output
    changed = [new != old for new, old in zip(tokens(), before, strict=True)]
    assert changed == [False, True, False]

    output = walk.type(f"{play} -e hermes_max_fail_percentage=50 || true")
    assert "3 deployments: 2 changed, 1 failed." in output
    assert tokens()[2] != before[2]


def test_a_token_of_a_vault_is_rotated_in_its_file(
    printed: dict[str, str], walk: Walk, home: Path
) -> None:
    """Alice alone is in the group canary, whose variables give her token."""
    folder = walk.folder / "inventories" / "mine" / "group_vars" / "canary"
    folder.mkdir()
    given = "hw_" + secrets.token_urlsafe(32)
    where = 'hermes_token_vault_file: "{{ inventory_dir }}/group_vars/canary/token.yml"\n'
    (folder / "main.yml").write_text(where)
    encrypt = "ansible-vault encrypt_string --stdin-name hermes_api_token"
    walk.type(f"printf %s '{given}' | {encrypt} > {folder}/token.yml")

    playbook = "ansible-playbook hermes.workers.{} -i inventories/mine --limit alice"
    worker = walk.plane.state.accounts[ACME].workers["alice"]
    walk.type(playbook.format("deploy"))
    assert worker.current.secrets()["API_TOKEN"] == given
    walk.type(f"{playbook.format('rotate_keys')} -e hermes_keys=api_token")
    new = worker.current.secrets()["API_TOKEN"]
    assert new not in (given, *(folder / "token.yml").read_text().split())
    assert worker.current.secrets()["API_TOKEN_PREVIOUS"] == given
    assert (home / "alice" / "api_token").read_text().strip() == new
    assert "No changes. 0 calls written." in walk.type(playbook.format("deploy"))
    shutil.rmtree(folder)


def test_playbooks_run_on_an_account_with_no_written_hosts(
    printed: dict[str, str], walk: Walk
) -> None:
    (walk.folder / "acme.hermes.yml").write_text(
        f"plugin: hermes.workers.deployments\naccount_id: {ACME}\n"
    )
    walk.env["CLOUDFLARE_API_TOKEN"] = KEYS["ACME_CLOUDFLARE_API_TOKEN"]
    output = walk.type(
        "ansible-playbook hermes.workers.status -i acme.hermes.yml --limit '!mallory'"
    )
    assert "https://alice.acme.workers.dev" in output
    assert "https://bob.acme.workers.dev" in output
    assert "carol" not in output
    hosts = "-i acme.hermes.yml --limit alice,bob -e hermes_provider=rehearsal"
    output = walk.type(
        f"ansible-playbook hermes.workers.rotate_keys {hosts} -e hermes_keys=api_token"
    )
    assert "2 deployments: 2 changed, 0 failed." in output


def test_no_token_was_used_in_another_account(printed: dict[str, str], walk: Walk) -> None:
    plane = walk.plane
    zones = {zone.id: zone.account for zone in plane.state.zones.values()}
    own = {
        plane.state.tokens[KEYS[f"{who}_CLOUDFLARE_API_TOKEN"]].id: account
        for who, account in (("ACME", ACME), ("GLOBEX", GLOBEX))
    }
    seen = set()
    for call in plane.calls:
        for kind, name in re.findall(r"/(accounts|zones)/([0-9a-f]{32})", call.path):
            account = zones[name] if kind == "zones" else name
            assert own[call.token] == account, str(call)
            seen.add((kind, account))
    assert seen == {(kind, account) for kind in ("accounts", "zones") for account in own.values()}


def test_no_secret_is_printed_or_kept(printed: dict[str, str], walk: Walk, home: Path) -> None:
    kept = {path: path.read_text() for path in (walk.folder / "kept").rglob("*") if path.is_file()}
    assert any(path.suffix == ".retry" for path in kept), (
        "a host failed, and Ansible was to note it"
    )
    workers = [
        one
        for account in (ACME, GLOBEX)
        for one in walk.plane.state.accounts[account].workers.values()
    ]
    values = {
        value for one in workers for version in one.versions for value in version.secrets().values()
    }
    values |= {*KEYS.values(), (home / "dave" / "api_token").read_text().strip()}
    # What somebody typed into the dashboard, or as a word of the command.
    values -= {"x", WRONG_KEY}
    for where, text in [*kept.items(), *enumerate(walk.printed)]:
        assert not [value for value in values if value in text], where

# SPDX-License-Identifier: Apache-2.0
"""Every command of README and docs works as printed: typed by an ordinary user, in 80 columns, without colour.

In a checkout, and installed from the tarball. What cannot be run here is named below, with what is tested in its place.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from plays import ROOT, Deployment, copy_checkout
from reading import Said, Shell, commands, give, home

CHECKOUT_PAGES = [
    "docs/deploy.md",
    "docs/operations.md",
    "docs/agent.md",
    "docs/models.md",
    "docs/dashboard.md",
    "docs/clients.md",
    "docs/reverse-proxy.md",
    "docs/lifecycle.md",
    "docs/backups.md",
    "docs/rotation.md",
    "docs/updates.md",
    "docs/docker-engine.md",
    "docs/cloudflare.md",
    "docs/rehearse.md",
    "docs/modules.md",
    "docs/multi-tenant.md",
]
"""Read in this order, in the checkout in which README's commands were typed."""
INSTALLED_PAGES = ["docs/installed.md"]
ELSEWHERE = {
    "make deploy INVENTORY=inventories/personal": "tests/integration/test_features.py"
    "::test_the_personal_assistant_is_deployed_and_stays_as_it_is",
    "make test": "tests/integration/test_printed_docs.py::test_every_page_is_read",
    "make rehearse": "tests/integration/test_rehearse.py"
    "::test_a_rehearsal_ends_in_a_verified_chat_and_leaves_nothing",
    "make live": "tests/integration/test_rehearse.py"
    "::test_a_live_run_that_is_ended_leaves_nothing_behind",
    "ansible-inventory -i fleet.hermes.yml": "tests/unit/plugins/test_deployments_inventory.py",
    "hermes.workers.deploy -i inventories/mine": "tests/integration/test_multi_tenant.py",
    "hermes.workers.status -i inventories/mine": "tests/integration/test_multi_tenant.py",
    "hermes.workers.rotate_keys -i inventories/mine": "tests/integration/test_multi_tenant.py",
    "hermes.workers.destroy -i inventories/mine": "tests/integration/test_multi_tenant.py",
}
"""Commands that build or deploy what another test does -> that test."""
REFUSED = {
    "make destroy": "nobody confirmed it",
    "make destroy INVENTORY=inventories/single": "hermes_platform",
    "make restore BACKUP=.hermes/backups/hermes-20260301-120000-0a1b2c3d.hermes": "there is no file",
    'make deploy ARGS="-e hermes_engine=docker"': "docker",
}
"""Commands that want a person, a file or an engine which are not here -> what their card names."""
EFFECTS = {
    "make deploy": "deployed and verified",
    'make deploy ARGS="--check --diff"': "No changes.",
    "make status": "hermes: running",
    "make lifecycle ACTION=sleep": "Hermes is asleep",
    "make restore": "restored",
    "make rotate-keys": "rotated",
    "ansible-playbook hermes.workers.deploy": "deployed and verified",
    "ansible-playbook hermes.workers.verify": "deployed and verified",
    "ansible-playbook hermes.workers.backup": "backed up",
    "ansible-playbook hermes.workers.restore -e hermes_backup=newest": "restored",
    "ansible-playbook hermes.workers.lifecycle -e hermes_action=sleep": "Hermes is asleep",
    "ansible-playbook hermes.workers.rotate_keys -e hermes_keys=api_token": "rotated api_token",
    "ansible-playbook hermes.workers.destroy -e hermes_confirm=yes": "destroyed",
}
"""What a command has to say of what it did."""


class Reader:
    """Types a page's commands and judges what comes of each."""

    def __init__(self, folder: Path, person: Path, deployment: Deployment, **env: str) -> None:
        self.folder, self.person, self.env = folder, person, env
        self.deployment = deployment
        self.read: set[str] = set()

    def read_page(self, page: str) -> None:
        """Type all commands of a page in a new shell."""
        shell = Shell(self.folder, self.person, {"DOCKER_HOST": "unix:///none.sock"} | self.env)
        self.read.add(page)
        for command in commands(page):
            if not any(name in command for name in ELSEWHERE):
                # The ports are this test's own.
                said = shell.type(command.replace("8787", str(self.deployment.port)))
                self.judge(said, command, shell.placeholders)
            if command.startswith("cd "):
                settle(shell.folder, self.deployment)
        self.folder = shell.folder

    def judge(self, said: Said, command: str, placeholders: list[str]) -> None:
        """Assert that a command did what its page says, or was refused by the card that is expected."""
        if command.startswith(("make ", "ansible-playbook ")):
            assert said.flaws() == [], f"{command}\n{said.output}"
        if command in REFUSED:
            assert said.code != 0, said.output
            assert REFUSED[command] in said.output, said.output
        elif placeholders and not command.startswith("export "):
            assert said.code != 0, said.output
            assert any(name.lower() in said.output.lower() for name in placeholders), said.output
        else:
            assert said.code == 0, f"{command}\n{said.output}"
            assert EFFECTS.get(command, "") in said.output, f"{command}\n{said.output}"
            assert '"choices"' in said.output or "curl" not in command, said.output


def settle(inventory: Path, deployment: Deployment) -> None:
    """Give a deployment its ports, beside an inventory and without touching it."""
    (inventory / "group_vars").mkdir(exist_ok=True)
    names = ("port", "providers_port", "dashboard_port")
    lines = [f"hermes_{name}: {getattr(deployment, name)}\n" for name in names]
    (inventory / "group_vars" / "all.yml").write_text("".join(lines))
    give(inventory / "group_vars")


@pytest.fixture(scope="module")
def person() -> Iterator[Path]:
    with home() as folder:
        yield folder


@pytest.fixture(scope="module")
def checkout(person: Path) -> Iterator[Reader]:
    """Somebody's clone, in which README's commands were typed."""
    upstream, folder = person / "upstream", person / "checkout"
    copy_checkout(upstream)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.com", "-C", str(upstream)]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "As it is"]):
        subprocess.run([*git, *words], check=True)
    subprocess.run(["git", "clone", "-q", str(upstream), str(folder)], check=True)
    deployment = Deployment("hermes", folder / ".hermes")
    settle(folder / "inventories" / "local", deployment)
    give(person)
    reader = Reader(folder, person, deployment)
    try:
        reader.read_page("README.md")
        yield reader
    finally:
        Shell(folder, person).type("make destroy CONFIRM=yes FORGET=yes")


@pytest.fixture(scope="module")
def installed(person: Path, checkout: Reader) -> Iterator[Reader]:
    """A folder of somebody's with nothing but the tarball, and with Ansible on the path."""
    folder = person / "elsewhere"
    folder.mkdir()
    give(folder)
    path = f"{checkout.folder}/.venv/bin:{Shell(folder, person).environment['PATH']}"
    built = Shell(checkout.folder, person, {"PATH": path}).type(
        f"ansible-galaxy collection build --output-path {folder}"
    )
    assert built.code == 0, built.output
    reader = Reader(folder, person, Deployment("hermes", folder / "hermes" / ".hermes"), PATH=path)
    try:
        yield reader
    finally:
        Shell(reader.folder, person, {"PATH": path}).type(
            "ansible-playbook hermes.workers.destroy -e hermes_confirm=yes -e hermes_forget=true"
        )


@pytest.mark.parametrize("page", CHECKOUT_PAGES)
def test_its_commands_work_in_a_checkout(page: str, checkout: Reader) -> None:
    checkout.read_page(page)


@pytest.mark.parametrize("page", INSTALLED_PAGES)
def test_its_commands_work_after_an_installation(page: str, installed: Reader) -> None:
    installed.read_page(page)
    shell = Shell(installed.folder, installed.person, dict(installed.env))
    refused = shell.type("ansible-playbook hermes.workers.status")
    assert refused.code != 0 and refused.flaws() == [], refused.output
    assert "hermes: FAILED\n  hermes: not deployed" in refused.output
    assert "`ansible-playbook hermes.workers.deploy -i hosts.yml`" in refused.output
    (named,) = re.findall(r"Docs: \S+ in\s+(\S+)", refused.output)
    assert (Path(named.replace("~", str(installed.person))) / "errors.md").is_file()


def test_every_page_is_read() -> None:
    pages = {
        f"docs/{path.name}"
        for path in (ROOT / "docs").glob("*.md")
        if commands(f"docs/{path.name}")
    }
    assert pages == {*CHECKOUT_PAGES, *INSTALLED_PAGES}


def test_what_is_tested_elsewhere_is_tested_there() -> None:
    printed = [command for page in ("README.md", *CHECKOUT_PAGES) for command in commands(page)]
    for command, test in ELSEWHERE.items():
        assert any(command in one for one in printed), command
        file, _, name = test.partition("::")
        tree = ast.parse((ROOT / file).read_text())
        assert not name or name in {getattr(node, "name", "") for node in tree.body}
    assert REFUSED.keys() <= set(printed)
    assert not [
        command
        for command in printed
        if re.search(r"^ansible-(?!inventory|vault)", command)
        and "-i inventories/mine" not in command
    ], "it is on nobody's PATH"

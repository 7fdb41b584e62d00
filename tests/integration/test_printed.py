# SPDX-License-Identifier: Apache-2.0
"""Every command that a card prints works as printed, from where it is printed, on the deployment that is meant.

Deployed by name from the installed collection, in a folder that is no checkout, one of two hosts, told everything by
`-e`; the model's endpoint answers in one piece and counts no tokens.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from plays import ROOT, Deployment, clean_environment, run

from tests.processes import wait_for_ends
from tests.standins.provider import Provider

KEY = "sk-canary-of-the-printed-commands"
HOSTS = {
    "ansible_connection": "local",
    "ansible_python_interpreter": "{{ ansible_playbook_python }}",
}


@dataclass
class Shell:
    """A person's shell in a folder of theirs."""

    folder: Path

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
        collections = str(ROOT / ".ansible" / "collections")
        env = clean_environment(PATH=path, ANSIBLE_COLLECTIONS_PATH=collections)
        return run(["sh", "-c", command], self.folder, env)

    def ok(self, command: str) -> str:
        done = self.run(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        return done.stdout


def below(output: str, heading: str) -> list[str]:
    """The commands that a card lists below a heading."""
    block = re.search(rf"^{heading}:\n((?:  .+\n)+)", output, re.MULTILINE)
    assert block, output
    return [line.strip() for line in block[1].splitlines()]


def advised(output: str) -> str:
    """The command that a card says to run."""
    found = re.search(r"`(ansible-playbook .+?)`", output)
    assert found, output
    return found[1]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Provider]:
    with Provider(key=KEY, bare=True) as running:
        yield running


@pytest.fixture(scope="module")
def printed(make_deployment: Callable[..., Deployment], endpoint: Provider) -> Deployment:
    return make_deployment("printed", hermes_provider_base_url=f"{endpoint.url}/v1")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    folder = tmp_path_factory.mktemp("a folder")
    hosts = {"printed": {}, "other": {}}
    (folder / "hosts.yml").write_text(json.dumps({"all": {"hosts": hosts, "vars": HOSTS}}))
    return Shell(folder)


@pytest.fixture(scope="module")
def place(printed: Deployment) -> str:
    return f"-i hosts.yml -l printed -e hermes_state_dir={printed.home} -e hermes_platform=workerd"


@pytest.fixture(scope="module")
def deployed(shell: Shell, printed: Deployment, place: str, endpoint: Provider) -> str:
    ports = (
        f"-e hermes_port={printed.port} -e hermes_providers_port={printed.providers_port}"
        f" -e hermes_dashboard_port={printed.dashboard_port}"
    )
    model = f"-e hermes_default_model=custom/small -e hermes_provider_base_url={endpoint.url}/v1"
    key = f"-e custom_api_key={KEY}"
    return shell.ok(f"ansible-playbook hermes.workers.deploy {place} {ports} {model} {key}")


def test_what_comes_next_works(deployed: str, shell: Shell) -> None:
    curl, logs, _destroy = below(deployed, "Next")
    assert "The stand-in heard" in shell.ok(curl)
    assert "printed: Hermes" in shell.ok(logs)


def test_the_plan_says_where_each_value_came_from(deployed: str, printed: Deployment) -> None:
    """What `-e` said is not laid to the inventory, nor to a default."""
    for row, value, source in (
        ("name", "printed", "the host's name"),
        ("address", printed.url, "-e"),
        ("model", "custom/small", "-e"),
        ("key", "CUSTOM_API_KEY", "-e"),
        ("sleeps after", "4h", "default"),
    ):
        found = re.search(rf"^  {row} +(\S+) +\((.+)\)$", deployed, re.MULTILINE)
        assert found and found.groups() == (value, source), (row, found)


def test_an_endpoint_without_counts_is_noted(deployed: str) -> None:
    assert "deployed and verified" in deployed
    assert "note         the endpoint tells no token counts" in deployed


def test_no_secret_is_printed_or_noted(deployed: str, printed: Deployment) -> None:
    assert KEY not in deployed
    notes = [path for path in printed.state.iterdir() if path.is_file()]
    assert [path.name for path in notes if KEY in path.read_text(errors="replace")] == []


@pytest.mark.usefixtures("deployed")
def test_plays_that_ask_a_deployment_look_where_it_is(
    shell: Shell, printed: Deployment, place: str
) -> None:
    compared = shell.ok(f"ansible-playbook hermes.workers.status {place} --check")
    assert re.search(rf"processes +ports {printed.port}, .* -> 8787, ", compared), compared
    assert re.search(rf"before +hermes_port: '{printed.port}'", compared), compared
    keys = "-e hermes_keys=dashboard_sessions --check"
    rotated = shell.ok(f"ansible-playbook hermes.workers.rotate_keys {place} {keys}")
    assert re.search(rf"address +{printed.url} +\(found\)", rotated), rotated
    assert re.search(rf"hermes_port: {printed.port} +\(the inventory makes it 8787\)", rotated)
    model = "-e hermes_default_model=custom/small -e custom_api_key=" + KEY
    url = f"-e hermes_provider_base_url={printed.variables['hermes_provider_base_url']}"
    verified = shell.ok(f"ansible-playbook hermes.workers.verify {place} {model} {url}")
    assert f"URL          {printed.url}" in verified
    assert re.search(rf"address +{printed.url} +\(found\)", verified), verified


@pytest.mark.usefixtures("deployed")
def test_a_backup_is_put_back_as_printed(shell: Shell, place: str) -> None:
    kept = shell.ok(f"ansible-playbook hermes.workers.backup {place}")
    (restore,) = below(kept, "To have it back")
    assert "printed: restored" in shell.ok(restore)


@pytest.mark.usefixtures("deployed")
def test_what_was_stopped_starts_as_printed(shell: Shell, printed: Deployment, place: str) -> None:
    supervisor = printed.supervisor()
    supervisor.terminate()
    wait_for_ends([supervisor])
    stopped = shell.ok(f"ansible-playbook hermes.workers.status {place}")
    assert KEY not in stopped
    refused = shell.run(f"ansible-playbook hermes.workers.verify {place}")
    assert refused.returncode != 0 and "its processes do not run" in refused.stdout
    assert advised(refused.stdout) == advised(stopped)
    # The key is a secret, so that it is asked for again.
    again = shell.ok(f"CUSTOM_API_KEY={KEY} {advised(stopped)}")
    assert printed.call("GET", "/api/health").status == 200, again


@pytest.mark.usefixtures("deployed")
def test_destroy_and_its_way_back_work_as_printed(
    deployed: str, shell: Shell, printed: Deployment
) -> None:
    destroy = below(deployed, "Next")[2]
    unsaid = shell.run(destroy.replace("-e hermes_platform=workerd", ""))
    assert (
        unsaid.returncode != 0 and "hermes_platform: printed was deployed to this" in unsaid.stdout
    )
    asked = shell.run(destroy)
    assert asked.returncode != 0 and "nobody confirmed it" in asked.stdout, asked.stdout
    gone = shell.ok(advised(asked.stdout).replace("hermes_confirm=yes", "confirm=y"))
    assert "printed: destroyed" in gone and "DEPRECATION" not in gone
    assert not printed.state.exists()
    deploy, restore = below(gone, "To have it back")
    back = shell.ok(f"CUSTOM_API_KEY={KEY} {deploy}")
    assert f"URL          {printed.url}" in back
    assert "printed: restored" in shell.ok(restore)
    assert printed.status()["backups"]["count"] > 0

# SPDX-License-Identifier: Apache-2.0
"""Further packages beside Hermes: found once, there in a turn, and shared by who asks for the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from plays import Deployment, run
from runtimes import furnished

PACKAGES = ["humanize==4.9.0", "more-itertools==10.5.0"]

VENV = ".runtime/images/*/venv/lib/python3*/site-packages"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder in which no other test installs a Hermes of its own: bytecode comes from the newest one."""
    with furnished(tmp_path_factory.mktemp("packages-home")) as folder:
        yield folder


def test_packages_are_found_once_and_are_there_in_a_turn(
    make_deployment: Callable[..., Deployment],
) -> None:
    deployment = make_deployment(
        "packages",
        hermes_provider="rehearsal",
        hermes_host_tools=True,
        hermes_packages={"python": ["humanize==0.0.99"]},
    )
    refused = deployment.play("deploy")
    assert "no registry that is asked here has humanize==0.0.99" in refused.output
    assert "Nothing was changed." in refused.output
    assert not deployment.state.exists()

    deployment.variables["hermes_packages"] = {"python": PACKAGES}
    first = deployment.deploy()
    assert "resolving its further packages" in first.output
    assert ", ".join(PACKAGES) in first.output and "hermes_packages: resolved" in first.output
    program = "import humanize, more_itertools; print(humanize.naturalsize(3e6))"
    command = f"echo '{program}' > size.py && python3 size.py"
    answer = deployment.chat(f"call terminal {json.dumps({'command': command})}")
    assert "3.0 MB" in answer.said, answer.said

    # Something that it was allowed to run replaces one, and no file of ours.
    (notes,) = deployment.state.parent.glob(f"{VENV}/humanize-4.9.0.dist-info/METADATA")
    other = notes.read_text().replace("Version: 4.9.0", "Version: 4.8.0", 1)
    # As an installer does it: what is installed is one file with what lies in the cache of it.
    notes.unlink()
    notes.write_text(other)
    replaced = deployment.play("verify", "-e", "hermes_verify=full")
    assert "hermes_packages.python: humanize is 4.8.0 in the running Hermes, not 4.9.0" in (
        replaced.output
    )
    # Who does what the card says has it again.
    (folder,) = re.findall(r"somebody changed (\S+): run", replaced.output)
    sleep, deploy = re.findall(r"run `(.+?)`", replaced.output)
    for order in (sleep, f"rm -r {folder}", deploy):
        typed = run(["sh", "-c", order])
        assert typed.returncode == 0, typed.stdout
    assert deployment.play("verify", "-e", "hermes_verify=full").code == 0

    second = deployment.deploy()
    assert second.changed(deployment.name) == 0
    assert "resolving" not in second.output

    images = deployment.state.parent / ".runtime" / "images"
    before = {*images.iterdir()}
    other = make_deployment(
        "alike",
        hermes_provider="rehearsal",
        hermes_packages={"python": [*reversed(PACKAGES)]},
    )
    shared = other.deploy()
    assert "resolving" not in shared.output and "installing Hermes" not in shared.output
    assert {*images.iterdir()} == before

    other.variables.pop("hermes_packages")
    gone = other.deploy()
    assert "Hermes in a new sandbox, because of a new image" in gone.output
    assert deployment.chat("Hello").status == 200

    def files(name: str) -> set[int]:
        found = [*images.glob(f"*/venv/lib/python3*/site-packages/hermes_cli/{name}")]
        assert len(found) > 1
        return {path.stat().st_ino for path in found}

    assert len(files("__pycache__/main.*.pyc")) == len(files("main.py")), (
        "one source, compiled once"
    )

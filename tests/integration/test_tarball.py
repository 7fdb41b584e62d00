# SPDX-License-Identifier: Apache-2.0
"""The built collection: what is in it, and what is not; test_printed_docs.py runs it by its full name."""

from __future__ import annotations

import configparser
import json
import posixpath
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml
from plays import ROOT, clean_environment, copy_checkout, run

BIN = ROOT / ".venv" / "bin"
CANARY = "sk-canary-of-the-tarball"


def ok(*command: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    done = run(command, cwd, clean_environment(**env))
    assert done.returncode == 0, done.stdout
    return done


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection, built from a copy of the checkout with an owner's files lying in it."""
    copy = tmp_path_factory.mktemp("source") / "checkout"
    copy_checkout(copy)
    for name in (".hermes/alice/api_token", "inventories/mine/group_vars/all/vault.yml", ".env"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(CANARY)
    ok(BIN / "ansible-galaxy", "collection", "build", cwd=copy)
    return next(copy.glob("hermes-workers-*.tar.gz"))


def test_nothing_of_the_owner_is_in_it(tarball: Path) -> None:
    with tarfile.open(tarball) as archive:
        members = [member for member in archive if member.isfile()]
        holding = [m.name for m in members if CANARY.encode() in archive.extractfile(m).read()]
    assert holding == []
    names = {member.name for member in members}
    assert {"playbooks/deploy.yml", "worker/src/index.ts", "container/requirements.lock"} <= names
    assert not [name for name in names if name.startswith(("tests/", "inventories/"))]


def test_an_execution_environment_has_it_with_what_it_needs(tarball: Path, tmp_path: Path) -> None:
    """As far as no base image is needed: the context that is built, and what is found in the collection."""
    builder = ROOT / ".venv-test" / "bin" / "ansible-builder"
    for path in (ROOT / "execution-environment.yml", tarball):
        shutil.copy(path, tmp_path)
    ok(builder, "create", cwd=tmp_path)
    context = tmp_path / "context" / "_build"
    (asked,) = yaml.safe_load((context / "requirements.yml").read_text())["collections"]
    assert asked["type"] == "file"
    given = context / asked["name"]
    assert given.read_bytes() == tarball.read_bytes(), (
        "the one that is built is the one that is installed"
    )
    installed = tmp_path / "installed" / "ansible_collections" / "hermes" / "workers"
    with tarfile.open(given) as archive:
        archive.extractall(installed, filter="data")
    found = yaml.safe_load(ok(builder, "introspect", tmp_path / "installed", cwd=tmp_path).stdout)
    needed = {re.match("[a-z-]+", line)[0] for line in found["python"]}
    assert needed == {"requests", "uv"}


def test_its_pages_lead_somewhere(tarball: Path) -> None:
    """A link in the documentation of an installed collection leads to what was installed."""
    with tarfile.open(tarball) as archive:
        names = set(archive.getnames())
        pages = [name for name in names if name.endswith(".md")]
        links = [
            (page, posixpath.normpath(posixpath.join(posixpath.dirname(page), target)))
            for page in pages
            for target in re.findall(
                r"\]\(([^)#:]+)(?:#[^)]*)?\)", archive.extractfile(page).read().decode()
            )
        ]
    assert len(links) > 50
    assert [(page, target) for page, target in links if target not in names] == []


def test_a_beginning_comes_along(tarball: Path) -> None:
    with tarfile.open(tarball) as archive:
        hosts = archive.extractfile("docs/sample/hosts.yml").read()
        configuration = archive.extractfile("docs/sample/ansible.cfg").read().decode()
    assert yaml.safe_load(hosts) == yaml.safe_load(
        (ROOT / "inventories/local/hosts.yml").read_text()
    )
    ours, sample = configparser.ConfigParser(), configparser.ConfigParser()
    ours.read(ROOT / "ansible.cfg")
    sample.read_string(configuration)
    assert sample["defaults"]["stdout_callback"] == "hermes.workers.cards"
    here = {"inventory": "hosts.yml"}
    kept = {name: ours["defaults"].get(name) for name in sample["defaults"]} | here
    assert dict(sample["defaults"]) == kept, "failures read as in the checkout"


def test_galaxy_takes_it(tarball: Path) -> None:
    """What galaxy-importer asks beyond what ansible-galaxy does: it refuses a collection without these."""
    with tarfile.open(tarball) as archive:
        told = json.load(archive.extractfile("MANIFEST.json"))["collection_info"]
        runtime = yaml.safe_load(archive.extractfile("meta/runtime.yml").read())
    assert told["repository"].startswith("https://")
    assert told["tags"] and "infrastructure" in told["tags"]
    assert told["readme"] == "README.md" and runtime["requires_ansible"]


def test_its_playbooks_can_be_checked_without_an_inventory(tarball: Path, tmp_path: Path) -> None:
    """As galaxy-importer does, by ansible-lint."""
    installed = tmp_path / "ansible_collections" / "hermes" / "workers"
    with tarfile.open(tarball) as archive:
        archive.extractall(installed, filter="data")
    playbooks = sorted((installed / "playbooks").glob("*.yml"))
    assert len(playbooks) > 8
    (tmp_path / "ansible.cfg").write_text("[defaults]\n")
    words = ("--syntax-check", "-i", tmp_path / "none", *playbooks)
    done = ok(
        *(BIN / "ansible-playbook", *words),
        cwd=installed,
        ANSIBLE_COLLECTIONS_PATH=str(tmp_path),
        ANSIBLE_CONFIG=str(tmp_path / "ansible.cfg"),
    )
    assert "no such inventory" not in done.stdout

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What Cloudflare has fixed of a deployment is planned with, whatever the inventory says by now."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.account import Account
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.deployed import Deployed
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.place import CloudflarePlace
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.place import WorkerdPlace


def place(wanted: str, found: dict[str, str] | None) -> CloudflarePlace:
    """A place with what was asked of Cloudflare already. found: the Worker's variables; None: there is none."""
    made = object.__new__(CloudflarePlace)
    made.settings = Settings(name="alice", platform="cloudflare", location=wanted)
    made.wanted_location = wanted
    ours = ["alice"] if found is not None else []
    deployed = Deployed(found is not None, {"HERMES_PLATFORM": "cloudflare", **(found or {})})
    account = Account(subdomain="acme", ours=ours, named=["alice", "bob"])
    made.__dict__ |= {"account": account, "deployed": deployed, "reference": "r", "api": None}
    assert made._account_problems() == []
    return made


@pytest.mark.parametrize(
    ("wanted", "found", "effective", "told"),
    [
        ("weur", None, "weur", ""),
        ("", None, "", ""),
        ("weur", {"HERMES_LOCATION": "weur"}, "weur", ""),
        ("weur", {"HERMES_LOCATION": "enam"}, "enam", "made in enam"),
        ("weur", {}, "", "made near its first request"),
        # Nobody asks for anything: there is nothing to tell.
        ("", {"HERMES_LOCATION": "enam"}, "enam", ""),
    ],
)
def test_a_deployment_stays_where_it_was_made(
    wanted: str, found: dict[str, str] | None, effective: str, told: str
) -> None:
    made = place(wanted, found)
    assert made.settings.location == effective
    notes = made.notes()
    assert [told in note and "without effect" in note for note in notes] == ([True] if told else [])


def test_the_estimate_counts_whoever_shares_the_account() -> None:
    assert place("", None).settings.deployments == 2


def test_a_program_that_an_image_would_bring_is_looked_for_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = object.__new__(WorkerdPlace)
    made.settings, made.containers = Settings(features=["git", "search"]), None
    monkeypatch.setenv("PATH", str(tmp_path))
    (problem,) = made._programs()
    assert problem.subject == "hermes_features.git" and "git is not on this" in problem.sentence
    (tmp_path / "git").write_text("#!/bin/sh\n")
    (tmp_path / "git").chmod(0o755)
    assert made._programs() == []


def test_a_package_of_debian_is_looked_for_on_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = object.__new__(WorkerdPlace)
    packages = {"debian": ["jq=1.6-2", "libjq1=1.6-2"], "python": ["pandas==2.2.3"]}
    made.settings, made.containers = Settings(packages=packages), None
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, text in (("jq", ""), ("dpkg-query", 'echo "installed of $4" | grep -v libjq1')):
        (tmp_path / name).write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (problem,) = made._programs()
    assert problem.subject == "hermes_packages.debian"
    assert "libjq1 is not on this machine" in problem.sentence
    (tmp_path / "dpkg-query").write_text('#!/bin/sh\necho "installed"\n')
    assert made._programs() == []
    (tmp_path / "dpkg-query").unlink()
    (tmp_path / "jq").unlink()
    assert len(made._programs()) == 2

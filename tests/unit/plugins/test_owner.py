# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A run as somebody else than the files' owner is refused before it locks anybody out, and told after it has."""

from __future__ import annotations

import importlib.util
import os
import pwd
from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.plugin_utils.actions.card_action import system_card
from ansible_collections.hermes.workers.plugins.plugin_utils.state import owner
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder

PERSON = os.geteuid() or pwd.getpwnam("daemon").pw_uid
"""Somebody whom this machine knows and who is not root."""
NAME = pwd.getpwuid(PERSON).pw_name
STRANGER = 3_000_000_000


ROOT = Path(__file__).resolve().parents[3]
spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "requirements" / "bootstrap.py")
bootstrap = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bootstrap)


def be(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)


def give(*paths: Path, uid: int = PERSON) -> None:
    """Make files somebody's; where the tests are no root's, they are the person's already."""
    for path in paths if os.getuid() == 0 else ():
        os.chown(path, uid, -1)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A person's folder, without a state folder."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    give(folder)
    return folder


@pytest.fixture
def deployment(checkout: Path) -> StateFolder:
    """A deployment of the person's."""
    made = StateFolder(str(checkout / ".hermes"), "alice")
    made.create()
    made.keep_token("hw_0123456789abcdef")
    give(made.state_dir, made.runtime, made.folder, *made.folder.iterdir())
    return made


def test_root_in_a_persons_checkout_is_refused_before_the_first_folder(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(monkeypatch, 0)
    (problem,) = owner.problems(StateFolder(str(checkout / ".hermes"), "alice"))
    assert f"belongs to {NAME}" in problem.sentence
    assert f"run it as {NAME}, without sudo" in problem.remedy


def test_root_among_a_persons_deployments_is_refused(
    deployment: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(monkeypatch, 0)
    assert NAME in owner.problems(deployment)[0].sentence


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("uid", [0, owner.NOBODY, STRANGER], ids=["root", "nobody", "a number"])
def test_root_is_fine_where_root_or_no_person_owns_the_folder(tmp_path: Path, uid: int) -> None:
    """As in CI and in containers, where a checkout may come from outside and has a number that nobody bears there."""
    give(tmp_path, uid=uid)
    assert owner.problems(StateFolder(str(tmp_path / ".hermes"), "alice")) == []


def test_the_owner_is_fine(deployment: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, PERSON)
    assert owner.problems(deployment) == []
    assert owner.problems(StateFolder(str(deployment.state_dir), "bob")) == []
    assert owner.problems(StateFolder("/not/there/.hermes", "alice")) == []


def test_whoever_is_locked_out_is_told_what_to_type(
    deployment: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(monkeypatch, STRANGER)
    card = Card(owner.problems(deployment)).render()
    assert f"{deployment.state_dir}: belongs to {NAME}, and this run is {STRANGER}'s" in card
    assert f"sudo chown -R {STRANGER} {deployment.state_dir}" in card


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", ["api_token", "build"])
def test_one_file_of_another_run_is_found(
    deployment: StateFolder, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = deployment.folder / name
    give(path, uid=0)
    be(monkeypatch, PERSON)
    (problem,) = owner.problems(deployment)
    assert problem.subject == str(path)
    assert f"sudo chown -R {NAME} {deployment.state_dir}" in problem.remedy


def test_a_missing_right_names_the_owner(
    deployment: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = deployment.token_file
    refused = PermissionError(13, "Permission denied", str(path))
    be(monkeypatch, STRANGER)
    assert f"sudo chown -R {STRANGER} {path}" in system_card(refused).render()
    be(monkeypatch, PERSON)
    assert "Permission denied" in system_card(refused).render()


def test_root_makes_no_environment_in_a_persons_checkout(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    be(monkeypatch, 0)
    assert bootstrap.main(str(checkout / ".venv"), "none.lock") == 1
    told = " ".join(capsys.readouterr().err.split())
    assert f"belongs to {NAME}, and this run is root's" in told
    assert f"run it as {NAME}, without sudo" in told
    assert list(checkout.iterdir()) == []


def test_an_environment_of_roots_is_told_with_what_to_type(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = checkout / ".venv"
    made.mkdir()
    be(monkeypatch, STRANGER)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != made)
    assert bootstrap.main(str(made), "none.lock") == 1
    told = " ".join(capsys.readouterr().err.split())
    assert f"sudo chown -R {STRANGER} {made}" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("uid", [0, STRANGER], ids=["root", "a number"])
def test_root_makes_one_where_no_person_owns_the_checkout(tmp_path: Path, uid: int) -> None:
    give(tmp_path, uid=uid)
    assert bootstrap.owned(str(tmp_path / ".venv"))

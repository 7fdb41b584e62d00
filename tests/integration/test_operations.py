# SPDX-License-Identifier: Apache-2.0
"""The playbooks for a running deployment: lifecycle, backup and restore, by one deployment that talks."""

from __future__ import annotations

import gzip
import json
import stat
from pathlib import Path

import pytest
from plays import Deployment, Play

SESSION = "operations"
CANARY = "refresh-token-5d1f0c77a2"


def backups(deployment: Deployment) -> list[Path]:
    return sorted((deployment.home / "backups").glob(f"{deployment.name}-*"))


def signed_in(deployment: Deployment) -> list[Path]:
    """Return where a running Hermes keeps its sign-ins."""
    (home,) = deployment.state.glob("**/disks/*/disk/home/.hermes")
    return [home / "auth.json", home / "mcp-tokens" / "example.json"]


def is_signed_in(deployment: Deployment) -> bool:
    return all(path.exists() and CANARY in path.read_text() for path in signed_in(deployment))


def lifecycle(deployment: Deployment, action: str, *more: str) -> Play:
    return deployment.play("lifecycle", "-e", f"hermes_action={action}", *more)


def test_what_is_so_already_changes_nothing(deployment: Deployment) -> None:
    predicted = lifecycle(deployment, "sleep", "--check")
    assert predicted.code == 0 and predicted.changed(deployment.name) == 1, predicted.output
    assert deployment.instance_state() == "awake"

    for action, state in (("sleep", "asleep"), ("wake", "awake")):
        first = lifecycle(deployment, action)
        assert first.code == 0 and first.changed(deployment.name) == 1, first.output
        assert deployment.instance_state() == state
        again = lifecycle(deployment, action)
        assert again.code == 0 and again.changed(deployment.name) == 0, again.output


def test_restart_boots_hermes_anew(deployment: Deployment) -> None:
    boots = deployment.status()["boots"]
    play = lifecycle(deployment, "restart")
    assert play.code == 0, play.output
    assert deployment.status()["boots"] == boots + 1


def test_a_backup_is_kept_once_and_put_back(deployment: Deployment) -> None:
    deployment.chat("My parrot is called Flint.", session=SESSION)
    for path in signed_in(deployment):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"providers": {"example": {"refresh_token": CANARY}}}))
    play = deployment.play("backup")
    assert play.code == 0 and play.changed(deployment.name) == 1, play.output
    (kept,) = backups(deployment)
    line, packed = kept.read_bytes().split(b"\n", 1)
    assert CANARY.encode() not in line + gzip.decompress(packed)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600

    assert lifecycle(deployment, "sleep").code == 0
    again = deployment.play("backup")
    assert again.code == 0 and again.changed(deployment.name) == 0, again.output
    assert backups(deployment) == [kept]
    assert deployment.instance_state() == "asleep", "a backup must not wake Hermes"

    kept.write_bytes(kept.read_bytes()[:-20])
    mended = deployment.play("backup")
    assert mended.code == 0 and mended.changed(deployment.name) == 1, mended.output
    assert backups(deployment) == [kept]

    deployment.chat("Forget the parrot.", session=SESSION)
    predicted = deployment.play("restore", "-e", f"hermes_backup={kept}", "--check")
    assert predicted.code == 0 and predicted.changed(deployment.name) == 1, predicted.output
    assert "Turn 3" in deployment.chat("Still there?", session=SESSION).said
    assert is_signed_in(deployment), "a sleep must not sign Hermes out"

    restored = deployment.play("restore", "-e", "hermes_backup=newest")
    assert restored.code == 0 and restored.changed(deployment.name) == 1, restored.output
    answer = deployment.chat("What now?", session=SESSION)
    assert "Turn 2" in answer.said and "Flint" in answer.said
    assert is_signed_in(deployment), "a backup brings no sign-ins and takes none away"


def test_a_damaged_backup_is_refused_and_hermes_runs_on(
    deployment: Deployment, tmp_path: Path
) -> None:
    whole = backups(deployment)[0].read_bytes()
    cut = tmp_path / "cut.hermes"
    cut.write_bytes(whole[:-20])
    boots = deployment.status()["boots"]
    play = deployment.play("restore", "-e", f"hermes_backup={cut}")
    assert play.code != 0 and "not a whole backup" in play.output, play.output
    assert deployment.instance_state() == "awake"
    assert deployment.status()["boots"] == boots


@pytest.mark.parametrize(
    ("playbook", "variables", "words"),
    [
        ("lifecycle", "hermes_action=slep", ["hermes_action", "slep", "restart-gateway"]),
        ("lifecycle", "hermes_state_dir=/nowhere/hermes", ["not deployed", "hermes_state_dir"]),
        ("restore", "hermes_backup=", ["hermes_backup", "not set", "newest"]),
        ("restore", "hermes_backup=/etc/hostname", ["hermes_backup", "not a backup of Hermes"]),
        ("restore", "hermes_backup=/nowhere", ["hermes_backup", "no file /nowhere"]),
    ],
)
def test_bad_input_is_one_card(
    deployment: Deployment, playbook: str, variables: str, words: list[str]
) -> None:
    play = deployment.play(playbook, "-e", "hermes_action=wake", "-e", variables)
    assert play.code != 0
    for word in [*words, "Nothing was changed."]:
        assert word in play.output, play.output
    assert "Traceback" not in play.output

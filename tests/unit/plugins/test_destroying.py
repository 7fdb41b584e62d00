# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What goes when a deployment on this machine is destroyed, in which order, and what stays when that fails."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.action import workerd_destroy
from ansible_collections.hermes.workers.plugins.plugin_utils.state import stored
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.at_boot import AtBoot
from api_server import Reply
from deployed_here import DeployedHere, error, here

__all__ = ["here"]

Destroy = workerd_destroy.ActionModule
SLEEP = "POST /api/instance/sleep"
YES = {"confirmed": True}


class Going:
    """A deployment whose processes, boot entry and object only note what becomes of them."""

    def __init__(self, here: DeployedHere, patch: pytest.MonkeyPatch) -> None:
        self.here, self.done, self.runs = here, list[str](), True
        self.backup: Path | Exception = here.deployment.state_dir / "backups" / "alice-1.hermes"
        (here.deployment.folder / "storage" / "object").mkdir()
        here.answers[SLEEP] = lambda _call: self.note("saved", Reply(200, {}))
        patch.setattr(
            workerd_destroy.Processes, "stop", lambda _processes: self.note("stopped", self.runs)
        )
        patch.setattr(workerd_destroy.stored, "newest", lambda *_: self._newest())
        patch.setattr(AtBoot, "remove", lambda _unit: self.note("not at boot", None))

    def note(self, what: str, value: Any) -> Any:
        self.done.append(what)
        return value

    def _newest(self) -> Path:
        self.done.append("backed up")
        if isinstance(self.backup, Exception):
            raise self.backup
        self.backup.parent.mkdir(exist_ok=True)
        self.backup.touch()
        return self.backup

    def run(self, check: bool = False, **options: Any) -> dict[str, Any]:
        return self.here.run(Destroy, options, check=check)

    @property
    def is_there(self) -> bool:
        return self.here.deployment.folder.is_dir()


@pytest.fixture
def going(here: DeployedHere, monkeypatch: pytest.MonkeyPatch) -> Iterator[Going]:
    return Going(here, monkeypatch)


def test_it_is_saved_stopped_and_backed_up_before_its_files_go(going: Going) -> None:
    result = going.run(**YES)
    assert result["changed"] is True and result["backup"] == str(going.backup)
    assert going.done == ["saved", "not at boot", "stopped", "backed up"]
    assert not going.is_there and going.backup.exists()  # type: ignore[union-attr]
    assert not going.here.deployment.runtime.exists()
    shown = "\n".join(result["shown"])
    assert "alice: destroyed\n  backup  state/backups/alice-1.hermes\n\nTo have it back:" in shown
    assert "hermes_backup=state/backups/alice-1.hermes" in shown
    again = going.run(**YES)
    assert again["changed"] is False


def test_what_does_not_run_is_backed_up_from_its_files(
    going: Going, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(going.here.deployment), "supervisor", lambda _folder: None)
    assert going.run(**YES)["backup"] == str(going.backup)
    assert going.done == ["not at boot", "stopped", "backed up"]


def test_who_wants_it_forgotten_has_nothing_saved(going: Going) -> None:
    result = going.run(**YES, forget=True)
    assert going.done == ["not at boot", "stopped"] and not going.is_there
    assert result["backup"] is None and result["shown"][-1] == "  no backup was kept"


def test_one_that_never_kept_anything_has_no_backup(going: Going) -> None:
    (going.here.deployment.folder / "storage" / "object").rmdir()
    assert going.run(**YES)["backup"] is None
    assert going.done == ["not at boot", "stopped"] and not going.is_there


def test_an_object_that_never_saved_has_no_backup(going: Going) -> None:
    going.backup = stored.NoBackup("")
    result = going.run(**YES)
    assert not going.is_there and result["shown"][-1] == "  no backup was kept"


@pytest.mark.parametrize("told", [error(500, "Oh."), Reply(drop=True)], ids=["refused", "gone"])
def test_nothing_is_stopped_that_could_not_be_saved(going: Going, told: Reply) -> None:
    going.here.answers[SLEEP] = told
    result = going.run(**YES)
    if told.drop:  # nobody there: what the files hold is all that there is
        assert result["changed"] is True and "backed up" in going.done
    else:
        assert result["msg"].startswith(
            "alice: its state could not be saved before it is destroyed: Oh."
        )
        assert going.done == [] and going.is_there


@pytest.mark.parametrize("runs", [True, False])
@pytest.mark.parametrize(
    ("flaw", "words"),
    [
        (
            stored.NoBackup("it is damaged"),
            "alice: its last backup cannot be taken: it is damaged.",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "disk: no space left below "),
    ],
    ids=["damaged", "full"],
)
def test_without_a_backup_its_files_stay(
    going: Going, flaw: Exception, words: str, runs: bool
) -> None:
    going.backup, going.runs = flaw, runs
    card = going.run(**YES)["msg"]
    assert card.startswith(words) and going.is_there
    assert "hermes_forget=yes`, which keeps no backup" in card
    changed = "Changed: processes stopped. Not changed: files and memory."
    assert (changed in card) is runs


def test_a_full_disk_is_no_reason_against_who_keeps_no_backup(
    going: Going, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_processes: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "state/alice/run")

    monkeypatch.setattr(workerd_destroy.Processes, "stop", full)
    card = going.run(**YES, forget=True)["msg"]
    assert card.startswith("disk: ") and "keeps no backup" not in card


def test_nothing_goes_that_nobody_confirmed(going: Going) -> None:
    for options, check in (({}, False), ({"only_plan": True}, False), (YES, True)):
        result = going.run(check=check, **options)
        assert going.is_there and going.done == [] and going.here.worker.writes == []
        assert bool(result.get("failed")) is (options == {})
    assert "hermes_confirm=yes" in going.run()["msg"]


@pytest.mark.parametrize("alone", [True, False])
def test_the_plan_names_all_that_goes(going: Going, alone: bool) -> None:
    deployment = going.here.deployment
    deployment.note_containers("/run/docker.sock", "alice-1")
    if not alone:
        (deployment.state_dir / "bob" / "build").mkdir(parents=True)
    result = going.run(only_plan=True)
    assert result["changed"] is False and result["exists"] is True
    shown = "\n".join(result["shown"])
    assert "stop    its processes (running)" in shown
    assert "remove  state/alice (token, build, logs, memory)" in shown
    assert "remove  its containers, snapshots and images at unix:/run/docker.sock" in shown
    assert "keep    a last backup in state/backups" in shown
    assert ("remove  state/.runtime (no other deployment uses it)" in shown) is alone
    (deployment.folder / "storage" / "object").rmdir()
    assert "keep " not in "\n".join(going.run(only_plan=True)["shown"])


def test_of_one_that_is_not_there_nothing_goes(going: Going) -> None:
    planned = going.run(name="bob", only_plan=True)
    assert planned["exists"] is False
    assert planned["shown"][1] == "bob: nothing to remove, there is no state/bob."
    assert going.run(name="bob", **YES) == {"changed": False}


def test_one_at_cloudflare_is_not_taken_for_one_here(going: Going) -> None:
    deployment = going.here.deployment
    deployment.keep_note("host", "alice.example.com")
    (deployment.folder / "storage" / "object").rmdir()
    card = going.run(**YES)["msg"]
    assert card.startswith("hermes_platform: alice was deployed to Cloudflare")
    assert going.is_there and going.done == []


def test_an_engine_that_does_not_answer_keeps_everything(going: Going) -> None:
    going.here.deployment.note_containers("/nowhere/docker.sock", "alice-1")
    result = going.run(**YES)
    assert result["failed"] and "/nowhere/docker.sock" in result["msg"]
    assert going.is_there and going.done == []


def test_its_containers_go_after_its_backup(going: Going, monkeypatch: pytest.MonkeyPatch) -> None:
    class Engine:
        def version(self) -> None:
            """Answer."""

    class Containers:
        def __init__(self, socket: str, session: str) -> None:
            self.socket, self.session, self.engine = socket, session, Engine()

        def remove_all(self) -> None:
            going.done.append(f"containers of {self.session}")

    monkeypatch.setattr(workerd_destroy, "Containers", Containers)
    going.here.deployment.note_containers("/run/docker.sock", "alice-1")
    going.run(**YES)
    assert going.done[-2:] == ["backed up", "containers of alice-1"] and not going.is_there

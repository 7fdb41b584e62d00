# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""The state folder: private, taken by one play at a time, and honest about what runs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.plugin_utils.state import folder, lock
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder

from tests.processes import alive, wait_for_ends


@pytest.fixture
def deployment(tmp_path: Path) -> StateFolder:
    made = StateFolder(str(tmp_path / "state"), "alice")
    made.create()
    return made


@pytest.fixture
def other_play() -> Iterator[int]:
    """The process id of something that runs as long as the test."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


def test_folders_are_their_owners_alone(deployment: StateFolder) -> None:
    for path in (deployment.state_dir, deployment.folder, *deployment.folder.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_folders_are_made_wherever_they_are_wanted_and_found_again(tmp_path: Path) -> None:
    for step in (StateFolder.create, StateFolder.create_shared):
        made = StateFolder(str(tmp_path / step.__name__ / "state"), "alice")
        step(made)
        step(made)
        assert made.runtime.is_dir()


def test_what_an_object_kept_is_told_from_an_empty_folder(tmp_path: Path) -> None:
    made = StateFolder(str(tmp_path), "alice")
    assert not made.has_storage()
    made.create()
    assert not made.has_storage()
    (made.folder / "storage" / "object").mkdir()
    assert made.has_storage()


def test_a_path_is_shown_as_a_person_would_type_it(
    deployment: StateFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert deployment.shown(deployment.token_file) == "state/alice/api_token"
    monkeypatch.chdir("/usr")
    assert deployment.shown(deployment.token_file) == str(deployment.token_file)


def test_what_is_not_there_is_forgotten_too(deployment: StateFolder) -> None:
    deployment.drop_token()
    deployment.end_rotation()
    deployment.note_proof(None)
    deployment.drop_note("agent")
    deployment.forget_containers()
    assert (deployment.token(), deployment.rotation(), deployment.containers()) == (None,) * 3
    deployment.token_file.write_text("\n")
    assert deployment.token() is None, "a file without a token"


def test_a_token_is_on_the_disk_before_it_is_the_one_that_counts(
    deployment: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Worker may have learned of it next: a loss of power must not leave its owner without."""
    kept: list[str] = []

    def fsync(descriptor: int) -> None:
        assert not deployment.token_file.exists()
        kept.append(Path(f"/proc/self/fd/{descriptor}").read_text())

    monkeypatch.setattr(os, "fsync", fsync)
    deployment.keep_rotation({"token": "hw_next"})
    deployment.keep_token("hw_next")
    assert kept == ['{"token": "hw_next"}\n', "hw_next\n"]


def test_the_token_is_private_and_kept_whole(deployment: StateFolder) -> None:
    assert deployment.token() is None
    token = folder.new_token()
    deployment.keep_token(token)
    assert deployment.token() == token
    assert token.startswith("hw_")
    assert len(token) == 46
    assert stat.S_IMODE(deployment.token_file.stat().st_mode) == 0o600


def test_a_play_takes_a_deployment_again_and_again(deployment: StateFolder) -> None:
    deployment.take("deploy")
    deployment.take("deploy")
    assert deployment.holder() is None


def test_another_play_is_named(deployment: StateFolder, other_play: int) -> None:
    record = {
        "pid": other_play,
        "started": lock.started_at(other_play),
        "purpose": "destroy",
        "user": "bob",
        "since": "today",
    }
    (deployment.folder / folder.LOCK).write_text(json.dumps(record))
    with pytest.raises(Card) as caught:
        deployment.take("deploy")
    card = caught.value.render()
    assert "destroy by bob" in card
    assert str(other_play) in card
    assert deployment.holder() == record


def test_the_lock_of_a_play_that_ended_does_not_hold(
    deployment: StateFolder, other_play: int
) -> None:
    record = {"pid": other_play, "started": "another process with this id"}
    (deployment.folder / folder.LOCK).write_text(json.dumps(record))
    deployment.take("deploy")


def test_the_lock_of_a_play_that_nobody_reaps_does_not_hold(
    deployment: StateFolder, other_play: int
) -> None:
    """As in a container whose first process is no init: of what has ended, the id stays for ever."""
    record = {"pid": other_play, "started": lock.started_at(other_play), "purpose": "deploy"}
    (deployment.folder / folder.LOCK).write_text(json.dumps(record))
    assert deployment.holder() == record
    os.kill(other_play, signal.SIGKILL)
    os.waitid(os.P_PID, other_play, os.WEXITED | os.WNOWAIT)
    assert lock.started_at(other_play) == record["started"], "it is still there"
    assert deployment.holder() is None
    deployment.take("deploy")


PLAY = """
import multiprocessing, os, signal, subprocess, sys
from ansible_collections.hermes.workers.plugins.plugin_utils.state.lock import end_with_play

def task(kind):
    if kind == "leads":
        os.setsid()
    end_with_play()
    if kind != "done":
        started = subprocess.Popen(["tail", "-f", "/dev/null"], stdout=subprocess.DEVNULL)
        print(os.getpid(), started.pid, flush=True)
        signal.pause()

worker = multiprocessing.get_context("fork").Process(target=task, args=(sys.argv[1],))
worker.start()
worker.join()
print("ended", flush=True)
"""


@contextlib.contextmanager
def play(kind: str) -> Iterator[subprocess.Popen[str]]:
    """Something that has a task of a kind done by a process of its own, as Ansible does."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", PLAY, kind],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("kind", ["leads", "follows"])
def test_what_a_killed_play_began_ends_and_nothing_beside_it(kind: str) -> None:
    with play(kind) as process:
        worker, started = map(psutil.Process, map(int, process.stdout.readline().split()))
        process.kill()
        try:
            wait_for_ends([worker, started] if kind == "leads" else [worker])
            assert kind == "leads" or alive(started.pid), "it may be anybody's in the play's group"
        finally:
            for each in (worker, started):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()


def test_a_task_that_is_done_ends_while_its_play_goes_on() -> None:
    with play("done") as process:
        assert process.communicate(timeout=60)[0] == "ended\n"


def test_the_holder_is_the_play_and_its_user(
    deployment: StateFolder, other_play: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the process of its own that Ansible has a task done by."""
    monkeypatch.setattr(
        lock.multiprocessing, "parent_process", lambda: SimpleNamespace(pid=other_play)
    )
    monkeypatch.setattr(folder, "end_with_play", lambda: None)
    for user in ("ada", ""):
        monkeypatch.setenv("USER", user)
        deployment.take("deploy")
        record = json.loads((deployment.folder / folder.LOCK).read_text())
        assert (record["pid"], record["user"]) == (other_play, user or str(os.getuid()))


def test_what_is_no_process_does_not_live(other_play: int) -> None:
    """Of the numbers below 1 the system takes some for whole groups of processes."""
    for pid in (None, "1", 0, -1, -other_play):
        assert not lock.alive(pid)
    assert lock.alive(other_play)
    os.kill(other_play, signal.SIGKILL)
    os.waitpid(other_play, 0)
    assert not lock.alive(other_play)


def test_a_supervisor_runs_as_long_as_it_holds_its_record(deployment: StateFolder) -> None:
    path = deployment.folder / folder.SUPERVISOR_RECORD
    path.write_text(json.dumps({"pid": os.getpid(), "ports": {}}))
    assert deployment.supervisor() is None
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert deployment.supervisor() == {"pid": os.getpid(), "ports": {}}
    assert deployment.supervisor() is None


@pytest.fixture
def recorded(deployment: StateFolder, other_play: int) -> StateFolder:
    """A deployment with a container, whose supervisor was killed and left a process."""
    deployment.note_containers("/run/docker.sock", "alice-1")
    record = {"engine": {"pid": other_play, "folder": str(deployment.folder)}}
    (deployment.folder / folder.PROCESSES_RECORD).write_text(json.dumps(record))
    assert deployment.containers() == {"socket": "/run/docker.sock", "session": "alice-1"}
    assert len(deployment.orphans()) == 1
    return deployment


def test_what_a_copied_folder_names_is_not_its_own(recorded: StateFolder) -> None:
    shutil.copytree(recorded.state_dir, recorded.state_dir.with_name("copy"))
    copy = StateFolder(str(recorded.state_dir.with_name("copy")), "alice")
    assert copy.containers() is None
    assert copy.orphans() == []


def test_what_a_moved_folder_names_came_along(recorded: StateFolder) -> None:
    recorded.state_dir.rename(recorded.state_dir.with_name("moved"))
    moved = StateFolder(str(recorded.state_dir.with_name("moved")), "alice")
    assert moved.containers() == {"socket": "/run/docker.sock", "session": "alice-1"}
    assert len(moved.orphans()) == 1


def test_a_folder_that_was_moved_while_its_processes_ran_tells_where_from(
    deployment: StateFolder,
) -> None:
    path = deployment.folder / folder.SUPERVISOR_RECORD
    path.write_text(json.dumps({"pid": os.getpid(), "folder": str(deployment.folder)}))
    moved = StateFolder(str(deployment.state_dir.with_name("moved")), "alice")
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert deployment.moved_from() is None
        deployment.state_dir.rename(moved.state_dir)
        assert moved.moved_from() == str(deployment.folder)
    assert moved.moved_from() is None


def test_a_proof_is_of_one_version(deployment: StateFolder) -> None:
    assert not deployment.is_proved("1")
    deployment.note_proof("1")
    assert deployment.is_proved("1")
    assert not deployment.is_proved("2") and not deployment.is_unasked()
    deployment.note_proof("2", asked=False)
    assert deployment.is_proved("2") and deployment.is_unasked()
    assert not deployment.is_proved("1")
    deployment.note_proof("2")
    assert deployment.is_proved("2") and not deployment.is_unasked()
    deployment.note_proof(None)
    assert not deployment.is_proved("2") and not deployment.is_unasked()


def test_a_folder_that_cannot_be_made_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Card) as caught:
        StateFolder(str(tmp_path / "file" / "state"), "alice").create()
    card = caught.value.render()
    assert "cannot be written: Not a directory" in card and "hermes_state_dir" in card


def test_without_proc_a_process_is_told_from_a_later_one_by_ps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "stat_fields", lambda _pid: [])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lock.started_at(7) == "", "no ps either"
    (tmp_path / "ps").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "ps").chmod(0o755)
    assert lock.started_at(7) == "-o lstart= -p 7"

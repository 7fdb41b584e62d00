# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What the host's programs do with processes, locks and sockets that are others'; in this process."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tests.processes import alive

HOST = Path(__file__).parents[3] / "host"
# Says that it is there, and does not end when it is asked to.
DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)"


def loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, HOST / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Clock:
    """A time in which every look is a minute after the last one."""

    def __init__(self, pause: Callable[[float], None]) -> None:
        self.now, self.sleep = 0.0, pause

    def monotonic(self) -> float:
        self.now += 60
        return self.now


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, in the folder of a deployment; it pauses in no time."""
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    module = loaded("records")
    monkeypatch.setattr(module, "time", Clock(lambda _seconds: None))
    return module


@pytest.fixture
def deaf() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        yield process
        process.kill()


def noted(process: subprocess.Popen[bytes], later: float = 0.0) -> dict[str, Any]:
    created = psutil.Process(process.pid).create_time() + later
    return {"pid": process.pid, "created": created, "folder": os.getcwd()}


def test_what_does_not_end_when_it_is_asked_to_is_killed(
    records: Any, deaf: subprocess.Popen[bytes]
) -> None:
    records.write_processes({"engine": noted(deaf)})
    records.end_orphans()
    assert not alive(deaf.pid)
    assert not records.PROCESSES.exists()


def test_a_process_that_has_the_number_of_one_of_ours_is_left_alone(
    records: Any, deaf: subprocess.Popen[bytes]
) -> None:
    """After a reboot the numbers are given again."""
    records.write_processes({"engine": noted(deaf, later=-5.0)})
    records.end_orphans()
    assert alive(deaf.pid)
    assert not records.PROCESSES.exists()


@pytest.mark.parametrize("text", ["", "{", None], ids=["empty", "cut off", "none"])
def test_a_record_that_says_nothing_names_no_process(records: Any, text: str | None) -> None:
    if text is not None:
        records.PROCESSES.write_text(text)
    assert records.read_processes() == {}
    records.end_orphans()
    assert not records.PROCESSES.exists()


def test_somebody_who_asks_whether_it_lives_is_no_second_supervisor(
    records: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with records.RECORD.open("w") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        gone = SimpleNamespace(
            monotonic=lambda: 0.0, sleep=lambda _: fcntl.flock(asking, fcntl.LOCK_UN)
        )
        monkeypatch.setattr(records, "time", gone)
        with records.hold_record(), pytest.raises(BlockingIOError):
            fcntl.flock(asking, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_of_two_supervisors_the_second_gives_up(records: Any) -> None:
    with records.hold_record(), pytest.raises(BlockingIOError):
        records.hold_record()


def test_what_a_start_after_a_reboot_is_given_is_all_there_or_not_at_all(
    records: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"after_reboot": "start", "secrets": {}, "workerd_environment": {}, "drain": 1}
    records.keep_for_boot(settings)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        records.keep_for_boot(settings | {"drain": 2})
    assert json.loads(records.BOOT.read_text())["drain"] == 1


def test_of_a_kernel_that_cannot_hold_arrivals_nothing_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrivals = loaded("arrivals")
    monkeypatch.delattr(socket, "TCP_DEFER_ACCEPT")
    monkeypatch.setattr(sys, "platform", "darwin")
    listener: Any = SimpleNamespace()  # it would refuse
    arrivals.only_with_data(listener)
    arrivals.let_arrivals_in(listener)


def test_of_what_has_ended_nobody_is_served() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    assert loaded("arrivals").serves([ended.pid], 1) is False

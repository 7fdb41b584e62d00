# SPDX-License-Identifier: Apache-2.0
"""`make rehearse` and `make live` as somebody runs them; here the stand-in poses as the real account too."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import (
    REPOSITORY,
    Sources,
)
from plays import ROOT, clean_environment, run, wait_until
from runtimes import share_bytecode

from tests.cloudflare import ControlPlane
from tests.cloudflare.live import PREFIX, Account
from tests.cloudflare.rehearse import leftovers

ACCOUNT = "0123456789abcdef0123456789abcdef"
TOKEN = "cf-canary-of-a-real-account"


def environment(**more: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("HERMES_LIVE_")
    }
    return clean_environment(PYTHONPATH=str(ROOT / ".ansible" / "collections")) | kept | more


def command(program: str, *words: object) -> list[str]:
    return [sys.executable, "-m", f"tests.cloudflare.{program}", *map(str, words)]


def ends(program: str, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
    return run(command(program, *words), env=environment(**more), seconds=900)


@pytest.fixture(scope="module")
def baseline(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A rehearsal: what it printed, and what it recorded."""
    recorded = tmp_path_factory.mktemp("rehearsal") / "baseline.jsonl"
    share_bytecode(home / "stand-in")
    words = ("--state", home, "--image", "given", "--hostname", "live.example.com")
    done = ends("rehearse", *words, "--record", recorded)
    assert done.returncode == 0, done.stdout
    return done.stdout, recorded


def test_a_rehearsal_ends_in_a_verified_chat_and_leaves_nothing(
    baseline: tuple[str, Path], home: Path
) -> None:
    output, recorded = baseline
    assert "hermes: deployed and verified" in output
    assert "No changes. 0 calls written." in output
    assert "hermes: destroyed" in output
    assert "Rehearsed: deployed, proved by a chat, unchanged by a second deploy" in output
    assert "was not built, but taken as pushed" in output
    assert not (home / "hermes").exists()
    assert running(home) == []
    assert "rehearsal-" not in recorded.read_text(), "answers are kept without their values"


def running(home: Path) -> list[psutil.Process]:
    """Processes that run from a state folder."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(home) in word for word in process.info["cmdline"] or [])
    ]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[ControlPlane]:
    """A stand-in that poses as the real account."""
    folder = tmp_path_factory.mktemp("real")
    with ControlPlane(folder / "plane", home / "stand-in") as plane:
        plane.add_account(ACCOUNT, TOKEN, zones=["example.com"])
        yield plane


@pytest.fixture
def pushed(real: ControlPlane) -> None:
    """The image is in the account's registry; a run takes it away at its end."""
    real.registry.add_image(f"{ACCOUNT}/{REPOSITORY}", Sources().container_image(""))


def account(plane: ControlPlane) -> dict[str, str]:
    own = {"HERMES_LIVE_ACCOUNT_ID": ACCOUNT, "HERMES_LIVE_API_TOKEN": TOKEN}
    return plane.env | own | {"HERMES_LIVE_HOSTNAME": "live.example.com"}


def test_a_live_run_is_never_an_accident(real: ControlPlane) -> None:
    done = ends("live", **real.env, CLOUDFLARE_ACCOUNT_ID=ACCOUNT, CLOUDFLARE_API_TOKEN=TOKEN)
    assert done.returncode == 2
    assert (
        "Not set: HERMES_LIVE_ACCOUNT_ID, HERMES_LIVE_API_TOKEN. Nothing was done." in done.stdout
    )
    assert real.calls == []


def uploaded(plane: ControlPlane) -> bool:
    return any(one.startswith(PREFIX) for one in plane.state.accounts[ACCOUNT].workers)


def rotating(plane: ControlPlane) -> bool:
    workers = plane.state.accounts[ACCOUNT].workers.values()
    return any("API_TOKEN_PREVIOUS" in one.current.secrets() for one in workers)


@pytest.mark.usefixtures("pushed")
@pytest.mark.parametrize(
    ("moment", "end", "last_words"),
    [
        (uploaded, signal.SIGKILL, "The guard is done."),
        (rotating, signal.SIGTERM, "Ended early."),
    ],
)
def test_a_live_run_that_is_ended_leaves_nothing_behind(
    real: ControlPlane,
    home: Path,
    tmp_path: Path,
    baseline: tuple[str, Path],
    moment: Callable[[ControlPlane], bool],
    end: signal.Signals,
    last_words: str,
) -> None:
    words = ("--state", home, "--baseline", baseline[1], "--report", tmp_path / "report.md")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command("live", *words),
            cwd=ROOT,
            env=environment(**account(real)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log_text = (tmp_path / "log").read_text
        try:
            wait_until(lambda: moment(real), moment.__name__, 300)
            process.send_signal(end)
            process.wait(120)
            wait_until(lambda: last_words in log_text(), last_words, 300)
        finally:
            process.kill()
    assert leftovers(real, ACCOUNT) == [], log_text()


@pytest.mark.usefixtures("pushed")
def test_an_image_that_was_pushed_before_a_run_was_ended_is_taken_away(
    real: ControlPlane, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in account(real).items():
        monkeypatch.setenv(name, value)
    owner = Account(os.environ, tmp_path, tmp_path)
    owner.sweep(images=False)
    assert leftovers(real, ACCOUNT) == [Sources().container_image("")]
    owner.sweep()
    assert leftovers(real, ACCOUNT) == []


@contextmanager
def minutes_pass(plane: ControlPlane) -> Iterator[None]:
    """Let the five minutes pass for which the probing Worker keeps what it was started with, whenever it does."""
    over = threading.Event()

    def pass_them() -> None:
        while not over.wait(1):
            workers = list(plane.state.accounts[ACCOUNT].workers)
            if any(one.endswith("-probes") for one in workers):
                plane.advance(30)

    passing = threading.Thread(target=pass_them)
    passing.start()
    try:
        yield
    finally:
        over.set()
        passing.join()


@pytest.mark.usefixtures("pushed")
def test_a_live_run_proves_compares_and_takes_away(
    real: ControlPlane, home: Path, tmp_path: Path, baseline: tuple[str, Path]
) -> None:
    report = tmp_path / "report.md"
    words = ("--state", home, "--baseline", baseline[1], "--report", report)
    with minutes_pass(real):
        done = ends("live", *words, **account(real))
    assert done.returncode == 0, done.stdout
    assert "deployed and verified" in done.stdout
    assert "Accepted; nothing was left behind." in done.stdout
    assert leftovers(real, ACCOUNT) == []
    assert "Deploy after the rotation: nothing may change" in done.stdout
    text = report.read_text()
    # In the stand-in's workerd there is no container to ask; the API is asked all the same.
    assert "| `first-start` | " in text
    assert "could not be asked: there is no ctx.container" in text
    assert re.search(r"\| `body-64` \| .* \| as assumed: answered with 200 \|", text)
    assert "kinds of calls were answered as the stand-in answers them." in text, text
    assert TOKEN not in done.stdout + text

# SPDX-License-Identifier: Apache-2.0
"""The stand-in as a program of its own: it says where it is, and nothing outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import Cloudflare

from tests.cloudflare.edge import ROOT
from tests.cloudflare.uploading import upload
from tests.processes import wait_for_ends


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A running stand-in; this process's environment leads to it."""
    command = [sys.executable, "-m", "tests.cloudflare", "--state", str(tmp_path / "state")]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout and process.stdout.readline().startswith("ready: ")
            for line in (tmp_path / "state" / "env").read_text().splitlines():
                name, _, value = line.removeprefix("export ").partition("=")
                monkeypatch.setenv(name, value)
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def serve() -> list[psutil.Process]:
    """Upload a Worker, ask it once, and return the processes that serve it."""
    client = Cloudflare(os.environ["CLOUDFLARE_API_TOKEN"], os.environ["CLOUDFLARE_ACCOUNT_ID"])
    upload(client)
    client.post(client.account("workers/scripts/box/subdomain"), {"enabled": True})
    assert requests.get("https://box.rehearsal.workers.dev/", timeout=30).ok
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if "build/config.capnp" in (one.info["cmdline"] or []) and below(one, os.getpid())
    ]


def below(process: psutil.Process, pid: int) -> bool:
    return any(parent.pid == pid for parent in process.parents())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_it_started_ends_with_it(
    program: subprocess.Popen[str], number: signal.Signals
) -> None:
    serving = serve()
    assert len(serving) == 2, "a guard and its workerd"
    program.send_signal(number)
    program.wait(30)
    wait_for_ends(serving)


def test_its_environment_is_for_its_owner_only(
    program: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert (tmp_path / "state" / "env").stat().st_mode & 0o077 == 0
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0

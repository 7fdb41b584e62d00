# SPDX-License-Identifier: Apache-2.0
"""What the image's Chromium is started with: what it is given, what it is told, what it may be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sandbox_box import CONTAINER

sys.path.insert(0, str(CONTAINER))

from sandbox.in_hermes import start_chromium

TOLD_BY_THE_TOOL = ["--remote-debugging-port=0", "--no-sandbox", "--disable-dev-shm-usage"]


@pytest.mark.parametrize("confines", [True, False])
@pytest.mark.parametrize("held", [True, False])
def test_it_goes_without_its_own_walls_only_where_it_can_have_none(
    confines: bool, held: bool
) -> None:
    found = start_chromium.switches(TOLD_BY_THE_TOOL, confines=confines, held=held)
    assert ("--no-sandbox" in found) is not confines
    assert ("--disable-quic" in found) is held
    assert {"--remote-debugging-port=0", "--disable-dev-shm-usage"} <= {*found}
    assert not any(word.startswith("--ignore-certificate-errors") for word in found)


def test_it_is_given_the_way_out_and_no_keys() -> None:
    given = {
        "TZ": "UTC",
        "https_proxy": "http://proxy:3128",
        "API_SERVER_KEY": "canary",
        "PATH": "/x",
    }
    found = start_chromium.environment(given, "/tmp/profile")
    assert found == {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp/profile",
        "TMPDIR": "/tmp/profile",
        "TZ": "UTC",
        "https_proxy": "http://proxy:3128",
    }


def test_it_has_a_profile_of_its_own() -> None:
    given = ["--a", "--user-data-dir=/tmp/agent-browser-chrome-1"]
    assert start_chromium.profile_of(given) == "/tmp/agent-browser-chrome-1"
    with pytest.raises(SystemExit):
        start_chromium.profile_of(["--a"])


def test_an_authority_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert start_chromium.read("") == start_chromium.read(str(tmp_path / "none")) == b""


def test_whether_namespaces_can_be_had_is_asked_of_the_kernel_by_somebody_else() -> None:
    before = os.readlink("/proc/self/ns/user")
    assert start_chromium.has_namespaces() in (True, False)
    assert os.readlink("/proc/self/ns/user") == before


KEEPING = """
import ctypes, sys
sys.path.insert(0, sys.argv[1])
from sandbox.in_hermes import start_chromium
PR_SET_SECUREBITS, NO_SETUID_FIXUP = 28, 4
"""
AS_ROOT = """
if ctypes.CDLL(None).prctl(PR_SET_SECUREBITS, NO_SETUID_FIXUP, 0, 0, 0): raise SystemExit("securebits")
start_chromium.become(start_chromium.USER)
"""
SHOW = "print(open('/proc/self/status').read())"


def test_it_has_no_rights_where_a_change_of_the_user_leaves_them() -> None:
    """A container of Cloudflare's does; here the kernel is told to."""
    become = AS_ROOT if os.geteuid() == 0 else "start_chromium.give_up_rights()\n"
    command = [sys.executable, "-c", KEEPING + become + SHOW, str(CONTAINER)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    status = dict(line.split(":\t", 1) for line in told.splitlines() if ":\t" in line)
    assert {int(status[f"Cap{kind}"], 16) for kind in ("Eff", "Prm", "Inh", "Amb")} == {0}
    assert status["NoNewPrivs"] == "1"

# SPDX-License-Identifier: Apache-2.0
"""The dashboard: a second process that is there when asked for, and never without its token."""

import json
import os
import signal
import sys

import pytest
from sandbox_box import KEY, TOKEN, Box, carrying, wait_for

from tests.processes import alive

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="looks for survivors in /proc"
)


def dashboard(box: Box) -> int:
    """Return the dashboard's pid as PID 1 tells it; None when it does not run."""
    return box.state()["dashboardPid"]


def test_it_is_started_when_first_asked_for_and_once(box: Box) -> None:
    box.run_hermes()
    assert dashboard(box) is None
    box.ok("dashboard")
    page = box.page()
    assert page["env"]["HERMES_DASHBOARD_SESSION_TOKEN"] == TOKEN
    assert page["env"]["HERMES_DISABLE_LAZY_INSTALLS"] == "1"
    box.ok("dashboard")
    assert box.page()["pid"] == page["pid"]


def test_its_token_stays_with_it(box: Box) -> None:
    """What Hermes' own process starts for a chat does not get into the dashboard."""
    box.run_hermes()
    assert TOKEN not in json.dumps(box.health())


def test_it_comes_back_and_nothing_of_it_survives(box: Box) -> None:
    box.run_hermes()
    box.ok("dashboard")
    before = dashboard(box)
    terminals = carrying(f"SANDBOX_DASHBOARD={box.boot}.1")
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: dashboard(box) not in (None, before))
    box.ok("dashboard")
    assert box.page()["pid"] == dashboard(box)
    assert not any(alive(pid) for pid in terminals)
    assert box.state()["state"] == "running"


def test_it_ends_with_the_sandbox(box: Box) -> None:
    init = box.run_hermes().process
    box.ok("dashboard")
    mine = carrying(f"SANDBOX_DASHBOARD={box.boot}.1")
    assert len(mine) >= 2
    init.send_signal(signal.SIGTERM)
    assert init.wait(15) == 0
    assert not any(alive(pid) for pid in mine)


def test_one_that_cannot_start_says_so_and_is_tried_ever_less_often(box: Box) -> None:
    box.run_hermes()
    (box.home / "dashboard-dies").write_text("3")
    done = box.command("dashboard")
    assert done.returncode == 1
    assert b"ended before it answered" in done.stderr
    assert b"no dashboard today" in box.ok("logs")
    wait_for(lambda: box.state()["dashboardEnds"] >= 2)
    (box.home / "dashboard-dies").unlink()
    wait_for(lambda: dashboard(box))
    assert box.state()["state"] == "running"


def test_new_settings_reach_it(box: Box) -> None:
    box.run_hermes()
    box.ok("dashboard")
    environ = {"API_SERVER_KEY": KEY, "HERMES_DASHBOARD_SESSION_TOKEN": TOKEN, "COLOUR": "blue"}
    box.ok("restart-gateway", stdin=json.dumps({"env": environ}).encode())
    box.ok("dashboard")
    wait_for(lambda: box.page()["env"].get("COLOUR") == "blue")


def test_it_stops_with_hermes_until_it_is_wanted_again(box: Box) -> None:
    box.run_hermes()
    box.ok("dashboard")
    box.ok("stop-gateway")
    wait_for(lambda: dashboard(box) is None)
    box.ok("restart-gateway")
    assert dashboard(box) is None
    box.ok("dashboard")
    assert box.page()["pid"] == dashboard(box)


def test_where_nothing_confines_it_the_owner_has_to_allow_it(box: Box) -> None:
    box.confined = False
    box.run_hermes()
    done = box.command("dashboard")
    assert done.returncode == 77
    assert b"nothing confines it" in done.stderr
    assert dashboard(box) is None
    box.ok("dashboard", "--host-tools")


def test_it_is_refused_before_the_go_and_without_a_token(box: Box) -> None:
    box.start()
    box.ok("restore", "--empty")
    assert box.command("dashboard").returncode == 67
    box.ok("go", stdin=json.dumps({"env": {"API_SERVER_KEY": KEY}}).encode())
    assert box.command("dashboard").returncode == 77


@pytest.mark.parametrize(("has", "is_served"), [("3.51.2", False), ("3.51.3", True)])
def test_a_second_writer_is_kept_from_a_sqlite_that_loses_pages(
    box: Box, has: str, is_served: bool
) -> None:
    box.run_hermes()
    (box.run / "sqlite").write_text(has)
    done = box.command("dashboard")
    assert (done.returncode == 0) is is_served
    assert is_served or (done.returncode == 1 and f"SQLite {has}".encode() in done.stderr)
    assert (dashboard(box) is not None) is is_served

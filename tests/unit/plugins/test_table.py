# SPDX-License-Identifier: Apache-2.0
"""The closing table tells of every deployment what its operator asks first."""

from __future__ import annotations

from ansible_collections.hermes.workers.plugins.plugin_utils.display.table import Row, row, table

PLANNED = {"changed": False, "rows": [["address", "http://127.0.0.1:8787", "default"]]}
PROVED = {
    "changed": False,
    "url": "http://127.0.0.1:8787",
    "version": "91ab03f7c2d4e560",
    "health": "ok, Hermes is awake",
    "seconds_to_first_token": 0.0,
}


def test_a_proved_deployment_has_no_error() -> None:
    results = {
        "preflight_result": PLANNED,
        "worker_result": {"changed": True},
        "verify_result": PROVED,
    }
    assert row("alice", results) == Row(
        "alice",
        "http://127.0.0.1:8787",
        "91ab03f7c2d4e560",
        "yes",
        "ok, Hermes is awake",
        "0.0 s",
        "",
    )


def test_in_check_mode_nothing_is_said_to_have_changed() -> None:
    results = {"worker_result": {"changed": True}, "verify_result": {"skipped": True}}
    assert row("alice", results, check_mode=True).changed == "would"


def test_the_error_is_the_first_line_of_the_step_that_failed() -> None:
    card = {"failed": True, "msg": "disk: full.\nNothing was changed."}
    results = {"preflight_result": PLANNED, "worker_result": card}
    made = row("bob", results)
    assert made.error == "disk: full."
    assert made.url == "http://127.0.0.1:8787"


def test_a_host_that_stopped_without_a_result_is_not_taken_for_well() -> None:
    assert row("carol", {"preflight_result": PLANNED}).error == "stopped; see above"


def test_columns_are_aligned_and_totals_are_given() -> None:
    lines = table([Row("a", changed="yes"), Row("a-longer-name", error="disk: full.")])
    urls = lines[0].index("URL")
    assert [line[urls - 2 : urls + 1] for line in lines[:3]] == ["  U", "  -", "  -"]
    assert lines[2].endswith("disk: full.")
    assert lines[-1] == "2 deployments: 1 changed, 1 failed."


def test_a_narrow_terminal_has_what_is_long_below() -> None:
    rows = [
        Row(
            "tenant-1",
            "https://tenant-1.acme.workers.dev",
            "127b6bd986d99b9e",
            "yes",
            "ok",
            "0.6 s",
        ),
        Row("b", error="hermes_port: 80 is not a port."),
    ]
    assert table(rows, 80) == [
        "deployment  changed  health  first token",
        "tenant-1    yes      ok      0.6 s",
        "    https://tenant-1.acme.workers.dev",
        "    version 127b6bd986d99b9e",
        "b           no       -       -",
        "    hermes_port: 80 is not a port.",
        "",
        "2 deployments: 1 changed, 1 failed.",
    ]
    assert table(rows, 200) == table(rows)

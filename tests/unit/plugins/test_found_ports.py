# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A play that only asks a deployment asks it where it is, and says what the inventory makes otherwise."""

from __future__ import annotations

from ansible_collections.hermes.workers.plugins.action.preflight import not_given
from ansible_collections.hermes.workers.plugins.module_utils.settings.checks import Checker
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.place import take_ports


def test_the_running_deployments_ports_are_taken_and_the_difference_is_told() -> None:
    settings = Settings(name="hermes", platform="workerd")
    record = {"ports": {"http": 8961, "providers": 18787, "dashboard": 9961}}
    told = take_ports(settings, record)
    assert told == [("hermes_port", 8961, 8787), ("hermes_dashboard_port", 9961, 9787)]
    assert settings.ports == record["ports"]
    assert take_ports(settings, record) == []


def test_a_socket_that_is_not_there_keeps_its_port() -> None:
    settings = Settings(name="hermes", platform="workerd")
    assert take_ports(settings, {"ports": {"http": 8787}}) == []
    assert settings.dashboard_port == 9787


def test_what_nobody_says_any_more_is_told() -> None:
    noted = {"hermes_port": "8961", "hermes_name": "al", "hermes_engine": "process"}
    raw = {"hermes_name": "al", "hermes_engine": "docker"}
    rows = not_given(noted, Checker(raw), {"hermes_engine"})
    assert [row[1] for row in rows] == ["hermes_port: '8961'"]
    assert not_given(noted, Checker(raw, sources={"hermes_port": "found"}), {"hermes_engine"}) == []

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A taken port is one line, with three ports that are free; one that is taken in between is named as well."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.settings.checks import Checker
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd import place, processes
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.place import WorkerdPlace


def problems(
    monkeypatch: pytest.MonkeyPatch, folder: Path, taken: set[int], **given: int
) -> list[str]:
    for module in (place, processes):
        monkeypatch.setattr(module, "port_taken", taken.__contains__)
    settings = Checker({"hermes_name": "x", "hermes_platform": "workerd", **given}).check().settings
    runtime = SimpleNamespace(tools=folder / "none")
    made = WorkerdPlace(settings, StateFolder(str(folder), "x"), runtime)
    return [f"{problem} | {problem.remedy}" for problem in made._ports()]


def test_all_three_are_one_line_and_the_three_that_are_named_are_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Beside the next port, one of its followers is taken as well.
    (line,) = problems(monkeypatch, tmp_path, {8787, 9787, 18787, 9788})
    assert line.startswith("hermes_port: 8787, 18787 and 9787 are in use by another program.")
    assert "for example to 8789 (" in line and "9789 and 18789 are free too" in line


@pytest.mark.parametrize("port", [8787, 9787, 18787])
def test_a_single_one_leads_to_the_port_that_the_others_follow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, port: int
) -> None:
    (line,) = problems(monkeypatch, tmp_path, {port})
    assert line.startswith(f"hermes_port: {port} is in use by another program.")


def test_one_that_was_chosen_apart_is_named_by_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (line,) = problems(monkeypatch, tmp_path, {9000}, hermes_dashboard_port=9000)
    assert line.startswith("hermes_dashboard_port: 9000 is in use by another program.")


def test_none_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert problems(monkeypatch, tmp_path, set()) == []


SUPERVISOR = """#!/bin/sh
echo "[Errno 98] port 9787: Address already in use" >&2
exit 1
"""


def test_one_that_is_taken_after_it_was_looked_at_is_named_with_its_variable(
    tmp_path: Path,
) -> None:
    made = processes.Processes(StateFolder(str(tmp_path), "x"), "digest")
    python = made.host / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(SUPERVISOR)
    python.chmod(0o755)
    made.deployment.folder.mkdir()
    ports = {"http": 8787, "providers": 18787, "dashboard": 9787}
    with pytest.raises(Card) as refused:
        made.start("process", [], ports, 30, {}, {}, "nothing")
    card = refused.value.render()
    assert "hermes_dashboard_port: 9787 was taken by another program" in card
    assert "set hermes_dashboard_port to another port" in " ".join(card.split())

# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Cloudflare allows a Worker 8 tags: the owner's have to leave room for ours, before anything is changed."""

from __future__ import annotations

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.hostname import tag_problems

OURS = ["hermes.workers", "hermes.workers:alice"]
OLD = "hermes.workers.host:old.example.com"
NEW = "new.example.com"


def own(count: int) -> list[str]:
    """So many tags of the owner's."""
    return [f"own-{number}" for number in range(count)]


@pytest.mark.parametrize(
    ("hostname", "tags", "needed", "room"),
    [
        # Ours are counted whether they are there yet or not.
        ("", [], 2, 6),
        ("", OURS, 2, 6),
        (NEW, OURS, 3, 5),
        ("old.example.com", [*OURS, OLD], 3, 5),
        # While a hostname moves, both are noted.
        (NEW, [*OURS, OLD], 4, 4),
        ("", [*OURS, OLD], 3, 5),
    ],
)
def test_the_owners_tags_may_take_what_ours_leave_and_not_one_more(
    hostname: str, tags: list[str], needed: int, room: int
) -> None:
    settings = Settings(name="alice", dashboard_hostname=hostname)
    assert tag_problems(settings, [*tags, *own(room)]) == []
    (problem,) = tag_problems(settings, [*own(room + 1), *tags])
    assert problem.subject == "alice"
    assert f"{room + 1} tags of others, this deployment needs {needed}, and" in problem.sentence
    for tag in own(room + 1):
        assert tag in problem.remedy
    assert not any(tag in problem.remedy for tag in OURS), "whose removal would orphan it"

# SPDX-License-Identifier: Apache-2.0
"""What a plan says of another declaration, and what a running Hermes lacks of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import (
    Answer,
    Unreachable,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.agent import changes
from ansible_collections.hermes.workers.plugins.plugin_utils.agent.content import (
    Member,
    Members,
    pack,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.proof import agent as proof
from ansible_collections.hermes.workers.plugins.plugin_utils.proof.in_force import Restart

JOB = {"schedule": "0 7 * * *", "prompt": "x"}


def declared(files: dict[str, str], **table: Any) -> Members:
    whole = {
        "format": 1,
        "config": {"pinned": {}, "initial": {}},
        "mcp_servers": {},
        "cron_jobs": {},
        "take_over": [],
        **table,
    }
    members = {"agent.json": Member(json.dumps(whole).encode())}
    return members | {name: Member(text.encode()) for name, text in files.items()}


FULL = declared(
    {
        "SOUL.md": "One.\n",
        "skills/a/SKILL.md": "a\n",
        "skills/a/more.md": "a\n",
        "skills/b/SKILL.md": "b\n",
        "memories/USER.md": "u\n",
    },
    config={"pinned": {"agent": {"max_turns": 9}}, "initial": {"timezone": "UTC"}},
    cron_jobs={"morning": JOB, "evening": JOB},
    mcp_servers={"time": {"command": "x", "env": {"T": "${TOKEN}"}}},
)


def test_a_first_declaration_is_all_new() -> None:
    assert changes.words(None, FULL) == (
        "soul: +; skills: + a, + b; jobs: + evening, + morning; memories: + user; servers: + time;"
        " config: + agent.max_turns, + timezone"
    )
    assert changes.words(FULL, FULL) == ""
    assert changes.words({}, {}) == ""


@pytest.mark.parametrize(
    ("schedule", "over"),
    [
        ("2020-01-31T09:00", True),
        ("2020-01-31", True),
        ("2020-01-31T09:00:00+02:00", True),
        ("2999-01-31T09:00", False),
        ("2999-01-31T09:00:00Z", False),
        ("0 7 * * *", False),
        ("every 2h", False),
    ],
)
def test_a_job_for_a_time_that_has_passed_is_told_to_be_done(schedule: str, over: bool) -> None:
    """No start makes it, and nobody should wait for it."""
    party = declared({}, cron_jobs={"party": JOB | {"schedule": schedule}})
    told = " (its time has passed: it is done)" if over else ""
    assert changes.words(None, party) == f"jobs: + party{told}"
    other = declared({}, cron_jobs={"party": JOB})
    assert changes.words(other, party) == ("" if party == other else f"jobs: ~ party{told}")
    assert changes.words(party, {}) == "jobs: - party"


def test_each_item_that_changes_is_named_and_no_other() -> None:
    other = declared(
        {
            "SOUL.md": "Another.\n",
            "skills/a/SKILL.md": "a\n",
            "skills/a/more.md": "changed\n",
            "skills/c/SKILL.md": "c\n",
        },
        config={"pinned": {"agent": {"max_turns": 9}, "timezone": "UTC"}, "initial": {}},
        cron_jobs={"morning": JOB | {"prompt": "y"}},
        mcp_servers={"time": {"command": "x", "env": {"T": "${TOKEN}"}}},
        take_over=["skills/a"],
    )
    assert changes.words(FULL, other) == (
        "soul: ~; skills: + c, ~ a, - b; jobs: ~ morning, - evening; memories: - user"
        " (what Hermes has learnt stays);"
        " config: ~ timezone; taken over: + skills/a"
    )
    assert changes.words(FULL, {}).startswith("soul: -; skills: - a, - b;")
    shown = {one["after_header"]: one for one in changes.diffs(FULL, other)}
    assert set(shown) == {
        f"agent/{name}"
        for name in (
            *("SOUL.md", "agent.json", "memories/USER.md", "skills/a/more.md"),
            *("skills/b/SKILL.md", "skills/c/SKILL.md"),
        )
    }
    assert (shown["agent/SOUL.md"]["before"], shown["agent/SOUL.md"]["after"]) == (
        "One.\n",
        "Another.\n",
    )
    assert shown["agent/skills/b/SKILL.md"]["after"] == ""


def test_what_is_no_text_is_shown_by_its_digest() -> None:
    (one,) = changes.diffs({}, {"skills/a/x.png": Member(b"\xff\xfe")})
    assert one["after"].startswith("not text: sha256 ")


class Worker:
    """Answers one call; token: whether it takes ours."""

    def __init__(self, answer: Answer | None) -> None:
        self.answer = answer

    def request(self, _method: str, _path: str, **_more: Any) -> Answer:
        if self.answer is None:
            raise Unreachable("gone")
        return self.answer


def test_what_is_there_the_worker_tells_else_the_build_folder(tmp_path: Path) -> None:
    build = tmp_path / "build"
    built = build / "agent.tar.gz"
    silent: Any = Worker(None)
    assert changes.deployed(silent, built) is None, "nobody knows"
    build.mkdir()
    assert changes.deployed(silent, built) == {}, "it was deployed from here, with nothing"
    built.write_bytes(pack(FULL))
    assert changes.deployed(silent, built) == FULL
    empty: Any = Worker(Answer(204, {}, b""))
    assert changes.deployed(empty, built) == {}, "whatever lies here"
    full: Any = Worker(Answer(200, {}, pack(FULL)))
    assert changes.deployed(full, tmp_path / "none" / "x") == FULL
    old: Any = Worker(Answer(404, {}, b"{}"))
    assert changes.deployed(old, built) == FULL


RESTART = "make lifecycle ACTION=restart-gateway"
RUNNING: dict[str, Any] = {
    "archive": "1",
    "laid": ["soul", "skills/a", "skills/b", "jobs/morning", "jobs/evening"],
    "kept": [],
    "skills": ["a", "b", "own"],
    "jobs": [{"name": "morning"}, {"name": "evening"}, {"name": "own"}],
    "servers": [{"name": "time", "status": "connected", "tools": ["now", "later"], "error": None}],
    "environment": ["PATH", "TOKEN"],
}
LACKING: dict[str, tuple[dict[str, Any], str, str]] = {
    "a skill": ({"skills": ["a"]}, "hermes_skills.b", "does not list it"),
    "a job": (
        {"jobs": [{"name": "evening"}], "laid": ["soul", "jobs/evening"]},
        "hermes_cron_jobs.morning",
        "not scheduled",
    ),
    "the soul": ({"laid": ["jobs/morning"]}, "hermes_soul", "not laid"),
    "a server": (
        {"servers": [{"name": "time", "status": "failed", "error": "no such\nfile", "tools": []}]},
        "hermes_mcp_servers.time",
        "(failed): no such file.",
    ),
    "an unknown server": ({"servers": []}, "hermes_mcp_servers.time", "not known to Hermes"),
    "a secret": ({"environment": ["PATH"]}, "hermes_secrets.TOKEN", "environment"),
    "another declaration": ({"archive": "2"}, "hermes", "another declaration"),
}


def test_a_hermes_that_has_all_of_it_lacks_nothing() -> None:
    assert proof.missing(FULL, "1", RUNNING, RESTART) == []
    assert proof.missing({}, "", None, RESTART) == []
    rows = proof.rows(FULL, RUNNING, "hermes_take_over")
    assert rows == [("agent", "a soul, 2 skills, 2 jobs, 1 server with 2 tools, settings")]


@pytest.mark.parametrize("case", LACKING)
def test_what_is_missing_is_named(case: str) -> None:
    change, subject, words = LACKING[case]
    (problem,) = proof.missing(FULL, "1", RUNNING | change, RESTART)
    assert problem.subject == subject and words in problem.sentence
    assert problem.code == "agent-not-in-force"
    # What Hermes reads at its start alone, no deploy without a change brings.
    assert (RESTART in problem.remedy) is subject.startswith(("hermes_mcp", "hermes_secrets"))


def test_what_a_prompt_says_is_no_name_of_a_secret() -> None:
    """Hermes puts secrets into settings and servers alone; a prompt may be about a shell's variables."""
    job = JOB | {"prompt": "Run `echo ${NOBODY}`."}
    prompted = declared({}, cron_jobs={"morning": job})
    assert proof.missing(prompted, "1", RUNNING, RESTART) == []


def test_a_hermes_that_does_not_tell_is_not_believed() -> None:
    (problem,) = proof.missing(FULL, "1", None, RESTART)
    assert "does not tell" in problem.sentence


def test_a_hermes_that_cannot_be_asked_for_its_servers_is_asked_for_the_rest() -> None:
    unasked = RUNNING | {"servers": [], "environment": None}
    assert proof.missing(FULL, "1", unasked, RESTART) == []
    assert proof.rows(FULL, unasked, "hermes_take_over")[0][1].endswith(
        "2 jobs, 1 server, settings"
    )
    (problem,) = proof.missing(FULL, "1", unasked | {"skills": ["a"]}, RESTART)
    assert problem.subject == "hermes_skills.b"


def test_what_hermes_made_otherwise_is_kept_and_told() -> None:
    kept = [
        {"item": "skills/b", "why": "deleted by Hermes or its owner"},
        {"item": "jobs/morning", "why": "changed by Hermes or its owner"},
        {"item": "jobs/noon", "why": "not laid: its workdir /srv is no folder here"},
    ]
    running = RUNNING | {"kept": kept, "skills": ["a"], "jobs": [{"name": "evening"}]}
    assert proof.missing(FULL, "1", running, RESTART) == []
    rows = proof.rows(FULL, running, "hermes_take_over")[1:]
    assert [label for label, _words in rows] == ["kept", "kept", "agent"]
    assert rows[2][1] == "jobs/noon: not laid: its workdir /srv is no folder here"
    assert rows[0][1].startswith("skills/b: deleted by Hermes or its owner; hermes_take_over")


def test_content_restarts_nothing_in_words() -> None:
    restart = Restart("content", ["hermes_skills"])
    assert (
        restart.deed == "brings content, laid beside the running Hermes, because of hermes_skills"
    )


@pytest.mark.parametrize(
    ("parts", "content"),
    [
        ({"hermes_soul": "2", "hermes_memories": "1"}, True),
        ({"hermes_skills": "1"}, True),
        ({}, True),
        ({"hermes_soul": "1", "hermes_config": "1"}, False),
        ({"hermes_soul": "1", "hermes_mcp_servers": "1"}, False),
        # Only a Hermes that has it knows when it is due.
        ({"hermes_soul": "1", "hermes_cron_jobs": "1"}, False),
        ({"hermes_soul": "1", "hermes_take_over": "1"}, False),
    ],
)
def test_what_a_sleeping_hermes_may_just_wake_with(parts: dict[str, str], content: bool) -> None:
    before = {"archive": "a", "parts": {"hermes_soul": "1"}}
    assert proof.is_content(before, {"archive": "b", "parts": parts}) == content
    assert proof.is_content({}, {"archive": "b", "parts": parts}) == content


class InState:
    """A Worker whose Hermes is in some state."""

    def __init__(self, state: str, declared: dict[str, Any], status: int = 200) -> None:
        self.state, self.declared, self.status = state, declared, status

    def request(self, _method: str, path: str, **_: Any) -> Answer:
        told: dict[str, Any] = {"declared": self.declared, "running": None}
        if path == "/api/health":
            told = {"instance": {"state": self.state}, "worker": {"version": "1"}}
        return Answer(self.status, {}, json.dumps(told).encode())


def test_of_one_that_sleeps_it_is_known_what_it_would_wake_with() -> None:
    some, none = {"archive": "a", "parts": {"hermes_soul": "1"}}, {"archive": "", "parts": {}}
    assert proof.asleep_with(InState("asleep", some)) == ("1", {"format": 1, **some})
    assert proof.asleep_with(InState("asleep", none)) == ("1", {})
    for other in (InState("awake", some), InState("booting", some), InState("asleep", some, 401)):
        assert proof.asleep_with(other) is None


TOOLSETS = [
    {"name": "web", "enabled": True, "tools": ["web_search"]},
    {"name": "terminal", "enabled": False, "tools": ["terminal"]},
]


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        ("requires_toolsets: [web], requires_tools: [web_search, mcp__clock__now]", []),
        (
            "requires_toolsets: [web, terminal]",
            ["wants toolsets that Hermes does not offer its model: terminal"],
        ),
        (
            "requires_tools: [terminal]",
            ["wants tools that Hermes does not offer its model: terminal"],
        ),
        (
            "fallback_for_toolsets: [web]",
            ["is for where Hermes offers its model no toolsets like web"],
        ),
        (
            "fallback_for_tools: [web_search]",
            ["is for where Hermes offers its model no tools like web_search"],
        ),
        ("fallback_for_toolsets: [terminal], tags: [a]", []),
    ],
    ids=["as-wanted", "toolset", "tool", "other-toolset", "other-tool", "as-wanted-too"],
)
def test_a_skill_that_no_model_is_shown_is_told(conditions: str, told: list[str]) -> None:
    text = f"---\nname: a\ndescription: b\nmetadata: {{hermes: {{{conditions}}}}}\n---\nx\n"
    members = declared({"skills/a/SKILL.md": text, "skills/a/more/SKILL.md": "no skill\n"})
    rows = proof.hidden_rows(members, {"kept": []}, TOOLSETS)
    assert [label for label, _ in rows] == ["hidden"] * len(told)
    for (_, words), part in zip(rows, told, strict=True):
        assert words == f"skills/a: its SKILL.md {part}"
    assert proof.hidden_rows(members, {"kept": [{"item": "skills/a"}]}, TOOLSETS) == []

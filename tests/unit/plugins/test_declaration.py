# SPDX-License-Identifier: Apache-2.0
"""What an inventory declares of the agent: taken as it is meant, or refused by its name; packed alike everywhere."""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.agent import content
from ansible_collections.hermes.workers.plugins.plugin_utils.agent.config_names import VERSION
from ansible_collections.hermes.workers.plugins.plugin_utils.agent.declaration import Declaration
from ansible_collections.hermes.workers.plugins.plugin_utils.agent.sources import Finder

SECRET = "canary5b0cd2f4e6a7c8b9"
SKILL = "---\nname: {name}\ndescription: What it is for.\n---\nDo it.\n"
WITH_TOOLS = "---\nname: a\ndescription: b\nmetadata: {{hermes: {{{}}}}}\n---\nx\n"


class Inventory:
    """A folder of an inventory, and one of a playbook."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "inventory"
        self.playbook = folder / "playbook"
        for one in (self.folder, self.playbook):
            one.mkdir()
        self.settings = Settings(name="alice", engine="docker", env={"COLOUR": "blue"})
        self.secrets = {"HERMES_SECRETS": json.dumps({"TOKEN": SECRET})}

    def write(self, name: str, text: str | bytes, mode: int = 0o644) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return path

    def skill(self, name: str) -> None:
        self.write(f"skills/{name}/SKILL.md", SKILL.format(name=name))

    def read(self, **raw: Any) -> Declaration:
        finder = Finder([self.folder, self.playbook], self.render)
        given = {f"hermes_{name}": value for name, value in raw.items()}
        return Declaration(given, self.settings, self.secrets, finder).read()

    @staticmethod
    def render(text: str) -> str:
        if "{{ typo }}" in text:
            raise AnsibleError("'typo' is undefined")
        return text.replace("{{ inventory_hostname }}", "alice")


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    return Inventory(tmp_path)


def table(declared: Declaration) -> dict[str, Any]:
    members = content.unpack(declared.archive)
    return dict(json.loads(members["agent.json"].content))


def test_nothing_declared_is_no_archive(inventory: Inventory) -> None:
    declared = inventory.read()
    assert (declared.archive, declared.label, declared.problems) == (b"", {}, [])
    empty = inventory.read(
        skills=[], cron_jobs={}, config={}, mcp_servers={}, soul="", take_over=[]
    )
    assert (empty.archive, empty.label, empty.problems) == (b"", {}, [])


@pytest.mark.parametrize(
    "config",
    [
        # A word of Hermes' code, and one that is near to none of its names.
        {"browser": {"enable": True}, "agent": {"surely_read_somewhere": 1}},
        # Names that people choose.
        {"moa": {"presets": {"defaults2": {}}}, "personalities": {"personality": "Be kind."}},
        {"agent": {"reasoning_overrides": {"max_turnz": "low"}}},
    ],
)
def test_what_hermes_may_read_further_in_is_passed_on(
    inventory: Inventory, config: dict[str, Any]
) -> None:
    assert inventory.read(config={"initial": config}).problems == []


@pytest.mark.parametrize("of_another", [{"version": "0.20.1"}, {"source": {"git": "x"}}])
def test_of_another_hermes_only_the_top_is_looked_at(
    inventory: Inventory, of_another: dict[str, Any]
) -> None:
    inventory.settings = replace(inventory.settings, **of_another)
    config = {"agent": {"max_turnz": 9}, "agnet": {}}
    declared = inventory.read(config={"pinned": config})
    assert [problem.subject for problem in declared.problems] == ["hermes_config.agnet"]


def test_the_pinned_hermes_is_looked_at_also_when_it_is_asked_for(inventory: Inventory) -> None:
    inventory.settings = replace(inventory.settings, version=VERSION)
    declared = inventory.read(config={"pinned": {"agent": {"max_turnz": 9}}})
    assert [problem.subject for problem in declared.problems] == ["hermes_config.agent.max_turnz"]


def test_all_of_it_is_in_the_archive(inventory: Inventory) -> None:
    inventory.skill("notes")
    inventory.write("skills/notes/scripts/run.sh", "#!/bin/sh\n", 0o755)
    inventory.write("soul.md.j2", "You are {{ inventory_hostname }}'s.\n")
    declared = inventory.read(
        config={"pinned": {"agent": {"max_turns": 9}}, "initial": {"timezone": "Europe/Berlin"}},
        soul="soul.md.j2",
        skills=["skills/notes"],
        mcp_servers={"time": {"command": "python3", "env": {"T": "${TOKEN}", "C": "${COLOUR}"}}},
        cron_jobs={"morning": {"schedule": " 0 7 * * 1-5 ", "prompt": "Good morning."}},
        memories={"user": "Likes tea.\nAnd cats.\n"},
        take_over=["skills/notes", "config/timezone", "skills/notes"],
    )
    assert declared.problems == []
    members = content.unpack(declared.archive)
    assert sorted(members) == [
        "SOUL.md",
        "agent.json",
        "memories/USER.md",
        "skills/notes/SKILL.md",
        "skills/notes/scripts/run.sh",
    ]
    assert members["SOUL.md"].content == b"You are alice's.\n"
    assert members["skills/notes/scripts/run.sh"].runs
    assert not members["skills/notes/SKILL.md"].runs
    assert table(declared) == {
        "format": 1,
        "config": {
            "pinned": {"agent": {"max_turns": 9}},
            "initial": {"timezone": "Europe/Berlin"},
        },
        "mcp_servers": {"time": {"command": "python3", "env": {"T": "${TOKEN}", "C": "${COLOUR}"}}},
        "cron_jobs": {"morning": {"schedule": "0 7 * * 1-5", "prompt": "Good morning."}},
        "take_over": ["config/timezone", "skills/notes"],
    }
    assert sorted(declared.label["parts"]) == [
        "hermes_config",
        "hermes_cron_jobs",
        "hermes_mcp_servers",
        "hermes_memories",
        "hermes_skills",
        "hermes_soul",
        "hermes_take_over",
    ]
    assert len(json.dumps(declared.label)) < 2000, "one variable of a Worker holds it"


def test_the_archive_is_the_same_wherever_and_whenever_it_is_made(
    inventory: Inventory, tmp_path: Path
) -> None:
    def made(place: Inventory) -> bytes:
        for name in ("a", "b"):
            place.skill(name)
        return place.read(skills={"b": "skills/b", "a": "skills/a"}).archive

    first = made(inventory)
    os.utime(inventory.folder / "skills/a/SKILL.md", (1, 1))
    inventory.write("skills/a/.git/HEAD", "x")
    inventory.write("skills/a/__pycache__/x.pyc", "x")
    assert made(inventory) == first
    (tmp_path / "other").mkdir()
    other = Inventory(tmp_path / "other")
    assert made(other) == first
    assert first[:10] == b"\x1f\x8b\x08" + bytes(5) + b"\x02\xff", "no time, and no system"
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        assert archive.getnames()[0] == "agent.json", "a start reads it alone"
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        found = {(one.mtime, one.uid, one.uname, one.mode) for one in archive}
    assert found == {(0, 0, "", 0o644)}


@pytest.mark.parametrize(
    "part", ["soul", "skills", "cron_jobs", "memories", "config", "mcp_servers"]
)
def test_a_change_of_one_part_is_one_of_its_digest_alone(inventory: Inventory, part: str) -> None:
    for name in ("a", "b"):
        inventory.skill(name)
    before = {
        "soul": "One.\nTwo.\n",
        "skills": ["skills/a"],
        "cron_jobs": {"a": {"schedule": "every 1h", "prompt": "x"}},
        "memories": {"user": "a\nb\n"},
        "config": {"pinned": {"timezone": "UTC"}},
        "mcp_servers": {"a": {"command": "x"}},
    }
    other = {
        "soul": "Other.\nTwo.\n",
        "skills": ["skills/b"],
        "cron_jobs": {"a": {"schedule": "every 2h", "prompt": "x"}},
        "memories": {"user": "a\nc\n"},
        "config": {"initial": {"timezone": "UTC"}},
        "mcp_servers": {"a": {"command": "y"}},
    }
    first = inventory.read(**before).label
    second = inventory.read(**before | {part: other[part]}).label
    assert first["archive"] != second["archive"]
    differ = {name for name in first["parts"] if first["parts"][name] != second["parts"][name]}
    assert differ == {f"hermes_{part}"}


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar"])
@pytest.mark.parametrize("around", ["", "notes-1.0/"])
def test_a_skill_may_be_an_archive(inventory: Inventory, kind: str, around: str) -> None:
    files = {f"{around}SKILL.md": SKILL.format(name="notes"), f"{around}a/b.txt": "b"}
    held = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(held, "w") as packed:
            packed.mkdir(f"{around}a")
            for name, text in files.items():
                packed.writestr(name, text)
    else:
        with tarfile.open(fileobj=held, mode="w:gz" if kind == "tar.gz" else "w") as archive:
            folder = tarfile.TarInfo(f"{around}a")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
            for name, text in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
    inventory.write(f"notes.{kind}", held.getvalue())
    declared = inventory.read(skills=[f"notes.{kind}"])
    assert declared.problems == []
    assert sorted(content.unpack(declared.archive)) == [
        "agent.json",
        "skills/notes/SKILL.md",
        "skills/notes/a/b.txt",
    ]


def test_a_skill_may_be_one_text(inventory: Inventory) -> None:
    inventory.write("notes.md", SKILL.format(name="notes"))
    for value in (SKILL.format(name="notes"), "notes.md"):
        declared = inventory.read(skills={"notes": value})
        assert declared.problems == []
        assert "skills/notes/SKILL.md" in content.unpack(declared.archive)


def test_what_is_not_beside_the_inventory_is_looked_for_beside_the_playbook(
    inventory: Inventory,
) -> None:
    (inventory.playbook / "soul.md").write_text("Of the playbook.\n")
    assert inventory.read(soul="soul.md").members["SOUL.md"].content == b"Of the playbook.\n"
    inventory.write("soul.md", "Of the inventory.\n")
    assert inventory.read(soul="soul.md").members["SOUL.md"].content == b"Of the inventory.\n"
    (problem,) = inventory.read(soul="other.md").problems
    assert str(inventory.folder / "other.md") in problem.sentence
    assert str(inventory.playbook / "other.md") in problem.sentence


JOB = {"schedule": "0 7 * * *", "prompt": "x"}
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no folder": ({"skills": ["skills/none"]}, "hermes_skills.none", "is not there. Looked for"),
    "no SKILL.md": ({"skills": ["skills/bare"]}, "hermes_skills.bare", "has no SKILL.md"),
    "a link": ({"skills": ["skills/linked"]}, "hermes_skills.linked", "is a link"),
    "no front": ({"skills": {"a": "a\nb\n"}}, "hermes_skills.a", "does not begin with ---"),
    "no description": (
        {"skills": {"a": "---\nname: a\n---\nx\n"}},
        "hermes_skills.a",
        "has no description",
    ),
    "another name": ({"skills": {"b": "skills/good"}}, "hermes_skills.b", "calls it 'good'"),
    "a skill's name": ({"skills": {"A B": "skills/good"}}, "hermes_skills", "is no name"),
    "twice": ({"skills": ["skills/good", "skills/good"]}, "hermes_skills.good", "declared twice"),
    "too much": ({"skills": ["skills/large"]}, "hermes_skills", "KB are the most"),
    "a bad archive": ({"skills": ["outside.tar"]}, "hermes_skills.outside", "no file inside"),
    "a soul that is none": ({"soul": "You are Bob."}, "hermes_soul", "is not there"),
    "a number": ({"soul": 5}, "hermes_soul", "is neither a text"),
    "an empty file": ({"soul": "empty.md"}, "hermes_soul", "empty text"),
    "no UTF-8": ({"soul": "latin.md"}, "hermes_soul", "no text in UTF-8"),
    "a bad template": ({"soul": "bad.j2"}, "hermes_soul", "'typo' is undefined"),
    "a memory": ({"memories": {"self": "a\nb\n"}}, "hermes_memories", "none of memory, user"),
    "no schedule": ({"cron_jobs": {"a": {"prompt": "x"}}}, "hermes_cron_jobs.a", "no schedule"),
    "no prompt": ({"cron_jobs": {"a": {"schedule": "every 1h"}}}, "hermes_cron_jobs.a", "prompt"),
    "a misspelled key": (
        {"cron_jobs": {"a": JOB | {"promt": "x"}}},
        "hermes_cron_jobs.a",
        "nothing that a job has",
    ),
    "never": (
        {"cron_jobs": {"a": JOB | {"schedule": "0 7 31 2,4 *"}}},
        "hermes_cron_jobs.a",
        "never comes",
    ),
    "an hour": (
        {"cron_jobs": {"a": JOB | {"schedule": "0 25 * * *"}}},
        "hermes_cron_jobs.a",
        "the hour 25",
    ),
    "once": ({"cron_jobs": {"a": JOB | {"schedule": "30m"}}}, "hermes_cron_jobs.a", "is once"),
    "words": ({"cron_jobs": {"a": JOB | {"schedule": "daily"}}}, "hermes_cron_jobs.a", "Hermes"),
    "no words": ({"cron_jobs": {"a": JOB | {"schedule": " "}}}, "hermes_cron_jobs.a", "is no text"),
    "odd signs": (
        {"cron_jobs": {"a": JOB | {"schedule": "0 7 ? * *"}}},
        "hermes_cron_jobs.a",
        "has the day ?, which is none from 1 to 31.",
    ),
    "no command": ({"mcp_servers": {"a": {"args": []}}}, "hermes_mcp_servers.a", "neither a comm"),
    "both": (
        {"mcp_servers": {"a": {"command": "x", "url": "https://x"}}},
        "hermes_mcp_servers.a",
        "a command and a url",
    ),
    "a url": ({"mcp_servers": {"a": {"url": "ftp://x"}}}, "hermes_mcp_servers.a", "none of http"),
    "a secret by look": (
        {"mcp_servers": {"a": {"command": "x", "env": {"A": "ghp_0123456789abcdef"}}}},
        "hermes_mcp_servers.a",
        "looks like a secret",
    ),
    "a secret by name": (
        {"mcp_servers": {"a": {"url": "https://x", "headers": {"X-Api-Key": "0123456789abc"}}}},
        "hermes_mcp_servers.a",
        "X-Api-Key looks like a secret",
    ),
    "a secret's argument": (
        {"mcp_servers": {"a": {"command": "x", "args": ["--token", "0123456789abc"]}}},
        "hermes_mcp_servers.a",
        "token looks like a secret",
    ),
    "nobody's name": (
        {"mcp_servers": {"a": {"command": "x", "env": {"A": "${NOBODY}"}}}},
        "hermes_mcp_servers.a",
        "${NOBODY} is neither in hermes_secrets nor in hermes_env",
    ),
    "an unknown key": (
        {"config": {"pinned": {"agnet": {}}}},
        "hermes_config.agnet",
        "did you mean agent?",
    ),
    "an unknown key further in": (
        {"config": {"initial": {"auxiliary": {"visoin": {"model": "a", "provider": "b"}}}}},
        "hermes_config.auxiliary.visoin",
        "did you mean auxiliary.vision?",
    ),
    "an unknown key at the end": (
        {"config": {"pinned": {"agent": {"max_turnz": 9}}}},
        "hermes_config.agent.max_turnz",
        "did you mean agent.max_turns?",
    ),
    "our key": (
        {"config": {"pinned": {"gateway": {"api_server": {"max_concurrent_runs": 1}}}}},
        "hermes_config.gateway.api_server.max_concurrent_runs",
        "is not for the inventory",
    ),
    "what is read past the pinned": (
        {"config": {"pinned": {"browser": {"allow_private_urls": True}}}},
        "hermes_config.browser.allow_private_urls",
        "cannot be pinned",
    ),
    "what has our key": (
        {"config": {"initial": {"model": {}}}},
        "hermes_config.model",
        "inventory",
    ),
    "two names for one": (
        {"mcp_servers": {"a-b": {"command": "x"}, "a_b": {"command": "x"}}},
        "hermes_mcp_servers.a_b",
        "called as those of a-b",
    ),
    "a dot": ({"config": {"initial": {"display.skin": 1}}}, "hermes_config.initial", "a dot"),
    "no strength": ({"config": {"agent": {}}}, "hermes_config.agent", "neither pinned nor initial"),
    "two strengths": (
        {"config": {"pinned": {"timezone": "UTC"}, "initial": {"timezone": "UTC"}}},
        "hermes_config.timezone",
        "pinned and initial",
    ),
    "taken over": ({"take_over": ["memories"]}, "hermes_take_over", "nothing that can be taken"),
    "taken over, undeclared": ({"take_over": ["skills/x"]}, "hermes_take_over", "not declared"),
    "a file with a secret": ({"soul": "leaks.md"}, "hermes_soul", "holds the secret of"),
    "settings that are none": (
        {"config": {"pinned": "agent"}},
        "hermes_config.pinned",
        "is not a mapping",
    ),
    "a skill in other letters": ({"skills": ["skills/latin"]}, "hermes_skills.latin", "UTF-8"),
    "no YAML": ({"skills": {"a": "---\nname: [\n---\nx\n"}}, "hermes_skills.a", "is no YAML"),
    "nothing to do": (
        {"skills": {"a": "---\nname: a\ndescription: b\n---\n\n"}},
        "hermes_skills.a",
        "says nothing below",
    ),
    "a name that is a number": (
        {"skills": {"5": "---\nname: 5\ndescription: b\n---\nx\n"}},
        "hermes_skills.5",
        "has a name that is no text",
    ),
    "a description that is a number": (
        {"skills": {"a": "---\nname: a\ndescription: 7\n---\nx\n"}},
        "hermes_skills.a",
        "has a description that is no text",
    ),
    "another system's": (
        {"skills": {"a": "---\nname: a\ndescription: b\nplatforms: [macos]\n---\nx\n"}},
        "hermes_skills.a",
        "it is for macos, and Hermes runs on linux",
    ),
    "another place's": (
        {"skills": {"a": "---\nname: a\ndescription: b\nenvironments: [kanban, s6]\n---\nx\n"}},
        "hermes_skills.a",
        "it is for kanban, s6 alone, and Hermes is nothing such",
    ),
    "tools that are no list": (
        {"skills": {"a": WITH_TOOLS.format("requires_tools: terminal")}},
        "hermes_skills.a",
        "has a requires_tools that is no list of names",
    ),
    "declared and off": (
        {"skills": ["skills/good"], "config": {"initial": {"skills": {"disabled": ["good"]}}}},
        "hermes_config.skills.disabled",
        "turns good off, which hermes_skills declares",
    ),
    "declared and off in a word": (
        {"skills": ["skills/good"], "config": {"initial": {"skills": {"disabled": "good"}}}},
        "hermes_config.skills.disabled",
        "turns good off",
    ),
    "taken over, nothing": (
        {"skills": ["skills/good"], "take_over": ["skills/"]},
        "hermes_take_over",
        "nothing that can be taken",
    ),
    "pinned around what is initial": (
        {"config": {"pinned": {"timezone": "UTC"}, "initial": {"timezone": {"a": 1}}}},
        "hermes_config.timezone.a",
        "pinned and initial",
    ),
    "a deep path": ({"skills": ["skills/deep"]}, "hermes_skills", "is no path that fits"),
    "a long path": ({"skills": ["skills/long"]}, "hermes_skills", "is no path that fits"),
    "more files together than fit": (
        {"skills": ["skills/many", "skills/more"]},
        "hermes_skills",
        "files of 0 MB are declared; 2000",
    ),
    "more of jobs than a start reads": (
        {"cron_jobs": {name: JOB | {"prompt": {"text": "x" * 600_000}} for name in "ab"}},
        "hermes_cron_jobs",
        "1024 KB are the most",
    ),
    "a job's name": ({"cron_jobs": {"a/b": JOB}}, "hermes_cron_jobs", "'a/b' is no name"),
    "a job, misspelt": (
        {"cron_jobs": {"a": {"schedul": "0 7 * * *", "prompt": "x"}}},
        "hermes_cron_jobs.a",
        "has 'schedul', which is nothing that a job has; did you mean schedule?",
    ),
    "a job that is none": ({"cron_jobs": {"a": "x"}}, "hermes_cron_jobs.a", "is not a mapping"),
    "a job taken over, undeclared": ({"take_over": ["jobs/x"]}, "hermes_take_over", "not declared"),
}
for key, value, words in [
    ("prompt", 5, "a prompt that is no text"),
    ("prompt", {"file": "none.md"}, "is not there"),
    ("repeat", 0, "a repeat that is no number"),
    ("repeat", True, "a repeat that is no number"),
    ("skills", "notes", "skills that are no list"),
    ("enabled_toolsets", [5], "enabled_toolsets that are no list"),
    ("deliver", 5, "a deliver that is no text"),
    ("enabled", "yes", "an enabled that is neither"),
    ("workdir", "projects", "a workdir that is no absolute path"),
]:
    raw = {"cron_jobs": {"a": JOB | {key: value}}}
    REFUSED[f"a job's {key} {value}"] = (raw, "hermes_cron_jobs.a", words)
for key, value, words in [
    ("command", ["x"], "a command that is no text"),
    ("args", "-v", "args that are no list"),
    ("args", [{}], "args that are no list"),
    ("env", ["A=b"], "env that are no mapping"),
    ("headers", "A: b", "headers that are no mapping"),
    ("args", ["--token=0123456789abc"], "token looks like a secret"),
    ("env", {"A": None}, "env of which 'A' is not one line"),
    ("env", {"A": ["b"]}, "env of which 'A' is not one line"),
    ("headers", {"A": "b\r\nC: d"}, "headers of which 'A' is not one line"),
    ("agrs", ["x"], "did you mean args?"),
    ("timeout", "60", "a timeout that is no number"),
]:
    raw = {"mcp_servers": {"a": {"command": "x"} | {key: value}}}
    REFUSED[f"a server's {key} {value}"] = (raw, "hermes_mcp_servers.a", words)


SERVER = {"command": "x"}
FOLLOWED: dict[str, dict[str, Any]] = {
    "no SKILL.md": {"skills": ["skills/good"]},
    "another name": {"skills": {"good": "skills/good"}},
    "a skill's name": {"skills": {"good": "skills/good"}},
    "twice": {"skills": ["skills/good"]},
    "a soul that is none": {"soul": {"text": "You are Bob."}},
    "a number": {"soul": "You are Bob.\n"},
    "an empty file": {"soul": "You are Bob.\n"},
    "a memory": {"memories": {"memory": "a\nb\n"}},
    "no schedule": {"cron_jobs": {"a": JOB}},
    "no prompt": {"cron_jobs": {"a": JOB}},
    "never": {"cron_jobs": {"a": JOB | {"schedule": "every 2h"}}},
    "once": {"cron_jobs": {"a": JOB | {"schedule": "2027-01-31T09:00"}}},
    "words": {"cron_jobs": {"a": JOB | {"schedule": "0 7 * * *"}}},
    "no command": {"mcp_servers": {"a": {"command": "x", "args": []}}},
    "both": {"mcp_servers": {"a": {"url": "https://x"}}},
    "a secret by look": {"mcp_servers": {"a": SERVER | {"env": {"A": "${TOKEN}"}}}},
    "a secret by name": {
        "mcp_servers": {"a": {"url": "https://x", "headers": {"X-Api-Key": "${TOKEN}"}}}
    },
    "a secret's argument": {"mcp_servers": {"a": SERVER | {"args": ["--token", "${TOKEN}"]}}},
    "a server's args ['--token=0123456789abc']": {
        "mcp_servers": {"a": SERVER | {"args": ["--token=${TOKEN}"]}}
    },
    "a server's timeout 60": {"mcp_servers": {"a": SERVER | {"timeout": 60}}},
    "a server's env ['A=b']": {"mcp_servers": {"a": SERVER | {"env": {"A": "b"}}}},
    "a server's agrs ['x']": {"mcp_servers": {"a": SERVER | {"args": ["x"]}}},
    "two names for one": {"mcp_servers": {"a-b": SERVER, "c": SERVER}},
    "an unknown key": {"config": {"pinned": {"agent": {"max_turns": 9}}}},
    "an unknown key at the end": {"config": {"pinned": {"agent": {"max_turns": 9}}}},
    "what is read past the pinned": {
        "config": {"initial": {"browser": {"allow_private_urls": True}}}
    },
    "a dot": {"config": {"initial": {"display": {"skin": "mono"}}}},
    "no strength": {"config": {"initial": {"agent": {"max_turns": 9}}}},
    "settings that are none": {"config": {"pinned": {"agent": {"max_turns": 9}}}},
    "two strengths": {"config": {"pinned": {"timezone": "UTC"}}},
    "taken over": {"take_over": ["skills"]},
    "a name that is a number": {"skills": {"5": "---\nname: '5'\ndescription: b\n---\nx\n"}},
    "another system's": {
        "skills": {"a": "---\nname: a\ndescription: b\nplatforms: [macos, Linux]\n---\nx\n"}
    },
    "another place's": {
        "skills": {"a": "---\nname: a\ndescription: b\nenvironments: [s6, docker]\n---\nx\n"}
    },
    "tools that are no list": {"skills": {"a": WITH_TOOLS.format("requires_tools: [terminal]")}},
    "declared and off": {
        "skills": ["skills/good"],
        "config": {"initial": {"skills": {"disabled": ["other"]}}},
    },
    "a job, misspelt": {"cron_jobs": {"a": {"schedule": "0 7 * * *", "prompt": "x"}}},
    "a job's workdir projects": {"cron_jobs": {"a": JOB | {"workdir": "~/projects"}}},
    "a job's name": {"cron_jobs": {"a b.c-d": JOB}},
}
"""What somebody wrote who followed the cards of the cases above."""


@pytest.mark.parametrize("case", FOLLOWED)
def test_who_does_what_a_card_says_is_done_with_it(inventory: Inventory, case: str) -> None:
    assert case in REFUSED
    inventory.skill("good")
    declared = inventory.read(**FOLLOWED[case])
    assert [(one.subject, one.sentence) for one in declared.problems] == []


def test_a_soul_of_one_line_is_told_how_it_is_written(inventory: Inventory) -> None:
    (problem,) = inventory.read(soul="You are a kind assistant.").problems
    assert "{text: ...}" in problem.remedy


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_good_is_refused_by_its_name(inventory: Inventory, case: str) -> None:
    inventory.skill("good")
    inventory.skill("large")
    inventory.write("skills/large/noise", os.urandom(5 << 20))
    inventory.write("skills/bare/README.md", "x")
    inventory.skill("linked")
    (inventory.folder / "skills/linked/more.md").symlink_to("/etc/hostname")
    inventory.write("empty.md", "\n")
    inventory.write("latin.md", b"\xe4\n")
    inventory.write("bad.j2", "{{ typo }}\n")
    inventory.write("leaks.md", f"My token is {SECRET}.\n")
    inventory.write("skills/latin/SKILL.md", b"---\nname: \xe4\n---\nx\n")
    inventory.skill("deep")
    inventory.write(f"skills/deep/{'a/' * 63}b", "x")
    inventory.skill("long")
    inventory.write(f"skills/long/{'a' * 240}.md", "x")
    if case.startswith("more files"):
        for name in ("many", "more"):
            inventory.skill(name)
            for number in range(1000):
                inventory.write(f"skills/{name}/{number}", "x")
    with tarfile.open(inventory.folder / "outside.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../SKILL.md"))
    raw, subject, words = REFUSED[case]
    declared = inventory.read(**raw)
    found = [(one.subject, one.sentence) for one in declared.problems]
    assert [one for one in found if one[0] == subject and words in one[1]], found
    assert all(one.remedy and one.code == "agent" for one in declared.problems)
    assert SECRET not in str(found) and "0123456789abc" not in str(found)


def test_numbers_of_a_server_are_texts_to_hermes(inventory: Inventory) -> None:
    """It takes nothing else there: a server with a number in its environment would never be connected."""
    said = {"command": "x", "args": ["--port", 8080, True], "env": {"A": 5, "B": False}}
    server = said | {"timeout": 60, "lifecycle": {"a": 1}, "of_a_later_hermes": 1}
    declared = inventory.read(mcp_servers={"a": server})
    assert declared.problems == []
    words = {"args": ["--port", "8080", "true"], "env": {"A": "5", "B": "false"}}
    assert table(declared)["mcp_servers"]["a"] == server | words


def zipped(inventory: Inventory, name: str, **changes: tuple[int, int]) -> dict[str, Any]:
    """Write an archive of a skill. changes: bytes behind the start of each of its two headers, and what they become."""
    path = inventory.write(f"{name}.zip", b"")
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("SKILL.md", SKILL.format(name=name))
    content = bytearray(path.read_bytes())
    for start, at in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        for place, value in changes.values():
            content[content.find(start) + place + at] = value
    path.write_bytes(content)
    return {"skills": [path.name]}


def zip_of(inventory: Inventory, *names: str, kind: int = stat.S_IFREG) -> dict[str, Any]:
    path = inventory.folder / "packed.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for name in names:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (kind | 0o644) << 16
            packed.writestr(entry, "x")
    return {"skills": [path.name]}


def tarred(
    inventory: Inventory, *more: str, cut: int = 0, link: str | None = None
) -> dict[str, Any]:
    path = inventory.folder / "packed.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in [
            ("SKILL.md", SKILL.format(name="packed").encode()),
            *((one, os.urandom(9000)) for one in more),
        ]:
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
        if link:
            entry = tarfile.TarInfo("link")
            entry.type, entry.linkname = tarfile.SYMTYPE, link
            archive.addfile(entry)
    if cut:
        path.write_bytes(path.read_bytes()[:cut])
    return {"skills": [path.name]}


def with_file(inventory: Inventory, name: bytes) -> dict[str, Any]:
    inventory.skill("odd")
    Path(os.fsdecode(os.fsencode(inventory.folder / "skills/odd") + b"/" + name)).write_text("x")
    return {"skills": ["skills/odd"]}


def with_pipe(inventory: Inventory, name: str) -> str:
    inventory.skill("piped")
    os.mkfifo(inventory.folder / name)
    return name


UNREADABLE: dict[str, tuple[Callable[[Inventory], dict[str, Any]], str]] = {
    "a device": (lambda _: {"skills": {"a": "/dev/zero"}}, "/dev/zero is neither a file"),
    "a pipe": (lambda it: {"soul": with_pipe(it, "pipe")}, "is neither a file"),
    "a pipe in a skill": (
        lambda it: (with_pipe(it, "skills/piped/p") and {"skills": ["skills/piped"]}) or {},
        "is neither a file",
    ),
    "a folder for a text": (lambda it: it.skill("good") or {"soul": "skills"}, "is a folder"),
    "a large file": (
        lambda it: (it.write("large.md", "x" * (2 << 20)) and {"soul": "large.md"}) or {},
        "at most 1 MB",
    ),
    "a text in one line": (lambda _: {"soul": "You are kind. " * 400}, "is no path"),
    "a name in no letters": (lambda it: with_file(it, b"\xff.md"), "is no path that fits"),
    "an archive with a password": (lambda it: zipped(it, "a", flag=(6, 1)), "cannot be unpacked"),
    "an archive packed otherwise": (lambda it: zipped(it, "a", way=(8, 99)), "cannot be unpacked"),
    "a link in a zip": (
        lambda it: zip_of(it, "link", kind=stat.S_IFLNK),
        "has 'link', which is no file inside of it.",
    ),
    "a text with a zero": (lambda it: {"soul": {"text": "a\0b"}}, "at most 1 MB"),
    "a skill of no path": (lambda _: {"skills": [7]}, "7 is no path."),
    "too many files": (
        lambda it: zip_of(it, *map(str, range(2001))),
        "has more than 2000 files or 32 MB.",
    ),
    "a link in an archive": (
        lambda it: tarred(it, link="/etc/passwd"),
        "has 'link', which is no file inside of it.",
    ),
    "a cut archive": (lambda it: tarred(it, "more", cut=5000), "cannot be unpacked"),
    "a file that is a folder too": (
        lambda it: tarred(it, "a", "a/b"),
        "has 'a', which is a file and a folder",
    ),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_one_card(inventory: Inventory, case: str) -> None:
    make, words = UNREADABLE[case]
    (problem,) = inventory.read(**make(inventory)).problems
    assert words in problem.sentence, problem.sentence
    assert len(problem.sentence) < 600


def test_a_folder_that_may_not_be_looked_into_is_not_left_out(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory.skill("closed")
    inventory.write("skills/closed/inside/more.md", "x")
    looked_into = os.scandir

    def scandir(place: Any) -> Any:
        if Path(place).name == "inside":
            raise PermissionError(13, "Permission denied", place)
        return looked_into(place)

    monkeypatch.setattr(os, "scandir", scandir)
    (problem,) = inventory.read(skills=["skills/closed"]).problems
    assert "closed/inside cannot be read: Permission denied." in problem.sentence


def test_what_a_mac_packs_beside_a_skill_is_left_out(inventory: Inventory) -> None:
    with zipfile.ZipFile(inventory.folder / "notes.zip", "w") as packed:
        packed.writestr("notes/SKILL.md", SKILL.format(name="notes"))
        packed.writestr("__MACOSX/notes/._SKILL.md", "x")
    declared = inventory.read(skills=["notes.zip"])
    assert declared.problems == []
    assert [*declared.members] == ["skills/notes/SKILL.md", "agent.json"]


def test_a_bare_process_has_no_say_in_its_tools(inventory: Inventory) -> None:
    raw = {"config": {"initial": {"agent": {"disabled_toolsets": ["web"]}}}}
    assert inventory.read(**raw).problems == []
    inventory.settings.engine = "process"
    (problem,) = inventory.read(**raw).problems
    assert "pinned" in problem.remedy
    assert inventory.read(config={"pinned": raw["config"]["initial"]}).problems == []
    inventory.settings.host_tools = True
    assert inventory.read(**raw).problems == []


@pytest.mark.parametrize(
    "schedule",
    [
        *("0 7 * * *", "*/5 0-6,22 1-31/2 * 0-7", "30 4 29 2 *", "0 0 31 2 1", "every 2h"),
        *("Every 1 day", "2027-01-31T09:00", "2027-01-31T09:00:00+01:00"),
    ],
)
def test_schedules_that_hermes_takes_are_taken(inventory: Inventory, schedule: str) -> None:
    declared = inventory.read(cron_jobs={"a": JOB | {"schedule": schedule}})
    assert declared.problems == []


@pytest.mark.parametrize(
    ("environment", "settings", "config", "refused"),
    [
        ("s6", {}, {}, True),
        ("s6", {"source": {"image": "x@sha256:1"}}, {}, False),
        ("kanban", {}, {}, True),
        ("kanban", {}, {"pinned": {"toolsets": ["kanban"]}}, False),
        # Whether it is in a container, only Hermes itself finds out; what it does not know hides nothing.
        ("docker", {"engine": "process"}, {}, False),
        ("else", {}, {}, False),
    ],
)
def test_a_skill_for_what_is_not_here_is_refused_where_that_is_known(
    inventory: Inventory,
    environment: str,
    settings: dict[str, Any],
    config: dict[str, Any],
    refused: bool,
) -> None:
    inventory.settings = Settings(**{"name": "alice", "engine": "docker"} | settings)
    text = f"---\nname: a\ndescription: b\nenvironments: {environment}\n---\nx\n"
    declared = inventory.read(skills={"a": text}, config=config)
    assert [one.subject for one in declared.problems] == (["hermes_skills.a"] if refused else [])

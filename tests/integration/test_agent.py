# SPDX-License-Identifier: Apache-2.0
"""The agent as an inventory declares it, changed and taken away by deploys while Hermes is awake.

Judged by what the provider is asked, what lies in Hermes' home and what Hermes lists; then a deploy that has nothing
to do. The tests follow each other on one deployment.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from plays import Deployment

from tests.standins.provider import Provider

KEY = "sk-canary-of-a-provider-key"
SKILL = "---\nname: {name}\ndescription: Keeps {what}.\n---\nWrite down what was said.\n"
WITH_TOOLS = """---
name: songs
description: Keeps songs.
metadata: {hermes: {requires_toolsets: [terminal]}}
---
Write it down.
"""
DECLARED = ("soul", "skills", "cron_jobs", "memories", "config", "mcp_servers", "take_over")
CLOCK = {"command": "python3", "args": ["-m", "mcp_server_time"]}
LEARNT = "(what Hermes has learnt stays)"
DISPLAY = {"initial": {"display": {"language": "de"}}}


def words_of(output: str) -> str:
    """What was printed, however its columns are."""
    return re.sub(" +", " ", output)


@dataclass
class Scene:
    """A deployment, its provider, and the files of its inventory."""

    it: Deployment
    provider: Provider

    def write(self, name: str, text: str) -> None:
        """Write a file beside the inventory."""
        path = self.it.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def declare(self, **variables: Any) -> None:
        self.it.variables |= {f"hermes_{name}": value for name, value in variables.items()}

    def deploy(self, *arguments: str) -> str:
        play = self.it.deploy(*arguments)
        assert "deployed and verified" in play.output
        return words_of(play.output)

    def prompt(self) -> str:
        """What the provider is told before a new conversation."""
        assert self.it.chat("Hello").status == 200
        asked = next(seen for seen in reversed(self.provider.seen) if seen.body)
        return json.dumps(asked.body)

    def skills(self) -> list[str]:
        return [one["name"] for one in self.it.call("GET", "/v1/skills").json["data"]]

    def home(self) -> Path:
        """Hermes' home, as this machine has it."""
        (home,) = self.it.state.glob("engine/disks/*/disk/home/.hermes")
        return home

    def traces_of_starts(self) -> tuple[list[str], list[int]]:
        """What each start of a sandbox leaves: a disk of its own, and Hermes' processes."""
        disks = sorted(path.name for path in self.it.state.glob("engine/disks/*"))
        return disks, [one.process.pid for one in self.it.running() if "gateway" in one.words]

    def agent(self) -> dict[str, Any]:
        return dict(self.it.call("GET", "/api/instance/agent").json["running"])


@pytest.fixture(scope="module")
def scene(make_deployment: Callable[..., Deployment]) -> Iterator[Scene]:
    with Provider(key=KEY) as provider:
        it = make_deployment("declared")
        it.variables |= {
            "custom_api_key": KEY,
            "hermes_default_model": "custom/one",
            "hermes_provider_base_url": f"{provider.url}/v1",
        }
        scene = Scene(it, provider)
        scene.write("soul.md.j2", "You are called {{ inventory_hostname }}-the-first.\n")
        scene.write("skills/notes/SKILL.md", SKILL.format(name="notes", what="notes"))
        scene.write("skills/lists/SKILL.md", SKILL.format(name="lists", what="lists"))
        scene.declare(
            soul="soul.md.j2",
            skills=["skills/notes", "skills/lists"],
            cron_jobs={"morning": {"schedule": "0 7 * * *", "prompt": "Say good morning."}},
            memories={"user": {"text": "Likes green tea."}},
            config={
                "pinned": {"agent": {"environment_hint": "You live in a lighthouse."}},
                **DISPLAY,
            },
        )
        yield scene


def test_what_is_declared_reaches_the_model_and_hermes_home(scene: Scene) -> None:
    output = scene.deploy()
    added = "soul: +; skills: + lists, + notes; jobs: + morning; memories: + user; config: + agent.environment_hint"
    assert f" create agent {added}, + display.language" in output
    assert "agent a soul, 2 skills, 1 job, settings" in output
    prompt = scene.prompt()
    assert "declared-the-first" in prompt, "the soul, as the template has it"
    assert "green tea" in prompt, "what it begins with"
    assert "Keeps lists." in prompt and "Keeps notes." in prompt
    assert scene.skills() == ["lists", "notes"]
    jobs = json.loads((scene.home() / "cron/jobs.json").read_text())["jobs"]
    assert [(one["name"], one["prompt"]) for one in jobs] == [("morning", "Say good morning.")]
    assert "lighthouse" in prompt, "a setting of Hermes' own"
    assert "language: de" in (scene.home() / "config.yaml").read_text()
    assert scene.it.deploy().changed("declared") == 0


def test_a_change_is_told_item_by_item_and_restarts_nothing_of_hermes(scene: Scene) -> None:
    pids = scene.it.hermes_pids()
    scene.write("soul.md.j2", "You are called {{ inventory_hostname }}-the-second.\n")
    scene.write("skills/notes/SKILL.md", SKILL.format(name="notes", what="minutes"))
    scene.write("skills/songs/SKILL.md", WITH_TOOLS)
    scene.declare(skills=["skills/notes", "skills/songs"], cron_jobs={})
    change = "update agent soul: ~; skills: + songs, ~ notes, - lists; jobs: - morning"
    planned = scene.it.play("deploy", "--check", "--diff")
    assert planned.code == 0 and change in words_of(planned.output)
    for line in ("-description: Keeps notes.", "+description: Keeps minutes.", "-You are called"):
        assert line in planned.output, "the texts are shown"
    assert scene.skills() == ["lists", "notes"], "and nothing was done"
    output = scene.deploy()
    assert change in output
    assert "because of hermes_cron_jobs, hermes_skills, hermes_soul" in output
    assert "Restarts: declared (workerd)." in output
    assert scene.it.hermes_pids() == pids
    assert scene.skills() == ["notes", "songs"]
    # Here Hermes has no tools of the machine's.
    assert "hidden skills/songs: its SKILL.md wants toolsets that Hermes does not" in output
    prompt = scene.prompt()
    assert "Keeps songs." not in prompt
    assert "declared-the-second" in prompt and "Keeps minutes." in prompt
    assert "Keeps lists." not in prompt
    assert json.loads((scene.home() / "cron/jobs.json").read_text())["jobs"] == []
    assert "green tea" in prompt, "nobody changed it"
    assert scene.it.deploy().changed("declared") == 0


def test_settings_and_servers_are_told_before_and_come_in_another_image_with_all_the_rest(
    scene: Scene,
) -> None:
    """The feature that servers bring along is that other image."""
    pinned = {"agent": {"environment_hint": "You live in a windmill."}}
    scene.declare(
        config={"pinned": pinned | {"timezone": "Europe/Berlin"}, "initial": {}},
        mcp_servers={"clock": CLOCK, "watch": CLOCK},
    )
    change = (
        "update agent servers: + clock, + watch;"
        " config: + timezone, ~ agent.environment_hint, - display.language"
    )
    planned = scene.it.play("deploy", "--check", "--diff")
    assert planned.code == 0 and change in words_of(planned.output)
    for line in ('-        "environment_hint": "You live in a lighthouse."', '+    "clock": {'):
        assert line in planned.output, "the texts are shown"
    assert "lighthouse" in scene.prompt(), "and nothing was done"
    output = scene.deploy()
    assert change in output
    assert "Hermes in a new sandbox, because of a new image" in output
    assert "2 servers with 4 tools" in output
    prompt = scene.prompt()
    assert "windmill" in prompt and "lighthouse" not in prompt
    assert "mcp__clock__get_current_time" in prompt and "mcp__watch__get_current_time" in prompt
    assert "declared-the-second" in prompt and "Keeps minutes." in prompt and "green tea" in prompt
    assert scene.skills() == ["notes", "songs"]
    assert "language" not in (scene.home() / "config.yaml").read_text()
    assert scene.it.deploy().changed("declared") == 0


def test_one_server_is_taken_away_and_nothing_else(scene: Scene) -> None:
    scene.declare(mcp_servers={"clock": CLOCK})
    change = "update agent servers: - watch"
    planned = scene.it.play("deploy", "--check", "--diff")
    assert planned.code == 0 and f"{change}\n" in words_of(planned.output).replace(" \n", "\n")
    boot = scene.it.status()["bootId"]
    output = scene.deploy()
    assert change in output and "1 server with 2 tools" in output
    assert scene.it.status()["bootId"] == boot, "Hermes alone is restarted"
    prompt = scene.prompt()
    assert "mcp__clock__get_current_time" in prompt and "mcp__watch" not in prompt
    assert "windmill" in prompt and "declared-the-second" in prompt
    assert scene.skills() == ["notes", "songs"]


def test_it_outlives_a_sleep_and_the_restore_of_a_backup_from_before(scene: Scene) -> None:
    backups = scene.it.call("GET", "/api/instance/backups").json["backups"]
    oldest = min(one["id"] for one in backups if one["state"] == "good")
    with scene.it.open("GET", f"/api/instance/backups/{oldest}") as backup:
        before = scene.it.home / "before.hermes"
        before.write_bytes(backup.read())
    assert scene.it.call("POST", "/api/instance/sleep").status == 200
    for restored in (False, True):
        if restored:
            play = scene.it.play("restore", "-e", f"hermes_backup={before}")
            assert play.code == 0, play.output
        prompt = scene.prompt()
        assert "declared-the-second" in prompt and "Keeps minutes." in prompt
        assert "Keeps lists." not in prompt and scene.skills() == ["notes", "songs"]
        assert json.loads((scene.home() / "cron/jobs.json").read_text())["jobs"] == []
        assert "windmill" in prompt and "mcp__clock__get_current_time" in prompt
        assert "language" not in (scene.home() / "config.yaml").read_text()


def test_who_sleeps_is_not_woken_for_content_and_wakes_with_it(scene: Scene) -> None:
    scene.deploy()
    assert scene.it.call("POST", "/api/instance/sleep").status == 200
    asked, before = len(scene.provider.seen), scene.traces_of_starts()
    scene.write("soul.md.j2", "You are called {{ inventory_hostname }}-the-third.\n")
    scene.write("skills/notes/SKILL.md", SKILL.format(name="notes", what="diaries"))
    scene.declare(memories={"user": {"text": "Likes black tea."}})
    change = f"update agent soul: ~; skills: ~ notes; memories: ~ user {LEARNT}"
    note = "Note: Hermes sleeps, and is not woken for this: it wakes with it."
    planned = scene.it.play("deploy", "--check", "--diff")
    assert planned.code == 0
    for line in (note, "-Likes green tea.", "+Likes black tea."):
        assert line in planned.output
    for output in (words_of(planned.output), scene.deploy()):
        assert change in output and note in output
    again = scene.it.deploy()
    assert again.changed("declared") == 0
    assert "by its health; not its new content: Hermes sleeps, and wakes with it" in again.output
    assert (len(scene.provider.seen), scene.traces_of_starts()) == (asked, before)
    assert scene.it.instance_state() == "asleep"
    prompt = scene.prompt()
    assert "declared-the-third" in prompt and "Keeps diaries." in prompt and "black tea" in prompt


def test_what_hermes_has_learnt_stays_as_the_plan_says(scene: Scene) -> None:
    (scene.home() / "memories/USER.md").write_text("Likes coffee.")
    scene.declare(memories={"user": {"text": "Likes milk."}})
    assert f"update agent memories: ~ user {LEARNT}" in scene.deploy()
    prompt = scene.prompt()
    assert "coffee" in prompt and "milk" not in prompt


def test_what_hermes_changed_is_kept_and_told_until_it_is_taken_over(scene: Scene) -> None:
    skill = scene.home() / "skills/notes/SKILL.md"
    skill.write_text(SKILL.format(name="notes", what="what I learnt"))
    scene.write("skills/notes/SKILL.md", SKILL.format(name="notes", what="new notes"))
    why = "skills/notes: changed by Hermes or its owner; hermes_take_over lays the declared one"
    assert f"kept {why}" in words_of(scene.it.play("status").output)
    assert f"Note: {why}" in words_of(scene.it.play("deploy", "--check").output)
    output = scene.deploy()
    assert f"Note: {why}" in output and f"kept {why}" in output
    assert "what I learnt" in skill.read_text()
    assert scene.it.deploy().changed("declared") == 0, "it is no difference of the deployment's"
    scene.declare(take_over=["skills/notes"])
    output = scene.deploy()
    assert "agent taken over: + skills/notes" in output
    assert "Keeps new notes." in skill.read_text()
    assert "kept skills" not in output
    assert scene.agent()["kept"] == []


def test_what_is_wrong_is_refused_before_anything_is_changed(scene: Scene) -> None:
    shutil.rmtree(scene.it.home / "skills/songs")
    before = scene.agent()["archive"]
    play = scene.it.play("deploy")
    assert play.code != 0
    looked = f"Looked for: {scene.it.home}/skills/songs, playbooks/skills/songs."
    assert "hermes_skills.songs: 'skills/songs' is not there." in play.output
    assert looked in play.output and "Nothing was changed." in play.output
    assert scene.agent()["archive"] == before


def test_all_of_it_can_be_taken_away(scene: Scene) -> None:
    for name in [one for one in scene.it.variables if one.removeprefix("hermes_") in DECLARED]:
        del scene.it.variables[name]
    output = scene.deploy()
    assert "soul: -; skills: - notes, - songs" in output
    assert scene.skills() == []
    prompt = scene.prompt()
    assert "declared-the-" not in prompt
    assert "lighthouse" not in prompt and "windmill" not in prompt and "milk" not in prompt
    assert not (scene.it.state / "build/agent.tar.gz").exists()
    assert scene.it.deploy().changed("declared") == 0

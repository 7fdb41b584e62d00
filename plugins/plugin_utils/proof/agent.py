# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a running Hermes is what the inventory declares: it is asked itself, without a call of a model."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...module_utils.cards import Problem
from ...module_utils.settings.values import canonical
from ...module_utils.worker_client import Unreachable, WorkerClient
from ..agent.content import SOUL, TABLE, Member
from ..agent.declaration import ALWAYS_THERE, FORMAT, REFERENCE, conditions_of
from ..agent.sources import SKILL

AGENT = "/api/instance/agent"
SETTLED_SECONDS = 40.0
"""How long a server of tools may take until it is connected, or has failed."""
POLL_SECONDS = 0.5
UNSETTLED = ("connecting", "configured")
NOT_LISTED = ", though it is laid: skills.disabled in its own config.yaml turns it off, or it is for other environments"
NOT_LAID = "not laid: "
"""With what the sandbox begins the reason for an item that could not be."""
AGAIN = "mend its cause and run the deploy again."
ANEW = "mend its cause, run `{}`, for Hermes reads this when it starts, and run the deploy again."

CONTENT = frozenset({"hermes_soul", "hermes_skills", "hermes_memories"})
"""Parts that Hermes reads when it needs them. Of a job it has to be asked when it is due, and of what is taken over
what became of it."""


def told(client: WorkerClient) -> dict[str, Any] | None:
    """Return what a running Hermes has, as the Worker tells; None when none runs, or it does not tell."""
    try:
        answer = client.request("GET", AGENT, timeout=30)
    except Unreachable:
        return None
    return answer.json().get("running") if answer.status == 200 else None


def settled(client: WorkerClient) -> dict[str, Any] | None:
    """Return the same once no server is being connected any more."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while True:
        running = told(client)
        states = [one["status"] for one in (running or {}).get("servers", [])]
        waits = running is None or any(state in UNSETTLED for state in states)
        if not waits or time.monotonic() > deadline:
            return running
        time.sleep(POLL_SECONDS)


def asleep_with(client: WorkerClient) -> tuple[str, dict[str, Any]] | None:
    """Return the version of a Worker whose Hermes sleeps, and its agent's label; None of one that does not sleep."""
    try:
        health = client.request("GET", "/api/health", timeout=30)
        agent = client.request("GET", AGENT, timeout=30)
    except Unreachable:
        return None
    if not health.status == agent.status == 200:
        return None
    seen, declared = health.json(), agent.json()["declared"]
    if seen["instance"]["state"] != "asleep":
        return None
    names = ("archive", "parts")
    label = {"format": FORMAT} | {name: declared[name] for name in names}
    return seen["worker"]["version"], label if declared["archive"] else {}


def is_content(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Tell whether two labels of an agent differ in content only."""
    old, new = (dict(one.get("parts", {})) for one in (before, after))
    return {name for name in old | new if old.get(name) != new.get(name)} <= CONTENT


def missing(
    members: Mapping[str, Member], archive: str, running: dict[str, Any] | None, restart: str
) -> list[Problem]:
    """Return what is declared and not in force; what Hermes or its owner changed is kept on purpose, and no problem.

    members: of the declared archive, and its digest; running: what Hermes has, None when it does not tell; restart: a
    command that starts Hermes anew.
    """
    if not members:
        return []
    if running is None:
        return [_problem("hermes", "does not tell what it has of what is declared.")]
    table = json.loads(members[TABLE].content)
    kept = {one["item"] for one in running["kept"]}
    problems = []
    if running["archive"] != archive:
        problems.append(_problem("hermes", "has another declaration laid than this one."))
    skills = sorted({path.split("/")[1] for path in members if path.startswith("skills/")})
    problems += [
        _problem(
            f"hermes_skills.{name}",
            f"Hermes does not list it{NOT_LISTED if f'skills/{name}' in running['laid'] else ''}.",
        )
        for name in skills
        if name not in running["skills"] and f"skills/{name}" not in kept
    ]
    if SOUL in members and not {"soul"} & {*running["laid"], *kept}:
        problems.append(_problem("hermes_soul", "is not laid."))
    listed = {one["name"] for one in running["jobs"]}
    # One that ran for the last time is laid, and listed no more.
    there = listed | {one.removeprefix("jobs/") for one in {*running["laid"], *kept}}
    problems += [
        _problem(f"hermes_cron_jobs.{name}", "is not scheduled.")
        for name in table["cron_jobs"]
        if name not in there
    ]
    if running["environment"] is None:
        # A Hermes that cannot be asked: the plan said so when its image was made, and says so again.
        return problems
    anew = ANEW.format(restart)
    problems += _servers(table["mcp_servers"], running["servers"], anew)
    named = canonical([table["config"], table["mcp_servers"]])
    names = set(REFERENCE.findall(named)) - ALWAYS_THERE
    for name in sorted(names - set(running["environment"])):
        words = "is not in Hermes' environment."
        problems.append(_problem(f"hermes_secrets.{name}", words, anew))
    return problems


def _servers(
    declared: Mapping[str, Any], running: list[dict[str, Any]], remedy: str
) -> list[Problem]:
    states = {one["name"]: one for one in running}
    problems = []
    for name in declared:
        one = states.get(name, {"status": "not known to Hermes", "error": None})
        if one["status"] in ("connected", "disabled"):
            continue
        why = " ".join(str(one.get("error") or "").split())[:300].rstrip(".")
        sentence = f"is not connected ({one['status']}){f': {why}' if why else ''}."
        problems.append(_problem(f"hermes_mcp_servers.{name}", sentence, remedy))
    return problems


def _problem(subject: str, sentence: str, remedy: str = AGAIN) -> Problem:
    return Problem(subject, sentence, remedy, "agent-not-in-force")


def rows(
    members: Mapping[str, Member], running: dict[str, Any] | None, take: str
) -> list[tuple[str, str]]:
    """Return the rows of a card: what is declared, and what of it is otherwise. take: the variable that mends that."""
    if not members:
        return []
    table = json.loads(members[TABLE].content)
    skills = {path.split("/")[1] for path in members if path.startswith("skills/")}
    told = running is not None and running["environment"] is not None
    tools = sum(len(one["tools"]) for one in (running or {}).get("servers", []))
    counted = [
        *(["a soul"] if SOUL in members else []),
        *_count(len(skills), "skill"),
        *_count(len(table["cron_jobs"]), "job"),
        *_count(len(table["mcp_servers"]), "server", f" with {tools} tools" if told else ""),
    ]
    settings = table["config"]["pinned"] or table["config"]["initial"]
    counted += ["settings"] if settings else []
    found = [("agent", ", ".join(counted) or "memories")]
    return found + kept_rows(running, take)


def hidden_rows(
    members: Mapping[str, Member],
    running: Mapping[str, Any] | None,
    toolsets: Iterable[Mapping[str, Any]],
) -> list[tuple[str, str]]:
    """Return a row for each skill that Hermes lists and does not show its model, as the skill wants it.

    toolsets: as Hermes lists them.
    """
    kept = {one["item"] for one in (running or {}).get("kept", [])}
    offered = [one for one in toolsets if one["enabled"]]
    there = {
        "toolsets": {one["name"] for one in offered},
        "tools": {name for one in offered for name in one.get("tools", ())},
    }
    skills = {
        path.removesuffix(f"/{SKILL}"): conditions_of(member.content)
        for path, member in sorted(members.items())
        if re.fullmatch(f"skills/[^/]+/{SKILL}", path)
    }
    return [
        ("hidden", f"{item}: its {SKILL} {why}")
        for item, wants in skills.items()
        if item not in kept
        for why in _hidden(wants, there)
    ]


def _hidden(wants: Mapping[str, Any], there: Mapping[str, set[str]]) -> Iterator[str]:
    """Return why a skill is not shown. wants: its conditions; there: which tools are offered."""
    for kind, names in there.items():
        # Of tools of a server Hermes' lists say nothing.
        lacking = {one for one in wants.get(f"requires_{kind}", ()) if not one.startswith("mcp")}
        if lacking := lacking - names:
            words = ", ".join(sorted(lacking))
            yield f"wants {kind} that Hermes does not offer its model: {words}"
        if other := names.intersection(wants.get(f"fallback_for_{kind}", ())):
            words = ", ".join(sorted(other))
            yield f"is for where Hermes offers its model no {kind} like {words}"


def status_rows(client: WorkerClient, take: str, seconds: float) -> list[tuple[str, str]]:
    """Return the rows of a status: what is otherwise than declared, or why nobody knows. take: as rows() takes it.

    seconds: how long the Worker may take.
    """
    try:
        answer = client.request("GET", AGENT, timeout=seconds)
    except Unreachable:
        return [("agent", "Hermes did not tell in time what it has.")]
    if answer.status != 200:
        return [("agent", answer.complaint())]
    return kept_rows(answer.json().get("running"), take)


def kept_rows(running: dict[str, Any] | None, take: str) -> list[tuple[str, str]]:
    """Return a row for each item that is otherwise, or that could not be laid."""
    return [
        ("agent", f"{one['item']}: {one['why']}")
        if one["why"].startswith(NOT_LAID)
        else ("kept", f"{one['item']}: {one['why']}; {take} lays the declared one over it")
        for one in (running or {}).get("kept", [])
    ]


def _count(number: int, noun: str, more: str = "") -> list[str]:
    return [f"{number} {noun}{'s' if number > 1 else ''}{more}"] if number else []

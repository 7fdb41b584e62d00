# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What another declaration changes: in a line of the plan, and text by text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...module_utils.settings.values import canonical
from ...module_utils.worker_client import Unreachable, WorkerClient
from .config_keys import flat
from .content import SOUL, TABLE, Member, Members, digest, unpack
from .schedules import is_over

LEARNT = " (what Hermes has learnt stays)"
OVER = " (its time has passed: it is done)"
NOT_TEXT = "not text: sha256 {}, {} bytes\n"


def deployed(client: WorkerClient | None, built: Path) -> Members | None:
    """Return what a deployment was declared to be, as its Worker tells or as it was built here; None when neither.

    client: whose token the Worker takes, None for none; built: where an archive lies that was deployed from here.
    """
    archive = _served(client)
    if archive is None:
        if not built.parent.is_dir():
            return None
        archive = built.read_bytes() if built.exists() else b""
    try:
        return unpack(archive) if archive else {}
    except ValueError:
        return None


def _served(client: WorkerClient | None) -> bytes | None:
    """Return the archive that the Worker has; empty for none, None when it does not tell."""
    if client is None:
        return None
    try:
        answer = client.request("GET", "/api/instance/agent/archive", timeout=20)
    except Unreachable:
        return None
    if answer.status == 204:
        return b""
    return answer.body if answer.status == 200 else None


def items(members: Mapping[str, Member]) -> dict[str, dict[str, Any]]:
    """Return what is declared: kind -> name -> what tells one from another."""
    found: dict[str, dict[str, Any]] = {}
    table = json.loads(members[TABLE].content) if TABLE in members else {}
    for strength, config in (table.get("config") or {}).items():
        found.setdefault("config", {}).update(
            {key: (strength, canonical(value)) for key, value in flat(config)}
        )
    for kind, name in (("servers", "mcp_servers"), ("jobs", "cron_jobs")):
        found[kind] = {one: canonical(value) for one, value in (table.get(name) or {}).items()}
    found["taken over"] = dict.fromkeys(table.get("take_over") or [], "")
    for path, member in sorted(members.items()):
        kind, _slash, rest = path.partition("/")
        told = (digest(member.content), member.runs)
        if kind == "skills":
            name, _slash, inside = rest.partition("/")
            found.setdefault("skills", {}).setdefault(name, {})[inside] = told
        elif kind == "memories":
            found.setdefault("memories", {})[rest.removesuffix(".md").lower()] = told
        elif path == SOUL:
            found["soul"] = {"": told}
    return found


def words(before: Mapping[str, Member] | None, after: Mapping[str, Member]) -> str:
    """Return what changes in one line, `skills: + weather, ~ notes, - old`; an empty text when nothing does."""
    old, new = items(before or {}), items(after)
    over = {
        f"jobs {name}": OVER
        for name, job in new["jobs"].items()
        if is_over(json.loads(job)["schedule"])
    }
    told = []
    for kind in ("soul", "skills", "jobs", "memories", "servers", "config", "taken over"):
        was, is_ = old.get(kind, {}), new.get(kind, {})
        there = {name: f"{name}{over.get(f'{kind} {name}', '')}" for name in sorted(is_)}
        changed = [
            *(f"+ {shown}".strip() for name, shown in there.items() if name not in was),
            *(
                f"~ {shown}".strip()
                for name, shown in there.items()
                if name in was and was[name] != is_[name]
            ),
            *(f"- {name}".strip() for name in sorted(was) if name not in is_),
        ]
        if changed:
            # Whether it has, only the run sees, and of one that sleeps nobody.
            more = LEARNT if kind == "memories" and was else ""
            told.append(f"{kind}: {', '.join(changed)}{more}")
    return "; ".join(told)


def diffs(before: Mapping[str, Member] | None, after: Mapping[str, Member]) -> list[dict[str, str]]:
    """Return each file that changes, as Ansible shows differences. No secret is in any: they stand there by name."""
    old = before or {}
    return [
        {
            "before": _text(old.get(name)),
            "after": _text(after.get(name)),
            "before_header": f"agent/{name}",
            "after_header": f"agent/{name}",
        }
        for name in sorted(old.keys() | after.keys())
        if old.get(name) != after.get(name)
    ]


def _text(member: Member | None) -> str:
    if member is None:
        return ""
    try:
        text = member.content.decode()
    except UnicodeDecodeError:
        return NOT_TEXT.format(digest(member.content)[:16], len(member.content))
    return f"# a program\n{text}" if member.runs else text

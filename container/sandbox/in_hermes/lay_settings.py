# SPDX-License-Identifier: Apache-2.0
"""Reads and writes Hermes' configuration and cron jobs, as the sandbox asks: lines of JSON in and out.

Runs on Hermes' own interpreter, beside a Hermes that may run: the jobs are changed by Hermes' own
functions under its own lock, the configuration by the library with which it keeps comments.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import yaml

HOME = os.environ["HERMES_HOME"]
CONFIG = os.path.join(HOME, "config.yaml")
UNREADABLE = "unreadable"
# What a declaration may say of a job, and what holds where it says nothing.
DEFAULTS: dict[str, Any] = {
    "prompt": "",
    "deliver": "local",
    "skills": [],
    "model": None,
    "provider": None,
    "base_url": None,
    "script": None,
    "context_from": None,
    "enabled_toolsets": None,
    "workdir": None,
    "no_agent": False,
}
OTHERS = {"schedule", "repeat", "attach_to_session", "enabled"}


OVER = "over"
"""In place of the id of a job that Hermes does not have, for its time had passed."""


class Refused(Exception):
    """An item that Hermes does not take: its name and why."""


# The configuration


def read_config() -> tuple[str, dict[str, Any]] | None:
    """Return the text and what Hermes reads in it; None when that is no configuration."""
    if os.path.islink(CONFIG) or (os.path.exists(CONFIG) and not os.path.isfile(CONFIG)):
        return None
    try:
        with open(CONFIG, encoding="utf-8") as file:
            text = file.read()
        values = yaml.safe_load(text) or {}
    except FileNotFoundError:
        return "", {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None
    return (text, values) if isinstance(values, dict) else None


def value_at(values: Any, path: list[str]) -> tuple[bool, Any]:
    """Return whether there is anything at a path, and what; what bars the way counts as it."""
    for depth, key in enumerate(path):
        if values is None and depth:
            return False, None
        if not isinstance(values, dict):
            return True, values
        if key not in values:
            return False, None
        values = values[key]
    return True, values


def digest(value: object) -> str:
    """Return a value's digest, as the sandbox does."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def look(question: dict[str, Any]) -> dict[str, Any]:
    """Answer what is there."""
    found = read_config() if question["paths"] else ("", {})
    values: dict[str, str | None] = {}
    for name, path in question["paths"].items():
        there, value = value_at(found[1], path) if found else (True, None)
        values[name] = (digest(value) if found else UNREADABLE) if there else None
    return {"values": values, "default_soul": bool(question["soul"]) and is_default_soul()}


def is_default_soul() -> bool:
    """Tell whether the soul is one that Hermes writes where it finds none."""
    from hermes_cli.default_soul import DEFAULT_SOUL_MD, is_legacy_template_soul

    path = os.path.join(HOME, "SOUL.md")
    try:
        if os.path.islink(path) or not os.path.isfile(path):
            return False
        with open(path, encoding="utf-8") as file:
            text = file.read(1 << 20)
    except (OSError, ValueError):
        return False
    return text.strip() in ("", DEFAULT_SOUL_MD.strip()) or is_legacy_template_soul(text)


def change(values: dict[str, Any], order: dict[str, Any], quoted: Callable[[Any], Any]) -> None:
    """Set and unset values in a configuration."""
    for _item, path, value in order["set"]:
        below = values
        for key in path[:-1]:
            if not isinstance(below.get(key), dict):
                below[quoted(key)] = {}
            below = below[key]
        add(below, quoted(path[-1]), quoted(value))
    for _item, path in order["unset"]:
        above = [values]
        for key in path[:-1]:
            above.append(above[-1][key])
        for branch, key in zip(reversed(above), reversed(path), strict=True):
            remove(branch, key)
            if branch:
                break


def add(branch: Any, key: str, value: Any) -> None:
    """Set a key; what is commented after the last one so far belongs to what follows the branch."""
    holder, last = branch, None
    while getattr(holder, "ca", None) is not None and holder and key not in branch:
        last = [*holder][-1] if isinstance(holder, dict) else len(holder) - 1
        if not isinstance(holder[last], (dict, list)):
            break
        holder = holder[last]
    branch[key] = value
    if last is None or isinstance(value, (dict, list)):
        return
    if not hasattr(holder, "ca") or not hasattr(branch, "ca"):
        return
    tokens = holder.ca.items.get(last)
    token = tokens[2 if isinstance(holder, dict) else 0] if tokens else None
    if token is not None and "\n" in token.value:
        first, _end, rest = token.value.partition("\n")
        if rest.strip():
            after = copy.copy(token)
            # A comment that begins a line of its own has nothing before its first end of line.
            token.value, after.value = f"{first}\n", f"\n{rest}"
            branch.ca.items[key] = [None, None, after, None]


def remove(branch: Any, key: str) -> None:
    """Remove a key, but no comment that stands before the next one."""
    tokens = branch.ca.items.pop(key, None) if hasattr(branch, "ca") else None
    keys = [*branch]
    position = keys.index(key)
    del branch[key]
    if tokens and len(tokens) > 2 and tokens[2] is not None and position:
        text = tokens[2].value
        rest = text[text.index("\n") :] if "\n" in text else ""
        if rest.strip():
            before = branch.ca.items.setdefault(keys[position - 1], [None, None, None, None])
            if before[2] is None:
                tokens[2].value = rest
                before[2] = tokens[2]
            else:
                before[2].value = before[2].value.rstrip("\n") + rest


def new_config(order: dict[str, Any]) -> str | None:
    """Return the text of the configuration to be, None when nothing of it changes."""
    if not order["set"] and not order["unset"]:
        return None
    found = read_config()
    if found is None:
        raise Refused((order["set"] or order["unset"])[0][0], "config.yaml cannot be read")
    text, values = found
    wanted = copy.deepcopy(values)
    change(wanted, order, copy.deepcopy)
    try:
        edited = edit(text, order)
        if (yaml.safe_load(edited) or {}) == wanted:
            return edited
    except Exception:  # noqa: BLE001 - the library's many; what follows needs none of it
        edited = ""
    plain: str = yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True)
    return plain


def edit(text: str, order: dict[str, Any]) -> str:
    """Return the text with the changes and all of its comments."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    def quoted(value: Any) -> Any:
        # What is `yes` to one reader of YAML is true to another.
        if isinstance(value, str):
            return value if is_plain(value) else DoubleQuotedScalarString(value)
        if isinstance(value, dict):
            return {quoted(key): quoted(item) for key, item in value.items()}
        return [quoted(item) for item in value] if isinstance(value, list) else value

    library = YAML(typ="rt")
    library.preserve_quotes = True
    library.width = 4096
    library.indent(mapping=2, sequence=4, offset=2)
    values = library.load(text)
    values = CommentedMap() if values is None else values
    change(values, order, quoted)
    if not values:
        return "".join(line for line in text.splitlines(True) if line.lstrip().startswith("#"))
    written = io.StringIO()
    library.dump(values, written)
    return written.getvalue()


def is_plain(text: str) -> bool:
    """Tell whether a text without quotes is a text to Hermes."""
    try:
        return bool(yaml.safe_load(text) == text)
    except (ValueError, yaml.YAMLError):
        return False


def write_config(text: str) -> None:
    """Put a text in the configuration's place in one step."""
    mode = os.stat(CONFIG).st_mode & 0o777 if os.path.exists(CONFIG) else 0o600
    descriptor, partial = tempfile.mkstemp(dir=HOME, prefix=".config_", suffix=".tmp")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
        os.replace(partial, CONFIG)
    except BaseException:
        os.unlink(partial)
        raise


# The jobs


def lay(order: dict[str, Any]) -> dict[str, Any]:
    """Change all that is ordered, or nothing."""
    text = new_config(order)
    was = read_config()
    # First: it may say where on earth the jobs' hours are meant.
    if text is not None:
        write_config(text)
    try:
        return {"jobs": lay_jobs(order) if order["jobs"] or order["remove"] else {}}
    except BaseException:
        if text is not None and was is not None:
            write_config(was[0])
        raise


def lay_jobs(order: dict[str, Any]) -> dict[str, Any]:
    """Change all jobs, or none, and return the records of those that are there then."""
    from cron import jobs

    with jobs._jobs_lock():
        before = jobs.load_jobs()
        try:
            written = {item[0]: lay_job(jobs, *item) for item in order["jobs"]}
            for _name, job in order["remove"]:
                jobs.remove_job(job)
        except BaseException:
            jobs.save_jobs(before)
            raise
    return written


def is_over(jobs: Any, schedule: dict[str, Any]) -> bool:
    """Tell whether a schedule was for once, and its time has passed: Hermes refuses to take it."""
    return schedule["kind"] == "once" and jobs.compute_next_run(schedule) is None


def not_there(told: dict[str, Any]) -> str:
    """Return why a job's folder is not there yet, as on the disk of another sandbox; an empty text where it is."""
    folder = os.path.expanduser(str(told.get("workdir") or "").strip())
    return (
        f"its workdir {folder} is no folder here"
        if os.path.isabs(folder) and not os.path.isdir(folder)
        else ""
    )


def lay_job(jobs: Any, item: str, known: str | None, name: str, told: dict[str, Any]) -> Any:
    """Create or change one job; one that comes no more is done, and what it was before goes.

    One that Hermes would take if its folder were there is left as it is, with the reason: what is there may be another
    disk, and no start shall fail by that.
    """
    if unknown := sorted(set(told) - set(DEFAULTS) - OTHERS):
        raise Refused(item, f"a job has no {unknown[0]}")
    fields = {**DEFAULTS, **{key: told[key] for key in DEFAULTS if key in told}}
    repeat = told.get("repeat") or None
    try:
        schedule = jobs.parse_schedule(str(told["schedule"]))
        was = None if known is None else jobs.get_job(known)
        if is_over(jobs, schedule) and (was is None or was["schedule"] != schedule):
            if was is not None:
                jobs.remove_job(known)
            return {"id": OVER, "schedule": schedule}
        if why := not_there(told):
            return {"left": why}
        if was is None:
            job = jobs.create_job(
                schedule=told["schedule"],
                name=name,
                repeat=repeat,
                attach_to_session=told.get("attach_to_session"),
                **fields,
            )
            updates: dict[str, Any] = {}
        else:
            job = was
            times = repeat or (1 if schedule["kind"] == "once" else None)
            completed = (job.get("repeat") or {}).get("completed", 0)
            updates = {**fields, "name": name, "repeat": {"times": times, "completed": completed}}
            if job["schedule"] != schedule:
                updates["schedule"] = schedule
            if "attach_to_session" in told or "attach_to_session" in job:
                updates["attach_to_session"] = told.get("attach_to_session")
        # The owner decides what a job runs with, by the inventory: a change there is no surprise.
        updates |= {"provider_snapshot": None, "model_snapshot": None}
        runs = told.get("enabled", True) is not False
        if runs != (job.get("enabled", True) and job.get("state") != "paused"):
            updates |= {"enabled": runs, "state": "scheduled" if runs else "paused"}
        return jobs.update_job(job["id"], updates)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(item, " ".join(str(error).split())) from error


def main() -> None:
    """Answer until nobody asks any more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what Hermes' modules print is no answer
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = look(question) if question.pop("do") == "look" else lay(question)
        except Refused as error:
            answer = {"refused": error.args[0], "why": error.args[1]}
        answers.write(json.dumps(answer, default=str) + "\n")
        answers.flush()


main()

# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what the inventory declares of the agent, judges all of it, and packs it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Container, Iterator, Mapping
from functools import partial
from itertools import pairwise
from pathlib import PurePath
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.utils.yaml import from_yaml

from ...module_utils.settings.catalogue import KEY_NAMES
from ...module_utils.settings.settings import Settings
from ...module_utils.settings.values import Reader, canonical, show
from .config_keys import flat, key_flaw, unknown
from .content import (
    DEEPEST,
    MOST_FILES,
    MOST_OF_TABLE,
    MOST_PACKED,
    MOST_UNPACKED,
    SOUL,
    TABLE,
    Member,
    Members,
    digest,
    digest_of_members,
    pack,
)
from .schedules import REMEDY, schedule_flaw
from .sources import SKILL, Finder, Flaw

CODE = "agent"
FORMAT = 1
SKILL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SERVER_KEYS = (
    "command args env url headers timeout connect_timeout enabled tools auth oauth transport ssl_verify client_cert"
    " client_key keepalive_interval supports_parallel_tool_calls sampling elicitation lifecycle skip_preflight"
)
SERVER_KEYS = tuple(_SERVER_KEYS.split())
"""What Hermes reads of a server; what is near to none of these is passed on, for it may read more."""
NEAR_SHORT = 0.7
"""How alike a misspelt one is: they are short."""
JOB_NAME = re.compile(r"[\w][\w .-]{0,63}")
FRONT = re.compile(r"\ufeff?---\s*\n(.*?)\n---\s*\n(.*)", re.DOTALL)
CONDITIONS = (
    *("requires_toolsets", "requires_tools"),
    *("fallback_for_toolsets", "fallback_for_tools"),
)
"""What a skill's `metadata: {hermes: ...}` may say of tools."""
_JOB_KEYS = (
    "schedule prompt repeat deliver skills model provider base_url enabled_toolsets workdir enabled"
)
JOB_KEYS = frozenset(_JOB_KEYS.split())
MEMORIES = {"memory": "memories/MEMORY.md", "user": "memories/USER.md"}
STRENGTHS = ("pinned", "initial")
REFERENCE = re.compile(r"\$\{(?:env:)?([^}]*)\}")
ALWAYS_THERE = frozenset({"HERMES_HOME", "HOME", "PATH"})
"""Names in Hermes' environment that nobody has to set."""
SECRET_WORD = re.compile(
    r"token|secret|passw|api[_-]?key|authorization|credential|access[_-]?key", re.IGNORECASE
)
SECRET_LOOK = re.compile(
    r"(sk-|ghp_|gho_|github_pat_|glpat-|xox[abp]-|hf_|AKIA|AIza|eyJ|Bearer |Basic )[\w.~+/=-]{8,}"
)
SHORTEST_SECRET = 8
TAKEN_OVER = ("soul", "skills", "jobs", "config")


class Declaration(Reader):
    """The agent as it is declared, with its problems."""

    def __init__(
        self,
        raw: Mapping[str, Any],
        settings: Settings,
        secrets: Mapping[str, str],
        finder: Finder,
    ) -> None:
        """raw: values by inventory variable; settings, secrets: of the deployment, as they were checked."""
        super().__init__(raw)
        self.settings, self.secrets, self.finder = settings, secrets, finder
        self.members: Members = {}
        self.table: dict[str, Any] = {}
        self.parts: dict[str, str] = {}

    def read(self) -> Declaration:
        """Read all of it; returns self."""
        config = self._config()
        servers = self._servers()
        jobs = self._jobs()
        self._soul()
        self._skills()
        self._turned_off(config)
        self._memories()
        taken = self._take_over(config, jobs)
        of_config = [one for one in taken if one.partition("/")[0] == "config"]
        others = [one for one in taken if one not in of_config]
        if any(config.values()):
            self._part("hermes_config", config | {"take_over": of_config})
        self._part("hermes_mcp_servers", servers)
        self._part("hermes_cron_jobs", jobs)
        self._part("hermes_take_over", others)
        if self.parts:
            self.table = {
                "format": FORMAT,
                "config": config,
                "mcp_servers": servers,
                "cron_jobs": jobs,
                "take_over": taken,
            }
            text = json.dumps(self.table, indent=2, sort_keys=True, ensure_ascii=False)
            self.members[TABLE] = Member(f"{text}\n".encode())
        self._whole()
        return self

    @property
    def archive(self) -> bytes:
        """The archive; empty when nothing is declared."""
        return pack(self.members) if self.members else b""

    @property
    def label(self) -> dict[str, Any]:
        """What the Worker is told of the archive; empty when nothing is declared."""
        archive = self.archive
        if not archive:
            return {}
        return {"format": FORMAT, "archive": digest(archive), "parts": self.parts}

    def _part(self, variable: str, value: Any) -> None:
        if value:
            self.parts[variable] = digest(canonical(value).encode())

    def _flaw(self, subject: str, sentence: str, remedy: str) -> None:
        self.problem(subject, sentence, remedy, CODE)

    def _sourced(self, subject: str, read: Callable[[], Any]) -> Any:
        """Return what a source holds; None, and a problem, when it is no good."""
        try:
            return read()
        except Flaw as flaw:
            self._flaw(subject, flaw.sentence, flaw.remedy)
            return None

    # Settings and servers

    def _config(self) -> dict[str, dict[str, Any]]:
        given = self.mapping("hermes_config")
        for name in sorted(given.keys() - set(STRENGTHS)):
            self._flaw(
                f"hermes_config.{name}" if SERVER_NAME.fullmatch(name) else "hermes_config",
                f"{show(name)} is neither pinned nor initial.",
                "write {pinned: {...}}, which the agent cannot change, or {initial: {...}}, which it may.",
            )
        found: dict[str, dict[str, Any]] = {}
        for strength in STRENGTHS:
            config = given.get(strength)
            found[strength] = {}
            if config is None:
                continue
            if not isinstance(config, Mapping):
                subject = f"hermes_config.{strength}"
                self._flaw(
                    subject, "is not a mapping.", "write Hermes' settings as its config.yaml."
                )
                continue
            found[strength] = dict(config)
            for key, meant in unknown(config, self.settings):
                self._flaw(
                    self._shown("hermes_config", key),
                    f"Hermes has no such setting{f'; did you mean {meant}?' if meant else '.'}",
                    f"rename or remove {key}.",
                )
            for key, value in flat(config):
                subject = self._shown("hermes_config", key)
                flaw, remedy = key_flaw(key, strength, self.settings)
                if flaw:
                    self._flaw(subject, flaw, remedy)
                self._references(subject, value)
                self._literals(subject, key.rpartition(".")[2], value)
            if any("." in name for name in _names(config)):
                self._flaw(
                    f"hermes_config.{strength}",
                    "has a name with a dot in it.",
                    "write what is inside of something as a mapping, not with a dot.",
                )
        pinned, initial = (
            [f"{key}." for key, value in flat(found[strength]) if value != {}]
            for strength in STRENGTHS
        )
        both = {
            max(one, other)[:-1]
            for one in pinned
            for other in initial
            if one.startswith(other) or other.startswith(one)
        }
        for key in sorted(both):
            self._flaw(
                self._shown("hermes_config", key),
                "is pinned and initial, and only one of them can be.",
                "remove one of the two.",
            )
        return found

    @staticmethod
    def _shown(variable: str, key: str) -> str:
        return f"{variable}.{key}" if re.fullmatch(r"[\w.-]{1,100}", key) else variable

    def _named(
        self, variable: str, pattern: re.Pattern[str], wanted: str
    ) -> Iterator[tuple[str, str, Any]]:
        """Return the entries of a mapping with good names: subject, name, value."""
        for name, value in sorted(self.mapping(variable).items()):
            if pattern.fullmatch(name):
                yield f"{variable}.{name}".replace(" ", "-"), name, value
            else:
                self._flaw(variable, f"{show(name)} is no name for one.", f"write {wanted}.")

    def _servers(self) -> dict[str, Any]:
        servers: dict[str, Any] = {}
        for subject, name, value in self._named(
            "hermes_mcp_servers", SERVER_NAME, "letters, digits, dashes and underscores, at most 64"
        ):
            if not isinstance(value, Mapping) or not (value.get("command") or value.get("url")):
                self._flaw(
                    subject,
                    "has neither a command nor a url.",
                    "write {command: ..., args: [...]} for a program, or {url: https://...} for a server.",
                )
                continue
            if value.get("command") and value.get("url"):
                self._flaw(subject, "has a command and a url.", "keep one of them.")
                continue
            flaw = self._server_flaw(value)
            if flaw:
                self._flaw(subject, *flaw)
                continue
            for key, one in flat(value):
                self._references(subject, one)
                self._literals(subject, key.rpartition(".")[2], one)
            self._literal_arguments(subject, value.get("args") or [])
            servers[name] = _in_words(value)
        self._alike(servers)
        return servers

    def _alike(self, servers: Mapping[str, Any]) -> None:
        """Note servers whose tools would be called the same."""
        called: dict[str, str] = {}
        for name in servers:
            other = called.setdefault(name.replace("-", "_"), name)
            if other != name:
                self._flaw(
                    f"hermes_mcp_servers.{name}",
                    f"its tools are called as those of {other}: in them a dash is an underscore.",
                    "rename one of the two.",
                )

    @staticmethod
    def _server_flaw(value: Mapping[str, Any]) -> tuple[str, str] | None:
        for name in sorted(value.keys() - set(SERVER_KEYS)):
            if close := difflib.get_close_matches(name, SERVER_KEYS, 1, NEAR_SHORT):
                return f"has {show(name)}; did you mean {close[0]}?", "rename or remove it."
        url = value.get("url")
        if not isinstance(value.get("command") or "", str):
            return "has a command that is no text.", "write the program, and its arguments in args."
        if url and not (isinstance(url, str) and re.match(r"(https?://|\$\{)\S+$", url)):
            return "has a url that is none of http or https.", "write its address."
        arguments = value.get("args", [])
        if not isinstance(arguments, list) or not all(
            isinstance(one, (str, int, float)) for one in arguments
        ):
            return "has args that are no list of words.", "write args as a list."
        return _pairs_flaw(value) or _seconds_flaw(value)

    def _references(self, subject: str, value: Any) -> None:
        """Note a ${NAME} that nothing sets: Hermes would take it as it stands."""
        known = {*ALWAYS_THERE, *self._names()}
        for name in sorted({one for text in _texts(value) for one in REFERENCE.findall(text)}):
            if name not in known:
                shown = show(name).strip("'")
                self._flaw(
                    subject,
                    f"${{{shown}}} is neither in hermes_secrets nor in hermes_env.",
                    "set it in one of the two, or remove it.",
                )

    def _names(self) -> Iterator[str]:
        yield from self.settings.env
        yield from json.loads(self.secrets.get("HERMES_SECRETS", "{}"))
        if self.settings.provider_keys == "environment":
            yield from KEY_NAMES.values()

    def _literals(self, subject: str, name: str, value: Any) -> None:
        """Note what looks like a secret and stands there as it is, for everybody who reads the inventory's files."""
        for text in _texts(value):
            plain = not REFERENCE.search(text)
            looks = SECRET_LOOK.search(text) or (
                SECRET_WORD.search(name) and re.fullmatch(r"[\w.~+/=-]{12,}", text)
            )
            if plain and looks:
                self._flaw(
                    subject,
                    f"{name} looks like a secret (the value is not shown)."
                    if re.fullmatch(r"[\w-]{1,60}", name)
                    else "holds what looks like a secret (the value is not shown).",
                    "put it into hermes_secrets, and write ${NAME} here.",
                )

    def _literal_arguments(self, subject: str, arguments: list[Any]) -> None:
        words = [str(one) for one in arguments]
        for option, value in pairwise(words):
            if option.startswith("-") and not value.startswith("-"):
                self._literals(subject, option.lstrip("-"), value)
        for word in words:
            name, equals, value = word.partition("=")
            if equals:
                self._literals(subject, name.lstrip("-"), value)

    # Jobs

    def _jobs(self) -> dict[str, Any]:
        jobs: dict[str, Any] = {}
        for subject, name, value in self._named(
            "hermes_cron_jobs", JOB_NAME, "letters, digits, spaces, dots and dashes, at most 64"
        ):
            if not isinstance(value, Mapping):
                self._flaw(subject, "is not a mapping.", "write {schedule: ..., prompt: ...}.")
                continue
            job = self._job(subject, value)
            if job:
                jobs[name] = job
        return jobs

    def _job(self, subject: str, value: Mapping[str, Any]) -> dict[str, Any]:
        # What lacks is most often there, misspelt.
        for name in sorted(value.keys() - JOB_KEYS):
            close = difflib.get_close_matches(name, JOB_KEYS, 1, NEAR_SHORT)
            meant = f"; did you mean {close[0]}?" if close else "."
            self._flaw(
                subject,
                f"has {show(name)}, which is nothing that a job has{meant}",
                f"rename or remove it: a job has {', '.join(sorted(JOB_KEYS))}.",
            )
            return {}
        lacking = [name for name in ("schedule", "prompt") if not value.get(name)]
        if lacking:
            self._flaw(subject, f"has no {' and no '.join(lacking)}.", "write both.")
            return {}
        flaw = schedule_flaw(value["schedule"])
        if flaw:
            self._flaw(subject, f"{show(value['schedule'])} {flaw}", REMEDY)
            return {}
        prompt = value["prompt"]
        if isinstance(prompt, Mapping):
            text = self._sourced(subject, partial(self.finder.text, prompt))
            if text is None:
                return {}
            prompt = text.decode()
        flaw = self._job_flaw({**value, "prompt": prompt})
        if flaw:
            self._flaw(subject, flaw, "mend it.")
            return {}
        return dict(value) | {"schedule": value["schedule"].strip(), "prompt": prompt}

    @staticmethod
    def _job_flaw(value: Mapping[str, Any]) -> str:
        if not isinstance(value["prompt"], str) or not value["prompt"].strip():
            return "has a prompt that is no text."
        repeat = value.get("repeat")
        if repeat is not None and (
            isinstance(repeat, bool) or not isinstance(repeat, int) or repeat < 1
        ):
            return "has a repeat that is no number of times."
        for name in ("skills", "enabled_toolsets"):
            words = value.get(name, [])
            if not isinstance(words, list) or not all(isinstance(one, str) for one in words):
                return f"has {name} that are no list of names."
        for name in ("deliver", "model", "provider", "base_url", "workdir"):
            if not isinstance(value.get(name, ""), str):
                return f"has a {name} that is no text."
        if not value.get("workdir", "/").strip().startswith(("/", "~")):
            return "has a workdir that is no absolute path."
        return (
            ""
            if isinstance(value.get("enabled", True), bool)
            else "has an enabled that is neither true nor false."
        )

    # Files

    def _soul(self) -> None:
        value = self.given("hermes_soul")
        if value is None:
            return
        text = self._sourced("hermes_soul", partial(self.finder.text, value))
        if text is not None:
            self.members[SOUL] = Member(text)
            self.parts["hermes_soul"] = digest(text)

    def _memories(self) -> None:
        found = {}
        for name, value in sorted(self.mapping("hermes_memories").items()):
            if name not in MEMORIES:
                self._flaw(
                    "hermes_memories",
                    f"{show(name)} is none of {', '.join(MEMORIES)}.",
                    "name them: memory is what Hermes knows, user what it knows of you.",
                )
                continue
            text = self._sourced(f"hermes_memories.{name}", partial(self.finder.text, value))
            if text is not None:
                found[MEMORIES[name]] = Member(text)
        if found:
            self.members |= found
            self.parts["hermes_memories"] = digest_of_members(found)

    def _skills(self) -> None:
        found: Members = {}
        seen: set[str] = set()
        for name, value in self._skill_entries():
            subject = f"hermes_skills.{name}"
            if not SKILL_NAME.fullmatch(name):
                self._flaw(
                    "hermes_skills",
                    f"{show(name)} is no name for a skill.",
                    "write lower-case letters, digits, dots, dashes and underscores, at most 64.",
                )
                continue
            if name in seen:
                self._flaw(subject, "is declared twice.", "keep one of them.")
                continue
            seen.add(name)
            files = self._sourced(subject, partial(self.finder.skill, value))
            flaw = "" if files is None else skill_flaw(name, files[SKILL].content)
            if files and not flaw:
                flaw = self._nowhere(files[SKILL].content)
            if flaw:
                self._flaw(subject, flaw, f"mend its {SKILL}.")
            elif files:
                found |= {f"skills/{name}/{inside}": one for inside, one in files.items()}
        odd = [
            name
            for name in found
            if not name.isprintable() or len(name.encode()) > 240 or name.count("/") >= DEEPEST
        ]
        if odd:
            self._flaw(
                "hermes_skills",
                f"{show(odd[0])} is no path that fits.",
                f"rename it: at most 240 letters in UTF-8 that can be printed, in {DEEPEST} parts.",
            )
        elif found:
            self.members |= found
            self.parts["hermes_skills"] = digest_of_members(found)

    def _nowhere(self, content: bytes) -> str:
        """Return that a skill is for surroundings alone in which Hermes never is here; it would not be listed."""
        never = set() if self.settings.source else {"s6"}
        # Where the agent works off its own board, or is said to.
        never |= set() if "kanban" in canonical(self.mapping("hermes_config")) else {"kanban"}
        said = _words(front_of(content).get("environments"))
        if not said or set(said) - never:
            return ""
        return (
            f"its {SKILL} says that it is for {', '.join(said)} alone, and Hermes is nothing such."
        )

    def _turned_off(self, config: Mapping[str, Mapping[str, Any]]) -> None:
        """Note skills that are declared and turned off at once."""
        for strength in config.values():
            skills = strength.get("skills")
            off = _words(skills.get("disabled")) if isinstance(skills, Mapping) else []
            for name in off:
                if f"skills/{name}/{SKILL}" in self.members:
                    self._flaw(
                        "hermes_config.skills.disabled",
                        f"turns {name} off, which hermes_skills declares.",
                        f"remove {name} from one of the two.",
                    )

    def _skill_entries(self) -> list[tuple[str, Any]]:
        """Return names and sources: of a mapping, or of a list of paths, which are called as their last part."""
        value = self.given("hermes_skills")
        if isinstance(value, list):
            entries = []
            for one in value:
                if isinstance(one, str) and one.strip() and "\n" not in one:
                    entries.append((skill_name(one), one))
                else:
                    self._flaw(
                        "hermes_skills",
                        f"{show(one)} is no path.",
                        "list the folders or archives of skills, or write NAME: source pairs.",
                    )
            return entries
        return sorted(self.mapping("hermes_skills").items())

    # All of it

    def _take_over(self, config: Mapping[str, Any], jobs: Container[str]) -> list[str]:
        taken = []
        for item in self.entries("hermes_take_over", "items", CODE):
            kind, slash, name = item.partition("/") if isinstance(item, str) else ("", "", "")
            if kind not in TAKEN_OVER or (kind == "soul" and name) or bool(slash) != bool(name):
                self._flaw(
                    "hermes_take_over",
                    f"{show(item)} is nothing that can be taken over.",
                    "name soul, skills/NAME, jobs/NAME, config/DOTTED.KEY, or a whole kind: skills, jobs, config.",
                )
            elif name and not self._is_declared(kind, name, config, jobs):
                self._flaw(
                    "hermes_take_over",
                    f"{show(item)} is not declared.",
                    "declare it, or remove it from hermes_take_over.",
                )
            else:
                taken.append(item)
        return sorted(set(taken))

    def _is_declared(
        self, kind: str, name: str, config: Mapping[str, Any], jobs: Container[str]
    ) -> bool:
        if kind == "skills":
            return f"skills/{name}/{SKILL}" in self.members
        if kind == "jobs":
            return name in jobs
        keys = {key for key, _value in flat(config["initial"])}
        return any(f"{key}.".startswith(f"{name}.") for key in keys)

    def _whole(self) -> None:
        """Judge what goes for all of it together: sizes, and secrets that stand in a file."""
        files, size = len(self.members), sum(len(one.content) for one in self.members.values())
        if files > MOST_FILES or size > MOST_UNPACKED:
            self._flaw(
                "hermes_skills",
                f"{files} files of {size >> 20} MB are declared; {MOST_FILES} of {MOST_UNPACKED >> 20} MB are the"
                " most.",
                "leave out what Hermes does not read.",
            )
        elif TABLE in self.members and len(self.members[TABLE].content) > MOST_OF_TABLE:
            self._flaw(
                "hermes_cron_jobs",
                f"jobs, servers and settings take {len(self.members[TABLE].content) >> 10} KB;"
                f" {MOST_OF_TABLE >> 10} KB are the most.",
                "put what is long into a skill, which a prompt may name.",
            )
        elif (packed := len(self.archive)) > MOST_PACKED:
            self._flaw(
                "hermes_skills",
                f"what is declared takes {packed >> 10} KB packed; {MOST_PACKED >> 10} KB are the most.",
                "leave out what Hermes does not read.",
            )
        values = {
            f"hermes_secrets.{name}": value
            for name, value in json.loads(self.secrets.get("HERMES_SECRETS", "{}")).items()
        } | {name: value for name, value in self.secrets.items() if name != "HERMES_SECRETS"}
        for name, member in self.members.items():
            for of, value in values.items():
                if len(value) >= SHORTEST_SECRET and value.encode() in member.content:
                    self._flaw(
                        _variable_of(name),
                        f"{name} holds the secret of {of} (the value is not shown).",
                        "take it out; Hermes finds what is in hermes_secrets in its environment.",
                    )


def skill_name(path: str) -> str:
    """Return what a skill is called that is named by its path alone."""
    name = PurePath(path.rstrip("/")).name
    return re.sub(r"(\.tar)?\.(gz|tgz|zip|tar|xz|bz2|md)$", "", name)


def skill_flaw(name: str, content: bytes) -> str:
    """Return what is wrong with a skill's text; an empty text when Hermes will list it by its name."""
    try:
        found = FRONT.match(content.decode().replace("\r\n", "\n"))
    except UnicodeDecodeError:
        return f"its {SKILL} is no text in UTF-8."
    if not found:
        return f"its {SKILL} does not begin with --- , its name and description, and ---."
    try:
        front = from_yaml(found[1])
    except AnsibleError:
        return f"what its {SKILL} begins with is no YAML."
    if flaw := _front_flaw(name, front if isinstance(front, Mapping) else {}):
        return f"its {SKILL} {flaw}"
    return "" if found[2].strip() else f"its {SKILL} says nothing below its description."


def _front_flaw(name: str, front: Mapping[str, Any]) -> str:
    """Return what is wrong with what a skill's text begins with."""
    lacking = [one for one in ("name", "description") if not front.get(one)]
    if lacking:
        return f"has no {' and no '.join(lacking)}."
    for one in ("name", "description"):
        if not isinstance(front[one], str):
            return f"has a {one} that is no text to YAML: write it in quotes."
    if front["name"] != name:
        return f"calls it {show(front['name'])}, and a skill is called as its folder."
    if others := _elsewhere(front.get("platforms")):
        return f"says that it is for {others}, and Hermes runs on linux."
    for one, said in _conditions(front).items():
        if not isinstance(said, list) or not all(isinstance(word, str) for word in said):
            return f"has a {one} that is no list of names: no model would be shown it."
    return ""


def front_of(content: bytes) -> Mapping[str, Any]:
    """Return what a skill's text begins with, of one in which skill_flaw() found no flaw."""
    found = FRONT.match(content.decode().replace("\r\n", "\n"))
    front: Mapping[str, Any] = from_yaml(found[1]) if found else {}
    return front


def conditions_of(content: bytes) -> dict[str, Any]:
    """Return with which tools Hermes shows its model a skill, and without which: lists by what they are called."""
    return _conditions(front_of(content))


def _conditions(front: Mapping[str, Any]) -> dict[str, Any]:
    metadata = front.get("metadata")
    said = metadata.get("hermes") if isinstance(metadata, Mapping) else None
    return (
        {name: said[name] for name in CONDITIONS if name in said}
        if isinstance(said, Mapping)
        else {}
    )


def _pairs_flaw(server: Mapping[str, Any]) -> tuple[str, str] | None:
    for name in ("env", "headers"):
        pairs = server.get(name, {})
        if not isinstance(pairs, Mapping):
            return f"has {name} that are no mapping.", f"write {name} as NAME: value pairs."
        for one, text in pairs.items():
            if not isinstance(text, (str, int, float)) or re.search(r"[\0\r\n]", str(text)):
                words = f"has {name} of which {show(one)} is not one line of text."
                return words, "write a text or a number."
    return None


def _seconds_flaw(server: Mapping[str, Any]) -> tuple[str, str] | None:
    for name in ("timeout", "connect_timeout"):
        seconds = server.get(name, 1)
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            return f"has a {name} that is no number.", "write seconds, without quotes."
    return None


def _in_words(server: Mapping[str, Any]) -> dict[str, Any]:
    """Return a server with texts where Hermes takes nothing else, and people write numbers."""
    said = dict(server)
    if "args" in said:
        said["args"] = [_word(one) for one in said["args"]]
    for name in {"env", "headers"} & said.keys():
        said[name] = {one: _word(value) for one, value in said[name].items()}
    return said


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _elsewhere(platforms: Any) -> str:
    """Return the systems that a skill is for where Hermes' is none of them; it would not be listed."""
    words = [one.lower() for one in _words(platforms)]
    return "" if not words or "linux" in words else ", ".join(words)[:100]


def _words(said: Any) -> list[str]:
    """Return the words of a list, or the one that stands for a list of it."""
    several = said if isinstance(said, list) else [said] if said else []
    return [str(one).strip() for one in several]


def _variable_of(member: str) -> str:
    kinds = {"SOUL.md": "hermes_soul", "skills": "hermes_skills", "memories": "hermes_memories"}
    return kinds.get(member.partition("/")[0], "hermes_config")


def _names(config: Mapping[str, Any]) -> Iterator[str]:
    for name, value in config.items():
        yield name
        if isinstance(value, Mapping):
            yield from _names(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)

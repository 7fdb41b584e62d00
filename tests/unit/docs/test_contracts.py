# SPDX-License-Identifier: Apache-2.0
"""What two wings have to agree upon, and each writes down for itself: the Worker, the sandbox, its engine, the host.

None of them reads another's files when it runs: they are in other languages and processes, and one is replaced before
the other. So it is here that a change of one side alone is noticed.
"""

from __future__ import annotations

import ast
import base64
import ipaddress
import json
import os
import re
import struct
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.action import restore
from ansible_collections.hermes.workers.plugins.module_utils.settings import catalogue
from ansible_collections.hermes.workers.plugins.module_utils.settings.features import FEATURES
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import (
    CHANGE_SECONDS,
    START_SECONDS,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.agent import content
from ansible_collections.hermes.workers.plugins.plugin_utils.build import variables
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.proof import toolsets
from ansible_collections.hermes.workers.plugins.plugin_utils.state import backups, folder
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd import at_boot

from tests.standins import sandbox as stand_in
from tests.standins.sidecar.sidecar import INTERCEPTED

ROOT = Path(__file__).resolve().parents[3]
WHAT_WORKS = ROOT / "docs" / "what-works.toml"
sys.path[:0] = [str(ROOT / "container"), str(ROOT / "host")]

from engine import engine, sandbox_link, server  # noqa: E402
from engine import exec as frames  # noqa: E402
from sandbox import cli, errors, paths  # noqa: E402
from sandbox.agent import declared, found, unpack  # noqa: E402
from sandbox.commands import dashboard  # noqa: E402
from sandbox.commands import hermes as commands  # noqa: E402
from sandbox.state import archive  # noqa: E402
from sandbox.state import members as unpacked  # noqa: E402

import records  # noqa: E402
import supervisor  # noqa: E402


@cache
def text_of(place: str, files: str) -> str:
    """All text of the files below a folder that are called so."""
    found = sorted((ROOT / place).rglob(files))
    assert found, f"{place} has no {files}"
    return "\n".join(path.read_text(encoding="utf-8") for path in found)


def worker(name: str, file: str = "*.ts") -> Any:
    """The value of a constant of the Worker's: a number, a text or a list of them."""
    pattern = rf"^(?:export )?const {name}\b[^=\n]*=([^;]+?)(?: as const)?;"
    found = re.findall(pattern, text_of("worker/src", file), re.MULTILINE)
    assert len(found) == 1, f"const {name} in {file}: {found}"
    return eval(found[0].strip(), {"__builtins__": {}})  # noqa: S307 - our own source


def inside(file: str, opening: str) -> str:
    """What the Worker writes between an opening bracket at the end of a line and the one that closes it."""
    rest = text_of("worker/src", file).partition(f"{opening}\n")[2]
    return re.split(r"^[\])}]", rest, maxsplit=1, flags=re.MULTILINE)[0]


def providers() -> dict[str, str | None]:
    """The providers that the Worker knows -> the secret with the key."""
    rows = inside("providers.ts", "const ROWS = {")
    found = re.findall(
        r'^  (\w+): \{\n.*?^    key: (?:null|"(\w+)"),', rows, re.MULTILINE | re.DOTALL
    )
    return {name: key or None for name, key in found}


def fields(name: str) -> set[str]:
    """The names of what an interface of the Worker's has."""
    body = re.search(rf"interface {name} \{{\n(.*?)\n\}}", text_of("worker/src", "*.ts"), re.DOTALL)
    assert body, name
    return set(re.findall(r"^  (\w+)\??:", body[1], re.MULTILINE))


def keys(place: str, file: str, function: str) -> set[str]:
    """The keys of the dictionaries that a function writes down."""
    trees = ast.walk(ast.parse(text_of(place, file)))
    (found,) = [one for one in trees if isinstance(one, ast.FunctionDef) and one.name == function]
    dictionaries = [one for one in ast.walk(found) if isinstance(one, ast.Dict)]
    names = [key for one in dictionaries for key in one.keys if isinstance(key, ast.Constant)]
    return {str(name.value) for name in names}


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("FAILED", "FAILED"),
        ("UNCHANGED", "UNCHANGED"),
        ("UNKNOWN", "USAGE"),
        ("OTHER_BOOT", "OTHER_BOOT"),
        ("DAMAGED_ARCHIVE", "DAMAGED_ARCHIVE"),
        ("DAMAGED_STATE", "DAMAGED_STATE"),
        ("TOO_LARGE", "TOO_LARGE"),
        ("DISK_FULL", "DISK_FULL"),
        ("NOT_YET", "TEMPORARY"),
        ("REFUSED", "REFUSED"),
    ],
)
def test_the_worker_knows_the_exit_codes_of_the_sandbox(here: str, there: str) -> None:
    assert worker(here) == getattr(errors, there)


def test_every_exit_code_says_one_thing() -> None:
    codes = [value for value in vars(errors).values() if isinstance(value, int)]
    assert len(codes) == len(set(codes)) > 10


def test_the_worker_knows_the_words_of_a_command_that_was_cut() -> None:
    assert worker("READER_GONE") in text_of("container/sandbox", "cli.py")


def test_the_worker_says_what_the_sandbox_understands() -> None:
    asked = text_of("worker/src", "*.ts")
    said = re.findall(r'\["sandbox", "([a-z-]+)"|#command\(\s*"([a-z-]+)"', asked)
    assert {one or other for one, other in said} == set(cli._FLAGS)
    known = {flag for flags in cli._FLAGS.values() for flag in flags}
    assert set(re.findall(r'"(--[a-z-]+)"', asked)) == known | {"--boot"}


def test_the_worker_reads_what_the_sandbox_tells() -> None:
    assert fields("ToldStatus") <= keys("container/sandbox/commands", "hermes.py", "status")
    header = keys("container/sandbox/state", "archive.py", "finish")
    assert fields("Manifest") == header | keys("container/sandbox/state", "save.py", "write")


def test_archives_are_of_one_format_and_have_one_limit() -> None:
    assert re.findall(r"\bformat === (\d+)", text_of("worker/src", "vault.ts")) == ["1"]
    assert archive.FORMAT == 1
    assert worker("MANIFEST_LIMIT") == archive.HEADER_LIMIT
    assert worker("CAP", "vault.ts") == archive.PACKED == restore.CAP
    assert worker("CAP", "sign-ins.ts") == archive.SIGN_INS
    assert worker("PART", "uploads.ts") >= backups.PART


def test_a_play_waits_longer_than_the_worker_does() -> None:
    """In milliseconds: a boot that is under way, what a stop waits for and saves, and the boot after it."""
    (drain,) = (
        one.kind.most for one in catalogue.SETTINGS if one.variable == "hermes_drain_timeout"
    )
    whole, start_or_end = worker("WHOLE_STATE"), worker("START_OR_END")
    boot = worker("CLOUD_START") + worker("AGAIN_PATIENCE") + whole + start_or_end
    boot += worker("READY_PATIENCE")
    turns_and_jobs = 2 * drain * 1000
    stop = turns_and_jobs + whole + worker("COPY_PATIENCE") + start_or_end
    assert worker("CLOUD_START") == START_SECONDS * 1000
    assert boot + stop + boot < CHANGE_SECONDS * 1000


def test_the_sandbox_lays_what_the_controller_packs(tmp_path: Path) -> None:
    assert (content.MOST_PACKED, content.MOST_OF_TABLE) == (declared.PACKED, declared.FIRST_LIMIT)
    assert content.DEEPEST == unpacked._DEEPEST
    assert (content.MOST_UNPACKED, content.MOST_FILES) == (found.UNPACKED, found.FILES)
    table = {"format": 1, "take_over": ["soul"]}
    long_name = f"skills/a/{'deep/' * 30}{'name' * 20}.md"
    members = {
        "SOUL.md": content.Member(b"soul"),
        content.TABLE: content.Member(json.dumps(table).encode()),
        "skills/a/run.sh": content.Member(b"run", runs=True),
        long_name: content.Member(b"deep"),
        "memories/USER.md": content.Member(b"tea"),
    }
    packed = content.pack(members)
    encoded = base64.b64encode(packed).decode()
    read = declared.read({"archive": content.digest(packed), "content": encoded})
    assert read.take_over == ["soul"]
    unpack.unpack(read.content, str(tmp_path))
    laid = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*")}
    files = {
        name: content.Member(path.read_bytes(), os.access(path, os.X_OK))
        for name, path in laid.items()
        if path.is_file()
    }
    assert files == {name: member for name, member in members.items() if name != content.TABLE}


def test_hermes_ports_are_the_same_everywhere() -> None:
    api, panel, relay = worker("API_PORT"), worker("DASHBOARD_PORT"), worker("RELAY_PORT")
    inside = paths.Paths({"SANDBOX_RUN": "/run", "HERMES_HOME": "/home"})
    assert (inside.port, inside.dashboard_port) == (api, panel)
    assert f"{api},{panel},{relay}" == variables.CONTAINER_PORTS
    assert f"\nEXPOSE {api} {panel} {relay}\n" in text_of("container", "Dockerfile")
    bridge = text_of("container", "relay_bridge.py")
    assert re.findall(r'"PORT_(\d+)"\) or "(\d+)"', bridge) == [(str(relay), str(relay))]
    start, serve = text_of("container", "start-hermes.sh"), text_of("container", "serve_*.py")
    assert re.findall(r"PORT_(\d+):-(\d+)", start) == [(str(api), str(api))]
    assert re.findall(r'"PORT_(\d+)", "(\d+)"', serve) == [(str(panel), str(panel))]


def test_the_dashboard_is_asked_with_one_header_and_one_token() -> None:
    serve = text_of("container", "serve_dashboard.py")
    assert worker("DASHBOARD_HEADER") == dashboard.TOKEN_HEADER.lower()
    assert f'HEADER = b"{dashboard.TOKEN_HEADER.lower()}"' in serve
    for who in (serve, text_of("container", "init.py"), text_of("worker/src", "hermes-config.ts")):
        assert dashboard.TOKEN in who


def test_the_engine_and_the_worker_speak_of_the_same_frames() -> None:
    kinds = [worker(f"FRAME_{name}") for name in ("PID", "STDOUT", "STDERR", "EXIT")]
    assert kinds == [frames.PID, frames.STDOUT, frames.STDERR, frames.EXIT] == [0, 1, 2, 3]
    answer, seen = stand_in.exec_answer(["sandbox", "status"]), []
    while answer:
        kind, length = struct.unpack(">BI", answer[:5])
        payload, answer = answer[5 : 5 + length], answer[5 + length :]
        seen.append(kind)
        if kind == frames.STDOUT:
            assert set(json.loads(payload)) <= fields("ToldStatus")
    assert seen == [frames.PID, frames.STDOUT, frames.EXIT]


def test_the_worker_asks_the_engine_for_what_it_serves() -> None:
    asked = text_of("worker/src", "*.ts")
    calls = re.findall(r'#json(?:<.*>)?\("(GET|POST)", "([a-z-]*)"', asked)
    calls += re.findall(r'#send\("([a-z-]+)", \{\s*method: "(GET|POST)"', asked)
    wanted = {
        (method, path) if method in ("GET", "POST") else (path, method) for method, path in calls
    }
    served = re.findall(r'web\.(get|post)\("/([a-z-]*)"', text_of("container/engine", "server.py"))
    assert wanted == {(method.upper(), path) for method, path in served}


def test_the_worker_knows_the_refusals_of_the_engine() -> None:
    asked = text_of("worker/src", "*.ts")
    known = set(
        re.findall(r'instanceof EngineError\)? *(?:&&|return) error\.code === "(\w+)"', asked)
    )
    refusals = set(
        re.findall(r'EngineError\(\s*\d+,\s*"(\w+)"', text_of("container/engine", "*.py"))
    )
    own = set(re.findall(r'new EngineError\(\s*\d+,\s*"(\w+)"', asked))
    assert known and known <= refusals | own
    assert "command_not_found" in known & refusals


def test_limits_of_the_engine_are_those_that_the_worker_keeps() -> None:
    assert worker("INACTIVITY_LIMIT") == engine.LONGEST_INACTIVITY
    # What a command is given passes through all three.
    assert sandbox_link.ORDER_LIMIT < server.BODY_LIMIT < commands._INPUT_LIMIT


def test_plays_read_what_the_supervisor_writes() -> None:
    assert str(records.RECORD) == folder.SUPERVISOR_RECORD
    assert str(records.PROCESSES) == folder.PROCESSES_RECORD
    assert str(records.BOOT) == at_boot.KEPT
    choices = set(catalogue.BY_NAME["hermes_after_reboot"].kind.words)
    assert {"stay_down", "start_with_keys"} < choices
    written = text_of("host", "records.py")
    assert set(re.findall(r'(?:"after_reboot", |wanted [!=]= )"(\w+)"', written)) < choices


def test_plays_give_orders_that_the_supervisor_knows() -> None:
    given = set(re.findall(r'_control\("([a-z-]+)"', text_of("plugins", "processes.py")))
    assert given == {"settle-secrets", *supervisor.CHANGES}


def test_providers_and_their_keys_have_one_name_each() -> None:
    names = catalogue.KEY_NAMES
    keys = {provider: names[key] for provider, key in catalogue.KEY_VARIABLES.items()}
    told = {provider: keys.get(provider) for provider in catalogue.PROVIDERS}
    assert list(providers().items()) == list(told.items())
    rows = inside("providers.ts", "const ROWS = {")
    bases = dict(re.findall(r'^  (\w+): \{\n    base: "([^"]*)"', rows, re.MULTILINE))
    assert bases == {name: row.base for name, row in catalogue.PROVIDER_ROWS.items()} | {
        "rehearsal": ""
    }


def test_tools_that_reach_the_machine_are_the_same_in_the_proof() -> None:
    assert worker("HOST_TOOLSETS") == list(toolsets.HOST_TOOLSETS)
    known = {row["name"] for row in tomllib.loads(WHAT_WORKS.read_text())["toolset"]}
    assert known >= {one.toolset for one in FEATURES if one.toolset} | {*toolsets.HOST_TOOLSETS}


def test_secrets_have_one_name_each() -> None:
    listed = inside("settings.ts", "export const SECRETS = [")
    names = re.findall(r'"(\w+)"|\.\.\.(PROVIDER_KEYS)', listed)
    keys = [key for key in providers().values() if key]
    secrets = [name for one, made in names for name in (keys if made else [one])]
    assert secrets == list(catalogue.WORKER_SECRETS)
    assert records.PREVIOUS in secrets


@pytest.mark.parametrize(
    ("platform", "engine"), [("workerd", "process"), ("cloudflare", "cloudflare")]
)
def test_the_worker_reads_the_variables_that_it_is_given(platform: str, engine: str) -> None:
    schema = inside("settings.ts", "const schema = z.object({")
    schema += inside("settings.generated.ts", "export const INVENTORY = {")
    read = set(re.findall(r"^  ([A-Z_]+): ", schema, re.MULTILINE))
    deployment = Settings(name="a", platform=platform, engine=engine)
    given = set(variables.variables(deployment, Sources(), "1"))
    assert given - read == set()
    # Two of them are secrets; the other is known when the image was pushed.
    assert read - given == {"HERMES_SECRETS", "HERMES_CHANNELS", "HERMES_IMAGE_REFERENCE"}


def test_the_sidecar_hands_over_what_hermes_sends_to_its_providers() -> None:
    address = variables.PROVIDERS_IN_CONTAINER.removeprefix("http://")
    assert ipaddress.ip_address(address) in INTERCEPTED

# SPDX-License-Identifier: Apache-2.0
"""What a new user does: the README's commands, in a fresh clone, in their order."""

from __future__ import annotations

import html
import re
import secrets
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from plays import ROOT, Deployment, clean_environment, copy_checkout, run

from tests.standins.provider import Provider


class Clone:
    """A fresh copy of the tracked files in an empty folder, and `make` in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.local = Deployment("hermes", folder / ".hermes")
        copy_checkout(folder)

    def make(
        self, target: str, *variables: str, more: str = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a target. variables: make's; more: of the playbook's arguments; env: what was exported before."""
        ports = (
            f"-e hermes_port={self.local.port} -e hermes_providers_port={self.local.providers_port}"
            f" -e hermes_dashboard_port={self.local.dashboard_port}"
        )
        words = ["make", target, f"ARGS={ports} {more}", *variables]
        return run(words, self.folder, clean_environment(**env))

    def processes(self) -> set[int]:
        """Pids of every process that works in this clone's folder."""
        found = set()
        for process in psutil.process_iter():
            try:
                where = [process.cwd(), *process.cmdline()]
            except psutil.Error:
                continue
            if any(str(self.folder) in part for part in where):
                found.add(process.pid)
        return found


# What shells and files of users say for other work; not one of them may reach our own installers.
OTHER_WORK = {
    "PIP_USER": "1",
    "PIP_TARGET": "/nonexistent",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "PIP_CONSTRAINT": "/nonexistent",
    "UV_PYTHON": "3.9",
    "UV_CONSTRAINT": "/nonexistent",
    "UV_NO_BINARY": "1",
    "NPM_CONFIG_PREFIX": "/nonexistent",
    "NPM_CONFIG_OMIT": "optional",
    "npm_config_global": "true",
    "NODE_ENV": "production",
    "NODE_OPTIONS": "--require /nonexistent",
    "PYTHONHOME": "/nonexistent",
    "PYTHONPATH": "/nonexistent",
    "LC_ALL": "xx_YY.UTF-8",
}
NO_PROXY_THERE = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
"""A proxy that does not answer: what is on this machine is not asked by it."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    around = tmp_path_factory.mktemp("around")
    (around / "uv.toml").write_text("no-binary = true\n[pip]\nuser = true\n")
    clone = Clone(around / """it's a "clone" #1 of 100% $x""")
    yield clone
    clone.make("destroy", "CONFIRM=yes")


@pytest.fixture(scope="module")
def first(clone: Clone) -> subprocess.CompletedProcess[str]:
    done = clone.make("deploy", **OTHER_WORK)
    assert done.returncode == 0, done.stdout
    return done


def test_one_command_ends_in_a_verified_chat(
    clone: Clone, first: subprocess.CompletedProcess[str]
) -> None:
    assert "deployed and verified" in first.stdout
    assert clone.local.url in first.stdout
    assert "rehearsal" in first.stdout, "a deployment without a key must say which model speaks"
    assert not re.search(r"TASK [^\n]*\n\n(TASK|PLAY)", first.stdout), "a heading of nothing"
    assert clone.local.token not in first.stdout


def rows(text: str) -> list[str]:
    """What stands before the values of tables and cards; but for what depends on the machine, and on its speed."""
    found = re.findall(r"^  ([A-Za-z]\w*(?: \w+)*)(?: {2,}\S|\n {6,}\S)", text, re.MULTILINE)
    return [name for name in found if name not in ("Node", "create", "last save", "next")]


def test_the_recording_shows_what_is_printed_today(
    clone: Clone, first: subprocess.CompletedProcess[str]
) -> None:
    """README's picture of the first five minutes, which `make record` draws anew."""
    drawn = (ROOT / "docs/first-five-minutes.svg").read_text()
    by_line = re.findall(r'<text[^>]* y="([\d.]+)"[^>]*>([^<]*)</text>', drawn)
    lines: dict[str, str] = {}
    for y, part in by_line:
        lines[y] = lines.get(y, "") + html.unescape(part).replace("\xa0", " ").rstrip("\n")
    parts = re.split(r"^\$ ", "\n".join(lines.values()), flags=re.MULTILINE)
    recorded = {part.partition("\n")[0].strip(): rows(part) for part in reversed(parts)}
    assert rows(first.stdout) == recorded["make deploy"]
    assert clone.local.chat("Hello, who are you?").status == 200
    status = clone.make("status")
    assert status.returncode == 0, status.stdout
    assert rows(status.stdout) == recorded["make status"]


def test_the_state_folder_is_private(clone: Clone, first: object) -> None:
    state = clone.local.state
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "api_token").stat().st_mode) == 0o600
    for engine_socket in state.glob("run/*.sock"):
        assert stat.S_IMODE(engine_socket.stat().st_mode) == 0o600


def test_a_second_deploy_changes_nothing(clone: Clone, first: object) -> None:
    before = clone.processes()
    done = clone.make("deploy", **NO_PROXY_THERE)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^hermes\s.*changed=0\b", done.stdout, re.MULTILINE), done.stdout
    assert "No changes. 0 calls written." in done.stdout
    assert before and before <= clone.processes(), "something was restarted"
    assert clone.local.chat("Still there?").said


def test_a_second_deploy_does_not_wake_a_sleeping_hermes(clone: Clone, first: object) -> None:
    assert clone.local.call("POST", "/api/instance/sleep").status == 200
    assert clone.local.instance_state() == "asleep"
    done = clone.make("deploy")
    assert done.returncode == 0, done.stdout
    assert clone.local.instance_state() == "asleep"


def test_streaming_arrives_in_pieces_and_ends(clone: Clone, first: object) -> None:
    body = {"model": "hermes", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    with clone.local.open("POST", "/v1/chat/completions", body) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        lines = [line.decode().strip() for line in response if line.startswith(b"data: ")]
    assert lines[-1] == "data: [DONE]"
    assert len([line for line in lines if '"content"' in line]) > 3


def test_a_key_that_is_exported_then_is_what_the_provider_is_asked_with(
    clone: Clone, first: object
) -> None:
    """The README's second step, with a Hermes that is awake; and back again."""
    assert "Rehearsal" in clone.local.chat("Who are you?").said
    with Provider(key="sk-canary-" + secrets.token_hex(16)) as provider:
        address = f"-e hermes_provider_base_url={provider.url}"
        key = {"ANTHROPIC_API_KEY": provider.key}
        done = clone.make("deploy", more=address, **NO_PROXY_THERE, **key)
        assert done.returncode == 0, done.stdout
        assert "deployed and verified" in done.stdout
        assert re.search(r"key +ANTHROPIC_API_KEY +\(environment\)", done.stdout), done.stdout
        assert clone.local.chat("And now?").said.strip() == "The stand-in heard: And now?"
        last = provider.seen[-1]
        assert last.headers["x-api-key"] == provider.key
        assert last.body and last.body["model"] == "claude-sonnet-4-5"
        again = clone.make("deploy", more=address, ANTHROPIC_API_KEY=provider.key)
        assert "No changes. 0 calls written." in again.stdout
    done = clone.make("deploy")
    assert done.returncode == 0, done.stdout
    assert "Rehearsal" in clone.local.chat("Who are you?").said


def kept_by_hand(clone: Clone) -> Path:
    (home,) = clone.local.state.glob("engine/disks/*/disk/home/.hermes")
    return home / "by-hand.txt"


def test_destroy_leaves_a_backup_and_nothing_else_and_tells_how_to_have_it_back(
    clone: Clone, first: object
) -> None:
    clone.local.chat("The code word is plover.", session="kept")
    # What no turn brought is saved by nothing but a sleep or this destroy.
    for action in ("sleep", "wake"):
        assert clone.local.call("POST", f"/api/instance/{action}").status == 200
    kept_by_hand(clone).write_text("sandpiper")
    done = clone.make("destroy", "CONFIRM=yes")
    assert done.returncode == 0, done.stdout
    assert not clone.processes()
    (left,) = clone.local.state.parent.iterdir()
    (backup,) = left.iterdir()
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert backup.suffix == ".hermes", "of the kind that every other backup is"
    deploy, restore = re.search(r"To have it back:\n  (.+)\n  (.+)\n", done.stdout).groups()
    assert f"-e hermes_port={clone.local.port}" in deploy, "what made it makes it again"
    for command in (deploy, restore):
        run = ["sh", "-e", "-c", command]
        subprocess.run(run, cwd=clone.folder, env=clean_environment(), check=True, timeout=300)
    assert "plover" in clone.local.chat("And now?", session="kept").said
    assert kept_by_hand(clone).read_text() == "sandpiper"

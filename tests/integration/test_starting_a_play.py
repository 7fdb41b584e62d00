# SPDX-License-Identifier: Apache-2.0
"""What is wrong before a play begins, or outside our own plugins, is one card too, and no success.

`make` with the shells, options and files that people have; nothing of it is deployed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from plays import PLAYBOOK, ROOT, clean_environment, copy_checkout, run

from tests.docker.engine import without

RAW = (
    "Traceback",
    "[ERROR]",
    "Origin:",
    "<<< caused by",
    "Unexpected Exception",
    "Failed to parse",
    "[DEPRECATION WARNING]",
    "[WARNING]: Error",
    "GetPassWarning",
    "echoed",
    "codec",
)
CANARY = "sk-canary-of-a-command-line"
HOSTS = "all:\n  hosts:\n    alice:\n  vars:\n    hermes_platform: workerd\n"
FILES = {
    "colons.yml": "all: b: c\n",
    "o'brien files/colons.yml": "all: b: c\n",
    "tab.yml": "all:\n\thosts:\n",
    "vars/hosts.yml": HOSTS,
    "vars/group_vars/all.yml": "a: b: c\n",
    "vault/hosts.yml": HOSTS,
    "vault/group_vars/all.yml": "$ANSIBLE_VAULT;1.1;AES256\n6231\n",
    "good.yml": HOSTS,
    "broken.ini": "[all\nalice\n",
    "words.ini": "alice hermes_port=1 x\n",
    "fails.sh": "#!/bin/sh\necho 'no such account' >&2\nexit 3\n",
    "one-word.sh": "#!/bin/sh\nno-such-inventory-tool\n",
    "nowhere.sh": "#!/usr/bin/env no-such-python\nprint({})\n",
    "windows.sh": "#!/bin/sh\r\necho '{}'\r\n",
    "latin.yml": "all:\n  vars:\n    drink: caf\xe9\n",
    "latin.ini": "alice drink=caf\xe9\n",
    "latin/hosts.yml": HOSTS,
    "latin/group_vars/all.yml": "drink: caf\xe9\n",
    "empty": "",
    "names.yml": HOSTS + '    ansible_connection: "{{ conn }}"\n',
}


@dataclass(frozen=True)
class Case:
    """One thing that a person types: what follows `make`, and how the lines of the card begin."""

    words: tuple[str, ...]
    lines: tuple[str, ...]
    shell: dict[str, str] = field(default_factory=dict)
    said: str = ""
    """What the card says in any case, however its lines are broken."""


def status(args: str, *lines: str) -> Case:
    return Case(("status", f"ARGS={args}"), lines)


def inventory(name: str, line: str, *more: str, said: str = "") -> Case:
    return Case(("deploy", f"INVENTORY={{here}}/{name}", *more), (line,), said=said)


ODD = [f"-i {{here}}/{name}" for name in ("windows.sh", "latin.yml", "latin.ini")]
CASES = {
    "one of two is no YAML": inventory(
        "vault/hosts.yml",
        "{here}/colons.yml:1:7: cannot be read: YAML",
        "ARGS=-i {here}/colons.yml",
    ),
    "a folder with a name of its own": inventory(
        "o'brien files/colons.yml",
        "{here}/o'brien",
        said="files/colons.yml:1:7: cannot be read: YAML",
    ),
    "a tab": inventory("tab.yml", "{here}/tab.yml:2:1: cannot be read: YAML parsing failed: Tabs"),
    "variables that are no YAML": inventory("vars", "{here}/vars/group_vars/all.yml:1:5: cannot"),
    "a closed vault": inventory("vault", "{here}/vault/group_vars/all.yml: is encrypted, and no"),
    "no password file": inventory(
        "vault", "the vault's password: ", "ARGS=--vault-password-file=/nonexistent"
    ),
    "no ini": inventory("words.ini", "{here}/words.ini:", said="assignment, got: x. Nothing"),
    "one of two is no ini": inventory(
        "good.yml", "{here}/broken.ini:", "ARGS=-i {here}/broken.ini", said="cannot be read: not"
    ),
    "a program that fails": inventory(
        "fails.sh", "{here}/fails.sh:", said="returned non-zero exit code 3: no such account."
    ),
    "a program that fails, and whose line is a name": inventory(
        "one-word.sh", "{here}/one-word.sh: cannot be read: its program failed"
    ),
    "what is no program and no text": Case(
        ("deploy", "INVENTORY={here}/nowhere.sh", f"ARGS={' '.join(ODD)}"),
        (
            "{here}/nowhere.sh: cannot be run: there is no no-such-python on the PATH.",
            "{here}/windows.sh: cannot be run: its lines end as Windows has them.",
            "{here}/latin.yml: cannot be read: it is no text in UTF-8.",
            "{here}/latin.ini: cannot be read: it is no text in UTF-8.",
        ),
    ),
    "variables that are no text": inventory(
        "latin", "{here}/latin/group_vars/all.yml: cannot be read: it is no text in UTF-8."
    ),
    "an empty password file": inventory(
        "vault",
        "the vault's password: Invalid vault password",
        "ARGS=--vault-password-file={here}/empty",
    ),
    "nobody who types the password": inventory(
        "vault", "the vault's password: is asked for, and", "ARGS=--ask-vault-pass"
    ),
    "an undefined name": inventory("names.yml", "ansible_connection: cannot be read: 'conn' is un"),
    "nobody": status("-l nobody", "-l nobody: means no host of the inventory."),
    "-e @file": status("-e @/nonexistent.yml", "-e: there is no /nonexistent.yml."),
    "-e {": status("-e '{{anthropic_api_key: " + CANARY + "'", "-e: cannot be read as variables."),
    "-e quote": status(f"-e 'a=\"{CANARY}'", "-e: cannot be read as variables."),
    "an option": status("--nonsense", "ARGS: unrecognized arguments: --nonsense."),
    "a long dash": status("\u2013e a=b", "ARGS: \u2013e is no option, and no playbook."),
    "curly quotes": status("-e \u201ca=b\u201d", "-e: a word before = is no name of a variable."),
    "a quote in a file's name": Case(
        ("restore", "BACKUP=/nonexistent/o'brien.hermes"),
        ("hermes: not deployed: ",),
    ),
    "parts": status(
        f"--tags x --skip-tags all --step --start-at-task=x -e 'key {CANARY}'",
        "--tags: x would leave every task out.",
        "--skip-tags: all would leave every task out.",
        "--start-at-task: would leave out what checks",
        "--step: would leave out what is not answered",
        "-e: a word of it has no value.",
    ),
    "failures": Case(
        ("backup", "ARGS=-e hermes_max_fail_percentage=x -e hermes_serial=lots"),
        ("hermes_max_fail_percentage: 'x' is",),
    ),
    "a setting": Case(("status",), ("Ansible: does not start: Config",), {"ANSIBLE_FORKS": "lots"}),
    # The variable that was typed is the one that is named.
    "LINES": Case(("logs", "LINES=abc"), ("LINES: 'abc' is no number of lines from 1",)),
}
# A shell that is set up for other work: the play goes as it does elsewhere.
SHELLS = {
    "a locale that is not installed, and what is not here": {
        "LANG": "xx_YY.UTF-8",
        "LC_ALL": "xx_YY.UTF-8",
        "ANSIBLE_STDOUT_CALLBACK": "community.general.yaml",
        "ANSIBLE_STRATEGY": "mitogen_linear",
        "ANSIBLE_COLLECTIONS_PATH": "/nonexistent",
        "ANSIBLE_INVENTORY_ENABLED": "ini",
        "ANSIBLE_LOG_PATH": "/nonexistent/log",
        "ANSIBLE_RUN_TAGS": "theirs",
        "PYTHONHOME": "/nonexistent",
        "PYTHONPATH": "/nonexistent",
        "PYTHONSAFEPATH": "1",
        "PYTHONSTARTUP": "/nonexistent",
        "PYTHONDEVMODE": "1",
        "PYTHONINSPECT": "1",
        "PYTHONWARNINGS": "error",
    },
    "another encoding, callback and strategy": {
        "LC_ALL": "en_US.ISO-8859-1",
        "ANSIBLE_SKIP_TAGS": "all",
        "ANSIBLE_STDOUT_CALLBACK": "minimal",
        "ANSIBLE_STRATEGY": "debug",
        "COLUMNS": "abc",
        "LINES": "abc",
        "TERM": "dumb",
    },
}


def make(*words: str, **shell: str) -> tuple[int, str]:
    done = run(["make", "--no-print-directory", *words], env=clean_environment(**shell))
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inventories")
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="latin-1")
        if path.suffix == ".sh":
            path.chmod(0o700)
    return folder


def test_what_is_wrong_is_one_card(here: Path) -> None:
    def run(case: Case) -> tuple[int, str]:
        return make(*(word.format(here=here) for word in case.words), **case.shell)

    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(CASES, pool.map(run, CASES.values()), strict=True))
    for name, (code, output) in found.items():
        lines = [line.strip() for line in output.splitlines()]
        assert code != 0, name
        for begin in CASES[name].lines:
            begun = [line for line in lines if line.startswith(begin.format(here=here))]
            assert len(begun) == 1, f"{name}\n{output}"
        assert sum(line.startswith("Docs: ") for line in lines) == 1, f"{name}\n{output}"
        assert sum(line.startswith("Nothing was changed") for line in lines) == 1, name
        assert CASES[name].said in " ".join(output.split()), f"{name}\n{output}"
        assert not any(raw in output for raw in RAW), f"{name}\n{output}"
        assert CANARY not in output, name


def test_make_is_told_where_its_folder_is(tmp_path: Path) -> None:
    done = run(["make", "-f", ROOT / "Makefile", "status"], tmp_path, clean_environment())
    assert done.returncode != 0
    assert f"start it in its own folder: make -C {ROOT}/." in done.stdout
    assert done.stdout.count("\n") == 1


def test_a_shell_that_is_set_up_for_other_work_changes_nothing() -> None:
    with ThreadPoolExecutor(4) as pool:
        runs = pool.map(
            lambda shell: make("status", "ARGS=-e hermes_name=x_", **shell), SHELLS.values()
        )
        found = dict(zip(SHELLS, runs, strict=True))
    for name, (code, output) in found.items():
        assert code != 0, name
        assert output.count("hermes_name: ") == 1, f"{name}\n{output}"
        assert output.count("PLAY RECAP") == 1, f"{name}\n{output}"
        assert not any(raw in output for raw in RAW), f"{name}\n{output}"


DEPLOY = ("make", "--no-print-directory", "deploy")


def confined(*how: str, folder: Path = ROOT, words: Sequence[str] = DEPLOY) -> tuple[int, str]:
    """Run a command where a disk is not as it should be. how: words of bubblewrap that say so."""
    if not shutil.which("bwrap"):
        without("bubblewrap is not installed")
    everything = ("bwrap", "--dev-bind", "/", "/")
    done = run([*everything, *how, "--chdir", folder, *words])
    return done.returncode, done.stdout


def is_one_card(output: str, first: str) -> None:
    lines = [line.strip() for line in output.splitlines()]
    assert sum(line.startswith(first) for line in lines) == 1, output
    assert sum(line.startswith("Docs: ") for line in lines) == 1, output
    assert not any(raw in output for raw in RAW), output


def test_a_checkout_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """With its tools, and before they are installed."""
    code, output = confined("--ro-bind", str(ROOT), str(ROOT))
    assert code != 0
    is_one_card(output, f"{ROOT}/.ansible/tmp: cannot be written: Read-only file system.")
    fresh = tmp_path / "fresh"
    copy_checkout(fresh)
    (fresh / ".venv").unlink(missing_ok=True)  # a link, where breakings are tried
    code, output = confined("--ro-bind", str(fresh), str(fresh), folder=fresh)
    assert code != 0
    is_one_card(output, ".venv: cannot be written: Read-only file system.")
    (fresh / ".venv").symlink_to(ROOT / ".venv")
    typed = re.search(r"cp -R \S+ ~/hermes\.workers", " ".join(output.split()))
    assert typed, output
    there = clean_environment(HOME=str(tmp_path))
    script = f"{typed[0]} && cd ~/hermes.workers && make --no-print-directory status"
    done = run(["sh", "-c", script], env=there)
    is_one_card(done.stdout, "hermes: not deployed: there is no .hermes/hermes.")


def test_a_machine_without_proc_is_told(tmp_path: Path) -> None:
    """As in a chroot that is bare: no process of a deployment would be found again."""
    there = ("--setenv", "ARGS", f"-e hermes_port=9557 -e hermes_state_dir={tmp_path}/state")
    code, output = confined("--tmpfs", "/proc", *there)
    assert code != 0
    is_one_card(output, "this machine: shows no process in /proc.")


def test_shared_memory_that_cannot_be_written_is_told() -> None:
    """Without it no play begins."""
    code, output = confined("--tmpfs", "/dev/shm", "--remount-ro", "/dev/shm")
    assert code != 0
    is_one_card(output, "/dev/shm: cannot be used: ")


def test_a_full_disk_at_the_state_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    small = ("--size", "3000000", "--tmpfs", str(tmp_path / "kept"))
    state = f"-e hermes_port=9557 -e hermes_state_dir={tmp_path}/kept/state"
    code, output = confined(*small, "--setenv", "ARGS", state)
    assert code != 0
    is_one_card(output, f"disk: 3 MB free below {tmp_path}/kept,")
    assert re.search(r" [679]\d0 MB needed\.", " ".join(output.split())), output


def test_a_deployment_goes_from_a_disk_that_is_full(tmp_path: Path) -> None:
    """Not a block is free, and nobody has to free one before it may go."""
    state = tmp_path / "kept" / "state"
    command = (
        f"mkdir -m 700 {state} && cd {state} && mkdir -m 700 -p hermes/storage hermes/build"
        " && echo x > hermes/storage/database && echo '{}' > hermes/lock.json"
        ' && { cat /dev/zero > filled 2>/dev/null; cd "$1"; make --no-print-directory destroy; }'
    )
    (tmp_path / "kept").mkdir()
    small = ("--size", "3000000", "--tmpfs", str(tmp_path / "kept"))
    ends = ("--setenv", "CONFIRM", "yes", "--setenv", "FORGET", "yes")
    there = ("--setenv", "ARGS", f"-e hermes_port=9557 -e hermes_state_dir={state}")
    code, output = confined(*small, *ends, *there, words=("sh", "-c", command, "sh", str(ROOT)))
    assert code == 0, output
    assert "hermes: destroyed" in output


@dataclass
class Compiling:
    """A checkout whose plays tell which of the collection's modules Python compiles anew."""

    folder: Path
    # What Python itself is told, before any of a play's own code.
    HOOK = """
import sys

def hook(event, told):
    if event == "compile" and "/hermes/workers/plugins/" in str(told[1]):
        print("compiled", told[1].partition("/plugins/")[2])

sys.addaudithook(hook)
"""

    def play(self) -> tuple[set[str], str]:
        """Run a play that asks nothing but itself; return what was compiled, and what it said."""
        words = ("requirements/play.py", "playbooks/status.yml", "-i", "alice,")
        name = ("-e", "hermes_platform=workerd", "-e", "hermes_name=x_")
        env = clean_environment(PYTHONPATH=str(self.folder / "hook"))
        for kept in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"):
            env.pop(kept, None)
        done = run([ROOT / ".venv/bin/python", *words, *name], cwd=self.folder, env=env)
        assert done.returncode != 0
        assert "PLAY RECAP" in done.stdout, done.stdout
        lines = done.stdout.splitlines()
        return {line.split()[1] for line in lines if line.startswith("compiled ")}, done.stdout

    def bytecode(self, source: str) -> Path:
        """Where Python keeps it."""
        return Path(importlib.util.cache_from_source(str(self.folder / "plugins" / source)))


@pytest.fixture
def compiling(tmp_path: Path) -> Compiling:
    copy_checkout(tmp_path)
    link = tmp_path / ".ansible/collections/ansible_collections/hermes/workers"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path)
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook/sitecustomize.py").write_text(Compiling.HOOK)
    return Compiling(tmp_path)


CHECKS, CARDS = "module_utils/settings/checks.py", "module_utils/cards.py"


def test_a_play_compiles_of_the_collection_only_what_is_new(compiling: Compiling) -> None:
    """Nothing a second time; and never is a stale or foreign one taken for what the sources say."""
    compiled, output = compiling.play()
    assert {CHECKS, CARDS} <= compiled
    assert "'x_' cannot name a Worker" in output
    compiled, output = compiling.play()
    assert compiled == set()
    assert "'x_' cannot name a Worker" in output
    source = compiling.folder / "plugins" / CHECKS
    source.write_text(source.read_text().replace("cannot name a W", "cannot mark a W"))
    # As another Python, or a machine that lost its power, would leave it.
    compiling.bytecode(CARDS).write_bytes(bytes(64))
    compiled, output = compiling.play()
    assert compiled == {CHECKS, CARDS}
    assert "'x_' cannot mark a Worker" in output


def test_a_play_does_without_bytecode_that_cannot_be_written(compiling: Compiling) -> None:
    folder = compiling.bytecode(CHECKS).parent
    folder.write_text("in the way")
    for _ in range(2):
        compiled, output = compiling.play()
        assert CHECKS in compiled
        is_one_card(output, "hermes_name: 'x_' cannot name a Worker")
    assert folder.read_text() == "in the way"


NO_MORE = """
import errno, os

def fork():
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

os.fork = fork
"""


def test_a_play_that_gets_no_process_is_no_success(tmp_path: Path) -> None:
    """By itself Ansible leaves the task out for which it gets none, and goes on to the next one."""
    (tmp_path / "sitecustomize.py").write_text(NO_MORE)
    words = ("requirements/play.py", "playbooks/status.yml", "-i", "alice,")
    env = clean_environment(PYTHONPATH=str(tmp_path))
    said = ("-e", "hermes_platform=workerd")
    done = run([ROOT / ".venv/bin/python", *words, *said], cwd=ROOT, env=env)
    assert done.returncode != 0, done.stdout
    is_one_card(done.stdout, "limit: Resource temporarily unavailable.")


def test_who_ends_a_play_is_told_what_that_means(here: Path) -> None:
    """While it waits for an answer that does not come, by what a terminal sends to all of its processes."""
    with socket.create_server(("127.0.0.1", 0)) as provider:
        url = f"http://127.0.0.1:{provider.getsockname()[1]}/v1"
        said = {
            "hermes_platform": "workerd",
            "hermes_check_provider_key": True,
            "hermes_provider_base_url": url,
            "hermes_default_model": "custom/one",
            "custom_api_key": CANARY,
        }
        with subprocess.Popen(
            [str(PLAYBOOK), "playbooks/deploy.yml", "-i", "alice,", "-e", json.dumps(said)],
            cwd=ROOT,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as play:
            asked, _ = provider.accept()
            with asked:
                os.killpg(play.pid, signal.SIGINT)
                output, _ = play.communicate(timeout=60)
    assert play.returncode not in (0, 250)
    is_one_card(output, "interrupted: you ended the play.")
    assert CANARY not in output


def test_ansible_playbook_shows_cards_as_well(here: Path) -> None:
    """By name, from another folder, where the callback is the one that is set."""
    done = by_name(here, "status", "-i", str(here / "vars"), ANSIBLE_STRATEGY="free")
    assert done.returncode != 0
    assert f"{os.path.realpath(here)}/vars/group_vars/all.yml:1:5: cannot be read" in done.stderr
    assert not any(raw in done.stdout + done.stderr for raw in RAW), done.stderr


@pytest.mark.parametrize(
    ("playbook", "words", "line"),
    [
        ("logs", ("-e", "lines=abc"), "lines: 'abc' is no number of lines"),
        ("logs", ("-e", "hermes_log_lines=abc"), "hermes_log_lines: 'abc' is no number of lines"),
        ("rotate_keys", ("-e", "keys=abc"), "keys: abc: not among api_token"),
        ("rotate_keys", ("-e", "hermes_keys=abc"), "hermes_keys: abc: not among api_token"),
        ("destroy", ("-e", "confirm=abc"), "confirm: 'abc' is neither yes nor no"),
        ("destroy", ("-e", "hermes_confirm=abc"), "hermes_confirm: 'abc' is neither yes nor no"),
    ],
)
def test_what_one_play_is_told_may_be_said_by_its_old_name(
    here: Path, playbook: str, words: tuple[str, ...], line: str
) -> None:
    platform = "cloudflare" if playbook == "rotate_keys" else "workerd"
    place = ("-i", "alice,", "-e", f"hermes_platform={platform}")
    done = by_name(here, playbook, *place, *words)
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    assert done.returncode != 0
    assert [one for one in lines if one.startswith(line)] != [], done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "asks"),
    [
        ((), True),
        (("-e", "confirm=yes"), False),
        (("-e", "hermes_confirm=yes"), False),
    ],
    ids=["unsaid", "by its old name", "by its name"],
)
def test_destroy_asks_unless_the_command_line_agrees(
    here: Path, words: tuple[str, ...], asks: bool
) -> None:
    """An inventory that agrees is asked all the same."""
    said = HOSTS + "    hermes_confirm: true\n    confirm: true\n"
    (here / "agrees.yml").write_text(said)
    forget = ("-e", "hermes_forget=no")
    done = by_name(here, "destroy", "-i", str(here / "agrees.yml"), *forget, *words)
    assert done.returncode == 0, done.stdout
    assert ("Not prompting" in done.stdout + done.stderr) is asks, done.stdout + done.stderr


def by_name(
    here: Path, playbook: str, *words: str, **shell: str
) -> subprocess.CompletedProcess[str]:
    """Run a playbook as it is called where the collection is installed."""
    return subprocess.run(
        [str(PLAYBOOK), f"hermes.workers.{playbook}", *words],
        cwd=here,
        env=clean_environment(
            ANSIBLE_COLLECTIONS_PATH=str(ROOT / ".ansible" / "collections"),
            ANSIBLE_STDOUT_CALLBACK="hermes.workers.cards",
            ANSIBLE_HOME=str(here / "home"),
            **shell,
        ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )

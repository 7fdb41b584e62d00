# SPDX-License-Identifier: Apache-2.0
"""What is wrong before there is an Ansible is one card too: the place of the checkout, Python, the installation."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from plays import ROOT, clean_environment, copy_checkout, run, wait_until
from reading import COLUMNS, RAW

LOCK = "requirements/deploy.lock"
NARROW = 44


def is_one_card(output: str, first: str) -> None:
    """Assert that there is one card, that it fits the terminal, and that it says that nothing was changed."""
    lines = [line for line in output.splitlines() if not line.startswith("make: ")]
    assert len([line for line in lines if line.startswith(first)]) == 1, output
    assert lines.count("Nothing was changed.") == 1, output
    assert len([line for line in lines if line.startswith("Docs: ")]) == 1, output
    assert not RAW.search(output), output
    # A path is one word.
    assert [line for line in lines if len(line) > COLUMNS and " " in line.strip()] == [], output


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run(["make", "deploy", *words], folder, clean_environment(COLUMNS=str(COLUMNS)))


def checkout(folder: Path, *, tools: bool) -> Path:
    """A copy of the checkout; tools: those of this one, as if it had been moved with them."""
    copy_checkout(folder)
    (folder / ".venv").unlink(missing_ok=True)  # a link, where breakings are tried
    if tools:
        (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


NOWHERE = {
    "$HOME": (True, "has the name of a variable"),
    "[mine]": (True, "is a pattern"),
    "what?": (True, "is a pattern"),
    "a:b": (False, "has a colon"),
    os.fsdecode(b"caf\xe9"): (True, "is no text in UTF-8"),
}
"""A folder in which no play can run -> whether that holds with the tools there already; what the card says."""


@pytest.mark.parametrize("name", NOWHERE)
def test_a_folder_in_which_nothing_works_is_told_before_anything_is_installed(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "whats").mkdir()  # what a pattern would find beside
    with_tools, said = NOWHERE[name]
    for number in range(1 + with_tools):
        folder = checkout(tmp_path / str(number) / name, tools=bool(number))
        (folder.parent / "whats").mkdir()
        done = make(folder)
        assert done.returncode != 0
        shown = str(folder) if str(folder).isascii() else ascii(str(folder))
        is_one_card(done.stdout, f"{shown}: "[:COLUMNS].rstrip())
        assert said in " ".join(done.stdout.split())
        assert not (folder / ".hermes").exists()
        assert number or not (folder / ".venv").exists()


def test_a_checkout_without_links_is_told_before_anything_is_installed(tmp_path: Path) -> None:
    """As git writes it on a disk that has none, or where it was told so."""
    for tools in (False, True):
        folder = checkout(tmp_path / str(tools), tools=tools)
        for link in filter(Path.is_symlink, (folder / "playbooks/collections").rglob("*")):
            target = os.readlink(link)
            link.unlink()
            link.write_text(target)
        done = make(folder)
        assert done.returncode != 0
        is_one_card(done.stdout, f"{folder}: "[:COLUMNS].rstrip())
        assert "has files where the repository has links" in " ".join(done.stdout.split())
        assert tools or not (folder / ".venv").exists()


def test_a_folder_with_an_odd_name_is_fine(tmp_path: Path) -> None:
    """A play runs to its end there, and nothing of the name is read as anything else."""
    odd = 'it\'s #1; "odd" & (long) {{ ö }} 日本 %s a=b,c ' + "l" * 100
    folder = checkout(tmp_path / odd, tools=True)
    env = clean_environment(COLUMNS=str(COLUMNS))
    done = run(["make", "destroy", "CONFIRM=yes", "FORGET=yes"], folder, env)
    assert done.returncode == 0, done.stdout
    assert "hermes: nothing to remove, there is no .hermes/hermes." in done.stdout


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_changes_nothing(tmp_path: Path, closed: str) -> None:
    """As services and desktops start programs that nobody reads."""
    folder = checkout(tmp_path / "checkout", tools=True)
    command = f"make destroy CONFIRM=yes FORGET=yes {closed}"
    done = run(["sh", "-c", command], folder, clean_environment(COLUMNS=str(COLUMNS)))
    assert done.returncode == 0, done.stdout
    assert ">&-" in closed or "nothing to remove" in done.stdout


DESTROY = "make --no-print-directory destroy CONFIRM=yes FORGET=yes"


def test_what_cannot_be_shown_is_told_at_the_end(tmp_path: Path) -> None:
    """A disk that is full under the file to which a play is sent: Ansible alone would wait for ever."""
    folder = checkout(tmp_path / "checkout", tools=True)
    env = clean_environment(COLUMNS=str(COLUMNS))
    done = run(["sh", "-c", f"{DESTROY} 2>&1 >/dev/full"], folder, env)
    assert done.returncode != 0
    lines = done.stdout.splitlines()
    assert lines[0] == "standard output: could not be written: No space left on device."
    assert len([line for line in lines if line.startswith("Docs: ")]) == 1, done.stdout
    assert not RAW.search(done.stdout), done.stdout
    done = run(["sh", "-c", f"{DESTROY} >/dev/full 2>&1"], folder, env)
    assert done.returncode != 0


def test_a_reader_who_has_seen_enough_ends_nothing(tmp_path: Path) -> None:
    """As `make status | head -1` has it: not an error, and no word of one."""
    folder = checkout(tmp_path / "checkout", tools=True)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        DESTROY.split(),
        cwd=folder,
        env=clean_environment(COLUMNS=str(COLUMNS)),
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_bytecode_is_kept_whatever_a_shell_says(tmp_path: Path) -> None:
    """Many a container's image has Python write none, and each play would compile all of the collection anew.

    And nobody else may change it, though the shell would let them.
    """
    folder = checkout(tmp_path / "checkout", tools=True)
    env = clean_environment(PYTHONDONTWRITEBYTECODE="1")
    env.pop("PYTHONPYCACHEPREFIX", None)
    done = run(["sh", "-c", f"umask 0; {DESTROY}"], folder, env)
    assert done.returncode == 0, done.stdout
    module = "plugins/plugin_utils/display/screen.py"
    kept = Path(importlib.util.cache_from_source(str(folder / module)))
    for made in (kept, kept.parent, folder / ".ansible"):
        assert made.stat().st_mode & 0o022 == 0, made


def test_a_terminal_that_does_not_wait_is_none_to_fail_on(tmp_path: Path) -> None:
    """As programs leave it that read and write without waiting, Node's among them; and it is a narrow one."""
    folder = checkout(tmp_path / "checkout", tools=True)
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, NARROW, 0, 0))
    os.set_blocking(theirs, False)
    env = clean_environment()
    del env["COLUMNS"]
    with subprocess.Popen(
        DESTROY.split(), cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    ) as play:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # Linux ends it so
            while part := os.read(ours, 4096):
                said += part
    os.close(ours)
    output = said.decode().replace("\r\n", "\n")
    assert play.returncode == 0, output
    assert "nothing to remove" in " ".join(output.split())
    assert re.search(r"^hermes +: ok=\d", output, re.MULTILINE), output
    assert re.search(r"^Took \d", output, re.MULTILINE), output
    assert [line for line in output.splitlines() if len(line) > NARROW] == [], output


def test_a_python_that_is_not_there_is_told(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "checkout", tools=False)
    done = make(folder, "PYTHON=python3.99")
    assert done.returncode != 0
    is_one_card(done.stdout, "python: there is no python3.99 on the PATH")
    assert not (folder / ".venv").exists()


def bootstrap(folder: Path, uv: str) -> subprocess.Popen[str]:
    """Begin to install the tools into a folder, with a uv that is a script of our own."""
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    build = "plugins/plugin_utils/build"
    (folder / build).mkdir(parents=True)
    for name in ("registries.py", "symptoms.py"):
        shutil.copy(ROOT / build / name, folder / build)
    program = folder / "bin" / "uv"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{uv}\n")
    program.chmod(0o755)
    env = clean_environment(
        PATH=f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        COLUMNS=str(COLUMNS),
        PIP_INDEX_URL="https://me:canary@a.test/",
        UV_DEFAULT_INDEX="",
        UV_INDEX_URL="",
        PIP_PROXY="",
        https_proxy="http://me:canary@127.0.0.1:9",
    )
    # What tests start in the background would heed no interrupt.
    heeding = ["env", "--default-signal=INT"]
    return subprocess.Popen(
        [*heeding, sys.executable, "requirements/bootstrap.py", ".venv", LOCK],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_a_registry_that_refuses_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with bootstrap(tmp_path, "echo 'error: Failed to fetch' >&2; exit 2") as installing:
        output, _ = installing.communicate(timeout=300)
    assert installing.returncode == 1
    is_one_card(output, "registry not reachable, or refused")
    assert "error: Failed to fetch\n" in output
    assert "could not be installed from a.test" in " ".join(output.split())
    assert "https_proxy names the proxy 127.0.0.1:9." in " ".join(output.split())
    assert "canary" not in output
    assert not (tmp_path / ".venv").exists()


def test_who_ends_the_installation_of_the_tools_is_told_what_that_means(tmp_path: Path) -> None:
    """By what a terminal sends to all processes of a command."""
    started = tmp_path / "started"
    with bootstrap(tmp_path, f"touch '{started}'; exec sleep 600") as installing:
        wait_until(started.exists, "uv was not started", seconds=300)
        os.killpg(installing.pid, signal.SIGINT)
        output, _ = installing.communicate(timeout=300)
    assert installing.returncode == 130
    is_one_card(output, "interrupted: you ended the installation of the tools.")
    assert not (tmp_path / ".venv").exists()

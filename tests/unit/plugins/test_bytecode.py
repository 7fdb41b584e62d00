# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""An installation takes over the bytecode of an earlier one, for the sources that are the same, and for no other."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.plugin_utils.build import bytecode, installer
from ansible_collections.hermes.workers.plugins.plugin_utils.build.runtime import (
    IMAGE_MARKER,
    Runtime,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder

from tests.standins.package_index import package_index, wheel

ROOM = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
TIME = 1_700_000_000


def environment(folder: Path, **sources: str) -> Path:
    """Write sources where an environment has its packages, all at one time; a dot is two underlines."""
    for name, content in sources.items():
        path = folder / ROOM / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        os.utime(path, (TIME, TIME))
    return folder


def compiled(folder: Path) -> dict[str, int]:
    """The inode of the bytecode of each source."""
    found = (folder / ROOM).rglob("*.pyc")
    return {path.name.partition(".")[0]: path.stat().st_ino for path in found}


def compile_all(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "compileall", "-q", folder / ROOM], check=True)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    made = environment(tmp_path / "earlier", same="a = 1", other="a = 1", gone__left="a = 1")
    compile_all(made)
    return made


@pytest.fixture
def said_of(tmp_path: Path) -> Callable[[str], str]:
    """What a module of the later environment says that it is."""

    def say(module: str) -> str:
        words = ["-c", f"import {module} as it; print(it.a)"]
        env = {"PYTHONPATH": str(tmp_path / "later" / ROOM)}
        done = subprocess.run(
            [sys.executable, "-B", *words], env=env, capture_output=True, text=True
        )
        return done.stdout.strip() or done.stderr

    return say


def test_what_is_the_same_is_not_compiled_again(earlier: Path, tmp_path: Path) -> None:
    later = tmp_path / "later"
    with bytecode.lent(earlier, later):
        environment(later, same="a = 1", new="a = 2")
        compile_all(later)
    assert compiled(later)["same"] == compiled(earlier)["same"]
    assert "new" in compiled(later)


def test_another_source_of_the_same_time_and_size_is_what_runs(
    earlier: Path, tmp_path: Path, said_of: Callable[[str], str]
) -> None:
    later = tmp_path / "later"
    with bytecode.lent(earlier, later):
        environment(later, other="a = 2")
        compile_all(later)
    assert said_of("other") == "2"


def test_what_was_compiled_anew_stays(earlier: Path, tmp_path: Path) -> None:
    later = tmp_path / "later"
    with bytecode.lent(earlier, later):
        environment(later, other="a = 22")
        os.utime(later / ROOM / "other.py", (TIME + 5, TIME + 5))
        compile_all(later)
    assert compiled(later)["other"] != compiled(earlier)["other"]


def test_a_package_that_is_no_longer_there_leaves_nothing_to_import(
    earlier: Path, tmp_path: Path, said_of: Callable[[str], str]
) -> None:
    later = tmp_path / "later"
    with bytecode.lent(earlier, later):
        environment(later, same="a = 1")
    assert "No module named 'gone'" in said_of("gone")
    assert not (later / ROOM / "gone").exists()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Make an image with one package, as uv installs and compiles it; return its environment."""
    deployment = StateFolder(str(tmp_path / "home"), "hermes")
    runtime = Runtime(deployment, Sources(), print)
    lock = tmp_path / "lock"

    def install(image: str) -> Path:
        runtime.image = deployment.runtime / "images" / image
        runtime.image.mkdir(parents=True)
        venv = runtime.image / "venv"
        installer.make_environment(venv, lock, "thing", earlier=runtime.earlier())
        (runtime.image / IMAGE_MARKER).write_text("{}")
        return venv

    with package_index() as index:
        name, content = wheel("a_thing", "1.0", {"a_thing/__init__.py": "a = 1\n"})
        index.wheels[name] = content
        digest = hashlib.sha256(content).hexdigest()
        lock.write_text(f"a-thing==1.0 --hash=sha256:{digest}\n")
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
        yield install


def test_an_image_takes_over_what_another_compiled(install: Callable[[str], Path]) -> None:
    first, second = (compiled(install(image))["__init__"] for image in ("first", "second"))
    assert first == second


def test_what_somebody_wrote_over_in_an_image_is_in_no_later_one(
    install: Callable[[str], Path],
) -> None:
    """What is installed is one file with what lies in uv's cache of it."""
    module = install("first") / ROOM / "a_thing" / "__init__.py"
    with module.open("r+") as file:
        file.write("a = 2\n")
    with pytest.raises(Card) as caught:
        install("second")
    (problem,) = caught.value.problems
    assert "a_thing is another one in uv's cache than its name says" in problem.sentence
    assert str(caught.value.detail[0]).endswith("a_thing/__init__.py")
    (order,) = re.findall(r"run `(.+? cache clean a-thing)`", problem.remedy)
    subprocess.run(shlex.split(order), check=True)
    assert (install("third") / ROOM / "a_thing" / "__init__.py").read_text() == "a = 1\n"

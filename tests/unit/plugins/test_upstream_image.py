# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether an image is laid out as upstream's is told from a look into it, and what is laid upon it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.docker import DockerError
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.build import (
    build_context,
    upstream_layer,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.containers import upstream

CONTAINER = Sources().container
IMAGE = f"a.example/hermes@sha256:{'a' * 64}"
UPSTREAM = {
    "version": "0.21.3",
    "python": "3.13",
    "libc": "glibc",
    "packages": ["aiohttp==3", "hermes-agent==0.21.3"],
}
# Stands in for uv: brings the one package that was asked for.
FAKE_UV = """
import pathlib, sys
words = sys.argv[1:]
target = pathlib.Path(words[words.index("--target") + 1])
lock = pathlib.Path(words[words.index("--requirement") + 1]).read_text()
assert lock.startswith("pysqlite3==") and "--hash=sha256:" in lock and "hermes" not in lock
assert "--require-hashes" in words and words[words.index("--python-version") + 1] == "3.13"
(target / "pysqlite3").mkdir(parents=True)
(target / "pysqlite3" / "_sqlite3.cpython-313-x86_64-linux-gnu.so").write_text("a library")
"""


class Engine:
    """Stands for a container engine with one image, in which a command prints a text."""

    def __init__(self, told: str | DockerError, *, there: bool = True) -> None:
        self.told, self.there = told, there
        self.pulled: list[str] = []

    def image(self, name: str) -> dict[str, Any] | None:
        return {"Id": name} if self.there else None

    def pull(self, name: str, tell: object) -> None:
        self.pulled.append(name)

    def run(self, image: str, command: list[str]) -> str:
        assert (image, command[0]) == (IMAGE, "/bin/sh")
        if isinstance(self.told, DockerError):
            raise self.told
        return self.told


def examined(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> upstream.Found:
    monkeypatch.setattr(upstream, "DockerEngine", lambda _socket: engine)
    return upstream.examine(Settings(docker_socket="/nowhere"), IMAGE, lambda _line: None)


def told(*lacks: str, **other: str) -> str:
    lines = [f"lacks {path}" for path in lacks]
    return "\n".join(["a warning", *lines, json.dumps(UPSTREAM | other)])


@pytest.mark.parametrize("there", [True, False], ids=["in the engine", "elsewhere"])
def test_upstreams_image_tells_its_hermes(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    engine = Engine(told(), there=there)
    found = examined(monkeypatch, engine)
    assert (found.version, found.python) == ("0.21.3", "3.13")
    assert found.packages == UPSTREAM["packages"]
    assert engine.pulled == ([] if there else [IMAGE])


@pytest.mark.parametrize(
    ("said", "missing"),
    [
        (DockerError(400, "exec: /bin/sh: no such file or directory"), "/bin/sh"),
        (
            f"lacks {upstream_layer.PYTHON}\nlacks {upstream_layer.PROGRAM}\n",
            f"{upstream_layer.PYTHON}; no {upstream_layer.PROGRAM}",
        ),
        (told(upstream_layer.PROGRAM), upstream_layer.PROGRAM),
        ("ModuleNotFoundError: No module named 'hermes_cli'\n", "package hermes-agent"),
        (told(python="3.14"), "Python 3.11, 3.12, 3.13 (its own is 3.14)"),
        (told(libc=""), "glibc"),
        (told(version="main"), "version of Hermes"),
    ],
)
def test_a_foreign_layout_is_one_card_that_names_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, said: str | DockerError, missing: str
) -> None:
    with pytest.raises(Card) as caught:
        examined(monkeypatch, Engine(said))
    card = caught.value.render()
    assert f"{IMAGE} is not laid out as upstream's image is" in card
    assert f"it has no {missing}" in card
    assert "\nNothing was changed.\n" in card


def test_an_engine_that_refuses_is_not_taken_for_a_foreign_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(Card, match="refuses: no space"):
        examined(monkeypatch, Engine(DockerError(500, "no space left")))


def test_the_layer_is_our_programs_and_a_library_beside_what_upstream_has(tmp_path: Path) -> None:
    script = tmp_path / "uv.py"
    script.write_text(FAKE_UV)
    upstream_layer.prepare(CONTAINER, tmp_path / "out", "3.13", [sys.executable, str(script)])
    tree = tmp_path / "out" / "tree"
    found = {
        path.relative_to(tree).as_posix(): path.stat().st_mode & 0o777
        for path in tree.rglob("*")
        if path.is_file()
    }
    programs = {name: mode for name, mode in found.items() if not name.endswith(".py")}
    environment = "opt/hermes/.venv"
    assert programs == {
        "etc/profile.d/hermes.sh": 0o644,
        f"{environment}/lib/python3.13/site-packages/sqlite.pth": 0o644,
        f"{environment}/sqlite/libsqlite3.so": 0o755,
        "opt/sandbox/bin/hermes": 0o755,
        "opt/sandbox/bin/python3": 0o755,
        "opt/sandbox/bin/sandbox": 0o755,
        "opt/sandbox/start-hermes.sh": 0o755,
    }
    ours = ("opt/sandbox/sandbox/", f"{environment}/sqlite/")
    assert all(name.startswith(ours) for name in found.keys() - programs)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"Dockerfile", "tree"}


def test_a_layer_is_made_in_the_place_of_another_and_of_whole_sources_only(tmp_path: Path) -> None:
    script = tmp_path / "uv.py"
    script.write_text(FAKE_UV)
    out = tmp_path / "out"
    (out / "tree" / "opt").mkdir(parents=True)
    (out / "tree" / "opt" / "of-before").write_text("")
    upstream_layer.prepare(CONTAINER, out, "3.13", [sys.executable, str(script)])
    assert not list(out.rglob("of-before"))
    copy = tmp_path / "container"
    for path in build_context.sources(CONTAINER):
        (copy / path.relative_to(CONTAINER)).parent.mkdir(parents=True, exist_ok=True)
        (copy / path.relative_to(CONTAINER)).write_bytes(path.read_bytes())
    for name in ("requirements.lock", "features.lock", "features.json", "debian.json"):
        (copy / name).write_bytes((CONTAINER / name).read_bytes())
    with pytest.raises(build_context.BuildContextError, match="is incomplete: Dockerfile"):
        upstream_layer.prepare(copy, out, "3.13", [sys.executable, str(script)])
    assert (out / "Dockerfile").is_file(), "the one before is left"


def test_the_digest_of_the_layer_follows_the_image_and_every_source(tmp_path: Path) -> None:
    digest = upstream_layer.digest(CONTAINER, IMAGE)
    assert upstream_layer.digest(CONTAINER, IMAGE.replace("a.example", "b.example")) == digest
    assert upstream_layer.digest(CONTAINER, IMAGE[:-1] + "b") != digest
    for path in build_context.sources(CONTAINER):
        copy = tmp_path / path.relative_to(CONTAINER)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    for name in ("requirements.lock", "features.lock", "features.json", "debian.json"):
        (tmp_path / name).write_bytes((CONTAINER / name).read_bytes())
    dockerfile = tmp_path / "upstream" / "Dockerfile"
    dockerfile.parent.mkdir()
    dockerfile.write_bytes((CONTAINER / "upstream" / "Dockerfile").read_bytes())
    assert upstream_layer.digest(tmp_path, IMAGE) == digest
    for name in ("upstream/Dockerfile", "sandbox.sh", "start-hermes.sh", "sandbox/cli.py"):
        path = tmp_path / name
        path.write_text(path.read_text() + "# more\n")
        digest, before = upstream_layer.digest(tmp_path, IMAGE), digest
        assert digest != before, name

# SPDX-License-Identifier: Apache-2.0
"""What each feature costs: how much larger it makes Hermes, and how much longer a wake takes with it.

A wake is one from asleep to the first token of a chat, of Hermes as a process of this machine. A deployment with the
feature and one without any take turns, so that what else the machine does meets both. HERMES_BENCH_ROUNDS (9) says how
often each wakes, HERMES_BENCH_FEATURES (all, by commas) with which features. `chromium` is for containers alone, and
`browser` for a browser elsewhere: their sizes are told, and no wakes.
"""

from __future__ import annotations

import compileall
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

from ansible_collections.hermes.workers.plugins.module_utils.settings.features import FEATURE_NAMES
from ansible_collections.hermes.workers.plugins.plugin_utils.build import build_context
from figure import Figure
from plays import ROOT, Deployment

from parts.container import provider
from parts.wake import first_token

ROUNDS = int(os.environ.get("HERMES_BENCH_ROUNDS", "9"))
CHOSEN = [one for one in os.environ.get("HERMES_BENCH_FEATURES", "").split(",") if one]
WAKE_GOAL = 1.15
LARGEST = 350
"""Megabytes of the largest feature, a browser."""
WITHOUT_WAKE = ("chromium", "browser")
USUAL = ["git", "mcp", "search", "web"]
"""Those of the personal assistant."""


def sizes(names: list[str], folder: Path) -> list[Figure]:
    """Measure what each feature adds to the folder that an image is built from, with its bytecode."""
    bare = {*_laid(folder / "bare", [])}
    figures = []
    for name in names:
        there = folder / name
        more = [one for one in _laid(there, [name]) if one not in bare]
        total = sum(_size(there / one) for one in more)
        figures.append(Figure(f"size of {name}", round(total / 1e6, 1), "MB", LARGEST))
        shutil.rmtree(there)
    return figures


def _laid(there: Path, features: list[str]) -> list[Path]:
    """Lay out Hermes with some features; return its files, as they lie in the folder."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uv is None:
        raise RuntimeError("uv is not installed")
    container = ROOT / "container"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    lock = build_context.lock_text(container, features)
    build_context.prepare(container, there, python, [uv], lock, features)
    return [one.relative_to(there) for one in there.rglob("*") if not one.is_dir()]


def _size(path: Path) -> int:
    """Return the bytes of a file with those of its bytecode."""
    total = path.lstat().st_size
    if path.suffix == ".py" and compileall.compile_file(str(path), quiet=2):
        total += Path(importlib.util.cache_from_source(path)).stat().st_size
    return total


def wakes(sets: dict[str, list[str]], folder: Path) -> list[Figure]:
    """Let a deployment with each set of features take turns with one without any."""
    with provider() as model:
        common = {
            "hermes_default_model": "custom/stand-in",
            "hermes_provider_base_url": f"{model.url}/v1",
            "custom_api_key": model.key,
        }
        made = [Deployment("without", folder, variables=common)]
        try:
            made[0].deploy()
            figures = []
            for number, (name, features) in enumerate(sets.items()):
                having = {**common, "hermes_features": features}
                made.append(Deployment(f"having-{number}", folder, variables=having))
                made[-1].deploy()
                pairs = _pairs(made[-1], made[0])
                figures.append(Figure.against(f"wake with {name}", pairs, "without any", WAKE_GOAL))
                made.pop().play("destroy", "-e", "hermes_confirm=yes", "-e", "hermes_forget=true")
            return figures
        finally:
            for one in made:
                one.play("destroy", "-e", "hermes_confirm=yes", "-e", "hermes_forget=true")


def _pairs(one: Deployment, other: Deployment) -> list[tuple[float, float]]:
    """Wake both in turns, now one first and now the other: whoever is second meets what the first one leaves to do."""
    pairs = []
    for number in range(ROUNDS + 1):
        both = (one, other) if number % 2 else (other, one)
        took = {made.name: _wake(made) for made in both}
        pairs.append((took[one.name], took[other.name]))
    # The first of each is not counted: what it reads may come from the disk.
    return pairs[1:]


def _wake(made: Deployment) -> float:
    """Return the seconds from asleep to the first token."""
    assert made.call("POST", "/api/instance/sleep").status == 200
    took = first_token("127.0.0.1", made.port, made.token)
    assert made.call("POST", "/api/instance/sleep").status == 200
    return took


def measure() -> list[Figure]:
    """Measure sizes, then wakes."""
    names = CHOSEN or list(FEATURE_NAMES)
    sets = {", ".join(USUAL): USUAL}
    sets |= {name: [name] for name in names if name not in WITHOUT_WAKE}
    with tempfile.TemporaryDirectory(prefix="hermes-bench-") as folder:
        home = Path(folder) / "home"
        home.mkdir(mode=0o700)
        return [*sizes(names, Path(folder)), *wakes(sets, home)]

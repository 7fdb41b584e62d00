# SPDX-License-Identifier: Apache-2.0
"""A sandbox as the engine or a container makes it, but with a stand-in for Hermes."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from sandbox_box import Box


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """Return a sandbox whose PID 1 has not been started."""
    with Box(tmp_path / "box") as made:
        yield made


@pytest.fixture
def new_box(tmp_path: Path) -> Iterator[Callable[[], Box]]:
    """Return a function that makes further sandboxes."""
    made: list[Box] = []

    def make() -> Box:
        made.append(Box(tmp_path / f"box-{len(made)}").__enter__())
        return made[-1]

    yield make
    for each in made:
        each.__exit__(None, None, None)

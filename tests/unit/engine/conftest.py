# SPDX-License-Identifier: Apache-2.0
"""A running engine with images whose Hermes is a stand-in."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "sandbox")]

from engine_server import Server, bubblewrap_works  # noqa: E402

MODES = [
    "never",
    pytest.param(
        "always",
        marks=pytest.mark.skipif(not bubblewrap_works(), reason="bubblewrap does not work here"),
    ),
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Return an engine that confines nothing."""
    with Server(tmp_path / "state") as made:
        yield made


@pytest.fixture(params=MODES)
def either(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """Return an engine, once with and once without bubblewrap."""
    with Server(tmp_path / "state", confine=request.param) as made:
        yield made

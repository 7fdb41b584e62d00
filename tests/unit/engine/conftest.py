# SPDX-License-Identifier: Apache-2.0
"""A running engine with images whose Hermes is a stand-in, or the real one."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [
    str(Path(__file__).parent),
    str(Path(__file__).parents[1] / "sandbox"),
    str(Path(__file__).parents[3] / "container"),
]

import hermes_image  # noqa: E402
from engine_server import Server, bubblewrap_works  # noqa: E402

MODES = [
    "never",
    pytest.param(
        "always",
        marks=pytest.mark.skipif(not bubblewrap_works(), reason="bubblewrap does not work here"),
    ),
]


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an image with real Hermes.

    HERMES_TEST_IMAGE names one to use; else one is built from the lock, in the folder
    HERMES_TEST_CACHE where that is set, so that later runs find it.
    """
    if given := os.environ.get("HERMES_TEST_IMAGE"):
        return Path(given)
    cache = os.environ.get("HERMES_TEST_CACHE")
    return hermes_image.build(Path(cache) if cache else tmp_path_factory.mktemp("images"))


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

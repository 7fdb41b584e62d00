# SPDX-License-Identifier: Apache-2.0
"""What all tests share: the checkout as a collection, the fixtures of Docker, and no silent skips.

With HERMES_TESTS_NO_SKIPS=1, as in CI, a test that skips for want of something fails.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

# Fixtures of the whole session: there is one engine, whoever uses it.
from tests.docker.engine import base, build_hermes, docker, image, sidecar, sources
from tests.measured import measured_plays

__all__ = ["base", "build_hermes", "docker", "image", "sidecar", "sources"]

ROOT = Path(__file__).resolve().parents[1]
COLLECTIONS = ROOT / ".ansible" / "collections"
UNIT = ROOT / "tests" / "unit"


def link_checkout() -> None:
    """Make the link that the Makefile makes too, so that pytest can be run by itself."""
    link = COLLECTIONS / "ansible_collections" / "hermes" / "workers"
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("../../../..")


def group(item: pytest.Item) -> str:
    """Name those that one process must run in turn: they share an engine, the marks of a sandbox, or a deployment."""
    if "docker" in getattr(item, "fixturenames", ()):
        return "docker"
    if item.path.parent in (UNIT / "engine", UNIT / "sandbox"):
        return "sandbox"
    return item.path.relative_to(ROOT).as_posix()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Group the tests for `pytest --dist loadgroup`, before pytest-xdist reads the marks."""
    item.add_marker(pytest.mark.xdist_group(group(item)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long first, so that no process is left with it at the end: long groups, then whole deploys."""
    first = [
        ROOT / "tests" / "integration",
        ROOT / "tests" / "docker",
        ROOT / "tests" / "cloudflare",
    ]

    def place(item: pytest.Item) -> tuple[bool, int]:
        folder = item.path.parent
        long = group(item) in ("docker", "sandbox")
        return not long, first.index(folder) if folder in first else len(first)

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def stand_in_runtime(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let all stand-ins for Cloudflare run what one of them installed, also those of other processes of this run."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    os.environ.setdefault("HERMES_TEST_RUNTIME", str(folder / "runtime"))


def pytest_configure(config: pytest.Config) -> None:
    """Have plays counted while coverage is measured, by the one process that all others of pytest come from."""
    environment = ROOT / ".venv"
    if not hasattr(config, "workerinput") and environment.exists():
        measuring = measured_plays(environment)
        measuring.__enter__()
        config.add_cleanup(lambda: measuring.__exit__(None, None, None))


link_checkout()
sys.path.insert(0, str(COLLECTIONS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("HERMES_TESTS_NO_SKIPS") == "1":
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, but no test may skip here: {call.excinfo}"
    return report

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

__all__ = ["base", "build_hermes", "docker", "image", "sidecar", "sources"]

ROOT = Path(__file__).resolve().parents[1]
COLLECTIONS = ROOT / ".ansible" / "collections"


def link_checkout() -> None:
    """Make the link that the Makefile makes too, so that pytest can be run by itself."""
    link = COLLECTIONS / "ansible_collections" / "hermes" / "workers"
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("../../../..")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the tests for `pytest -n 2 --dist loadgroup`: one module, or all that share the Docker engine, one process.

    Deployments are shared within a module, and the engine with its images within the run.
    """
    for item in items:
        shares_engine = "docker" in getattr(item, "fixturenames", ())
        group = "docker" if shares_engine else item.path.relative_to(ROOT).as_posix()
        item.add_marker(pytest.mark.xdist_group(group))


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

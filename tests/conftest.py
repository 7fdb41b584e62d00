# SPDX-License-Identifier: Apache-2.0
"""With HERMES_TESTS_NO_SKIPS=1, as in CI, a test that skips for want of something fails."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("HERMES_TESTS_NO_SKIPS") == "1":
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, but no test may skip here: {call.excinfo}"
    return report

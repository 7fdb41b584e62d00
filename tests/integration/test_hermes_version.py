# SPDX-License-Identifier: Apache-2.0
"""Another Hermes of the registry than the pinned one: found once, run for real, and left again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from plays import Deployment

EARLIER = "0.18.2"
KNOWN = ["CVE-2026-71963", "CVE-2026-82021"]


@pytest.fixture(scope="module")
def deployment(make_deployment: Callable[..., Deployment]) -> Deployment:
    return make_deployment("earlier", hermes_provider="rehearsal", hermes_version=EARLIER)


def running(deployment: Deployment) -> str:
    """Return the version that Hermes' own process tells."""
    assert deployment.chat("Hello").status == 200
    return str(deployment.call("GET", "/api/instance/status").json["hermesVersion"])


def test_another_hermes_is_found_once_deployed_and_left_again(deployment: Deployment) -> None:
    refused = deployment.play("deploy")
    assert refused.code != 0
    assert (
        f"{EARLIER} has {KNOWN[0]}" in refused.output and "Nothing was changed." in refused.output
    )
    assert not deployment.state.exists()

    deployment.variables["hermes_accept_advisories"] = KNOWN
    first = deployment.deploy()
    assert f"resolving Hermes {EARLIER}" in first.output
    assert f"Hermes {EARLIER} has no records of jobs' runs" in first.output
    assert running(deployment) == EARLIER

    second = deployment.deploy()
    assert second.changed(deployment.name) == 0
    assert "resolving" not in second.output

    deployment.variables.pop("hermes_version")
    back = deployment.deploy()
    assert "Hermes in a new sandbox, because of a new image" in back.output
    assert running(deployment) != EARLIER

# SPDX-License-Identifier: Apache-2.0
"""Another Hermes than the pinned one, of the registry and of none: found once, run for real, and left again."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.build import build_context
from plays import ROOT, Deployment
from running_hermes import Asked, asked_by

from tests.standins.hermes_sources import make_repository
from tests.standins.telegram import Telegram

EARLIER = "0.18.2"
UNKNOWN = "0.99.0"
KNOWN = ["CVE-2026-71963", "CVE-2026-82021"]


@pytest.fixture(scope="module")
def deployment(make_deployment: Callable[..., Deployment], telegram: Telegram) -> Deployment:
    soul = {"text": "You are called Ada."}
    return make_deployment(
        "earlier", hermes_version=EARLIER, hermes_soul=soul, **asked_by(telegram)
    )


def running(deployment: Deployment) -> str:
    """Return the version that Hermes' own process tells."""
    assert deployment.chat("Hello").status == 200
    return str(deployment.call("GET", "/api/instance/status").json["hermesVersion"])


def test_another_hermes_is_found_once_deployed_and_left_again(
    deployment: Deployment, telegram: Telegram
) -> None:
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
    assert Asked(deployment, telegram).broken() == []

    second = deployment.deploy()
    assert second.changed(deployment.name) == 0
    assert "resolving" not in second.output

    deployment.variables.pop("hermes_version")
    back = deployment.deploy()
    assert "Hermes in a new sandbox, because of a new image" in back.output
    assert running(deployment) != EARLIER
    assert Asked(deployment, telegram).broken() == []


def test_a_hermes_of_no_registry_is_built_of_its_commit_and_the_same_as_its_wheel(
    make_deployment: Callable[..., Deployment], telegram: Telegram, tmp_path: Path
) -> None:
    pinned = build_context.hermes_version(ROOT / "container")
    uv = Path(sys.executable).with_name("uv")
    commit = make_repository(tmp_path / "hermes", uv, pinned, UNKNOWN)
    source = {"git": str(tmp_path / "hermes"), "ref": f"v{UNKNOWN}", "commit": "0" * 40}
    deployment = make_deployment("sourced", hermes_source=source, **asked_by(telegram))
    refused = deployment.play("deploy")
    assert f"is the commit {commit}, not {'0' * 40}" in refused.output
    assert "Nothing was changed." in refused.output
    assert not deployment.state.exists()

    source["commit"] = commit
    first = deployment.deploy()
    assert f"{UNKNOWN}" in first.output and commit[:12] in first.output
    assert running(deployment) == UNKNOWN
    assert Asked(deployment, telegram).broken() == []

    (wheel,) = deployment.state.parent.glob(".runtime/release-*/*.whl")
    copy = shutil.copy(wheel, tmp_path / wheel.name)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    deployment.variables["hermes_source"] = {"file": str(copy), "sha256": "0" * 64}
    refused = deployment.play("deploy")
    assert f"its sha256 is {digest}, not {'0' * 64}" in refused.output
    assert "Nothing was changed." in refused.output
    assert running(deployment) == UNKNOWN
    deployment.variables["hermes_source"] = {"file": str(copy), "sha256": digest}
    assert deployment.deploy().changed(deployment.name) == 0, "it is the same Hermes"

# SPDX-License-Identifier: Apache-2.0
"""What Hermes asks a registry for later is there after a restart, a sleep and in another image."""

from __future__ import annotations

import json
from collections.abc import Callable

from plays import Deployment

PACKAGE = "exa_py"
"""What Hermes' own list has for a service that searches the web; its key alone brings the tool."""
NO_REGISTRY = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple"}


def searched(deployment: Deployment) -> str:
    """Return what a search of the web came to: nobody has that key, so it fails, with or without the package."""
    said = deployment.chat('call web_search {"query": "cats"}').said
    assert said.startswith("The tool answered: "), said
    return said


def fetched(deployment: Deployment) -> bool:
    """Tell whether the package is in Hermes' home."""
    command = {"command": f"ls -d ~/.hermes/lazy-packages/{PACKAGE}"}
    return '"exit_code": 0' in deployment.chat(f"call terminal {json.dumps(command)}").said


def test_what_was_asked_for_later_stays(make_deployment: Callable[..., Deployment]) -> None:
    deployment = make_deployment(
        "later",
        hermes_provider="rehearsal",
        hermes_host_tools=True,
        hermes_secrets={"EXA_API_KEY": "canary-of-a-search"},
    )
    deployment.deploy()
    assert "lazy installs disabled" in searched(deployment)
    assert not fetched(deployment)

    deployment.variables["hermes_lazy_installs"] = True
    play = deployment.deploy()
    assert "installs" in play.output
    assert "unavailable" not in searched(deployment)
    assert fetched(deployment)

    # Whatever asked for it anew would now be told that there is no registry.
    deployment.variables["hermes_env"] = NO_REGISTRY
    deployment.deploy()
    assert "unavailable" not in searched(deployment)
    assert deployment.call("POST", "/api/instance/stop").status == 200
    assert "unavailable" not in searched(deployment)
    deployment.variables["hermes_packages"] = {"python": ["humanize==4.9.0"]}
    another = deployment.deploy()
    assert "Hermes in a new sandbox, because of a new image" in another.output
    assert "unavailable" not in searched(deployment)
    assert fetched(deployment)

    deployment.variables["hermes_lazy_installs"] = False
    deployment.deploy()
    assert "lazy installs disabled" in searched(deployment)

# SPDX-License-Identifier: Apache-2.0
"""What Hermes asks a registry for later is there after a restart, a sleep and in another image."""

from __future__ import annotations

import re
from collections.abc import Callable

from plays import Deployment

from tests.standins.package_index import package_index, wheel

EXA = """
class Exa:
    def __init__(self, api_key):
        self.headers = {}

    def search(self, *words, **more):
        raise ConnectionError("the stand-in for Exa was asked")
"""
"""What Hermes' list has for a service that searches the web, whose key alone brings the tool."""


def searched(deployment: Deployment) -> str:
    """Return what a search of the web came to in a turn of its own."""
    said = deployment.chat('call web_search {"query": "cats"}').said
    assert said.startswith("The tool answered: "), said
    return said


def listed(deployment: Deployment) -> str:
    """Return the version that Hermes' own list names."""
    (source, *_) = deployment.state.parent.glob(".runtime/images/*/venv/**/tools/lazy_deps.py")
    return re.findall(r'"exa-py==([\d.]+)"', source.read_text())[0]


def test_what_was_asked_for_later_stays(make_deployment: Callable[..., Deployment]) -> None:
    deployment = make_deployment(
        "later",
        hermes_provider="rehearsal",
        hermes_host_tools=True,
        hermes_secrets={"EXA_API_KEY": "canary-of-a-search"},
    )
    with package_index() as index:
        deployment.variables["hermes_env"] = {"UV_DEFAULT_INDEX": index.url}
        deployment.deploy()
        name, content = wheel("exa_py", listed(deployment), {"exa_py/__init__.py": EXA})
        index.wheels[name] = content
        assert "lazy installs disabled" in searched(deployment)
        assert index.asked == []

        deployment.variables["hermes_lazy_installs"] = True
        assert "installs" in deployment.deploy().output
        assert "the stand-in for Exa was asked" in searched(deployment)
        assert f"/files/{name}" in index.asked

    # Whatever asked for it anew would now be told that there is no registry.
    assert deployment.call("POST", "/api/instance/stop").status == 200
    assert "the stand-in for Exa was asked" in searched(deployment)
    deployment.variables["hermes_packages"] = {"python": ["humanize==4.9.0"]}
    another = deployment.deploy()
    assert "Hermes in a new sandbox, because of a new image" in another.output
    assert "the stand-in for Exa was asked" in searched(deployment)

    deployment.variables["hermes_lazy_installs"] = False
    deployment.deploy()
    assert "lazy installs disabled" in searched(deployment)

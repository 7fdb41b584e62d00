# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Which packages a running Hermes has, against those that are declared."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.settings.features import (
    FEATURES,
    Feature,
)
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.build import declared
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.proof import packages

LOCK = """\
more-itertools==10.5.0 \\
    --hash=sha256:1
hermes-agent[anthropic]==0.19.0 \\
    --hash=sha256:2
ripgrep==14.1.0 \\
    --hash=sha256:3
pywin32==312 ; sys_platform == 'win32' \\
    --hash=sha256:4
"""
DECLARED = {
    "hermes_features.search": {"ripgrep": "14.1.0"},
    "hermes_features.git.debian": {"git": "1:2.39.5", "openssh-client": "1:9.2"},
    "hermes_packages.python": {"more-itertools": "10.5.0"},
    "hermes_packages.debian": {"jq": "1.6-2.1+deb12u3"},
}
RUNNING: dict[str, Any] = {
    "python": {"hermes-agent": "0.19.0", "ripgrep": "14.1", "more-itertools": "10.5.0"},
    "debian": {
        "jq": {"version": "1.6-2.1+deb12u3", "other": [], "gone": []},
        # The base had one of its files already.
        "git": {"version": "1:2.39.5", "other": ["usr/bin/git"], "gone": []},
        # In the words of an earlier release.
        "openssh-client": {"version": "1:9.2", "other": []},
    },
    "modules": ["more_itertools"],
    "commands": ["python3", "rg"],
}


def without(name: str) -> dict[str, Any]:
    """Without a package of Debian."""
    return {"debian": {one: told for one, told in RUNNING["debian"].items() if one != name}}


def having(name: str, **told: Any) -> dict[str, Any]:
    """With a package of Debian in another state."""
    return {"debian": RUNNING["debian"] | {name: told}}


def settings(engine: str) -> Settings:
    """Those of a deployment that asks for a feature and further packages."""
    return Settings(
        engine=engine,
        features=["search", "git"],
        packages={"python": ["More_Itertools==10.5"], "debian": ["jq=1.6-2.1+deb12u3"]},
    )


def sources(tmp_path: Path) -> Any:
    parts = '{"": ["hermes-agent"], "search": ["ripgrep", "pywin32"], "git": []}'
    (tmp_path / "features.json").write_text(parts)
    versions = DECLARED["hermes_features.git.debian"].items()
    programs = {name: {"version": version} for name, version in versions}
    (tmp_path / "debian.json").write_text(json.dumps({"packages": programs}))
    return SimpleNamespace(lock_text=LOCK, container=tmp_path)


def test_what_is_declared_has_the_versions_of_the_lock(tmp_path: Path) -> None:
    assert declared.packages(settings("docker"), sources(tmp_path)) == DECLARED
    machine = declared.packages(settings("process"), sources(tmp_path))
    own = {"hermes_packages.debian", "hermes_features.git.debian"}
    assert set(DECLARED) - set(machine) == own, "it has the machine's own"
    assert declared.packages(Settings(), Sources()) == {}


def test_the_packages_of_every_feature_are_in_the_lock() -> None:
    every = ["editors", "google", "mcp", "messaging", "search", "voice", "web"]
    found = declared.packages(Settings(features=every), Sources(features=every))
    assert {*found} == {f"hermes_features.{one}" for one in every}
    assert "ripgrep" in found["hermes_features.search"]


def test_a_hermes_that_has_them_lacks_nothing() -> None:
    assert packages.missing(DECLARED, {"packages": RUNNING}, "x") == []
    assert packages.missing({}, None, "x") == []
    assert packages.missing(DECLARED, {"packages": None}, "x") == [], "it cannot be asked"


@pytest.mark.parametrize(
    ("change", "subject", "words"),
    [
        (
            {"python": RUNNING["python"] | {"more-itertools": "10.4.0"}},
            "hermes_packages.python",
            "more-itertools is 10.4.0 in the running Hermes, not 10.5.0.",
        ),
        (
            {"python": {"more-itertools": "10.5.0"}},
            "hermes_features.search",
            "ripgrep 14.1.0 is not there.",
        ),
        ({"commands": ["python3"]}, "hermes_features.search", "its program rg is not there."),
        (without("jq"), "hermes_packages.debian", "jq 1.6-2.1+deb12u3 is not there."),
        (without("openssh-client"), "hermes_features.git", "openssh-client 1:9.2 is not there."),
        (
            having("git", version="1:2.39.5", other=["usr/bin/git"], gone=["usr/bin/git"]),
            "hermes_features.git",
            "git 1:2.39.5 is there, but not with its own /usr/bin/git.",
        ),
        (
            having("jq", version="1.7", other=[], gone=[]),
            "hermes_packages.debian",
            "jq is 1.7 in the sandbox, not 1.6-2.1+deb12u3.",
        ),
        (
            having("jq", version="1.6-2.1+deb12u3", other=list("abcdefg"), gone=[]),
            "hermes_packages.debian",
            "jq 1.6-2.1+deb12u3 is there, but not with its own /a, /b, /c, /d, /e, 2 more.",
        ),
    ],
)
def test_what_is_otherwise_is_named(change: dict[str, Any], subject: str, words: str) -> None:
    (problem,) = packages.missing(DECLARED, {"packages": RUNNING | change}, "mend it.")
    told = (problem.subject, problem.sentence, problem.remedy, problem.code)
    assert told == (subject, words, "mend it.", "agent-not-in-force")


@pytest.mark.parametrize("feature", FEATURES, ids=lambda one: one.name)
def test_of_each_feature_it_is_seen_that_what_is_used_is_there(feature: Feature) -> None:
    wanted = {f"hermes_features.{feature.name}": {"some": "1"}}
    running = {"python": {"some": "1"}, "debian": {}, "modules": ["some"], "commands": ["python3"]}
    told = [one.sentence for one in packages.missing(wanted, {"packages": running}, "x")]
    assert told == [
        *(f"its module {one} is not there." for one in feature.modules),
        *(f"its program {one} is not there." for one in feature.commands),
    ]
    assert told or feature.debian
    before = {"python": running["python"], "debian": {}, "modules": None, "commands": None}
    assert packages.missing(wanted, {"packages": before}, "x") == []


@pytest.mark.parametrize(("engine", "words"), [("process", "/image"), ("docker", "`restart`")])
def test_what_mends_them_is_told_by_where_hermes_runs(engine: str, words: str) -> None:
    remedy = packages.remedy_on(engine, Path("/image"), "restart", "sleep", "deploy")
    assert words in remedy and ("`deploy`" in remedy) is (engine == "process")


def test_a_hermes_that_does_not_tell_is_not_believed() -> None:
    (problem,) = packages.missing(DECLARED, None, "x")
    assert "does not tell" in problem.sentence
